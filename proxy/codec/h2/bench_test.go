// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// fields is what a browser's request and its answer carry besides their control data.
var requestFields = []string{
	"user-agent", "Mozilla/5.0 (X11; Linux x86_64)", "accept", "text/html,application/xhtml+xml",
	"accept-language", "en-US,en;q=0.5", "accept-encoding", "gzip, deflate", "x-forwarded-for", "10.1.2.3",
	"x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124", "cache-control", "no-cache", "x-tenant", "blue",
}

var answerFields = []string{
	"content-type", "application/json", "cache-control", "no-cache", "server", "toy", "vary", "accept-encoding",
	"x-frame-options", "deny", "etag", "\"abc\"", "date", "Sun, 22 Nov 2026 12:00:00 GMT",
}

// BenchmarkExchange is requests and answers of 1 KiB between our own two ends, over TCP.
func BenchmarkExchange(b *testing.B) {
	for _, n := range []struct{ conns, streams int }{{1, 1}, {1, 32}, {8, 32}} {
		b.Run(fmt.Sprintf("%dx%d", n.conns, n.streams), func(b *testing.B) { benchExchange(b, n.conns, n.streams, 1024) })
	}
	b.Run("8x32-16KiB", func(b *testing.B) { benchExchange(b, 8, 32, 16<<10) })
}

func benchExchange(b *testing.B, conns, streams, size int) {
	x := newWorld(b)
	cfg := Defaults()
	body := []byte(strings.Repeat("x", size))
	addr, _ := x.listen(&cfg, nil)
	serve := func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
		_, _, _ = st.Body().Buffered()
		r := answers.Get().(*codec.Response)
		r.Reset()
		r.Status, r.Length = 200, int64(len(body))
		for i := 0; i < len(answerFields); i += 2 {
			r.Header.AddString(answerFields[i], answerFields[i+1])
		}
		_ = st.Head(w, r, bytebuf.Of(body), true)
		answers.Put(r)
	}
	_ = addr
	x.ln.Close()
	addr, _ = x.listen(&cfg, serve)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range conns {
		c := x.dial(addr, &cfg)
		for range streams {
			wg.Add(1)
			x.e.Go(runFunc(func(w *socket.Worker) {
				defer wg.Done()
				q := request("GET", "/api/v1/orders/42", requestFields...)
				var r codec.Response
				for left.Add(-1) >= 0 {
					st, ok := c.Reserve()
					if !ok {
						b.Error("no place")
						return
					}
					if err := st.Call(w, q, nil, &r); err != nil {
						b.Error(err)
						return
					}
					for end := false; !end; {
						var err error
						if _, end, err = st.Next(w); err != nil {
							b.Error(err)
							return
						}
					}
					st.Release()
				}
			}))
		}
	}
	wg.Wait()
}

var answers = sync.Pool{New: func() any { return new(codec.Response) }}

// BenchmarkEncode is the head of an answer whose fields are all in the table.
func BenchmarkEncode(b *testing.B) {
	var e encoder
	e.init()
	var l header.List
	for i := 0; i < len(answerFields); i += 2 {
		l.AddString(answerFields[i], answerFields[i+1])
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.list(e.begin(buf[:0]), &l, nil)
	}
}
