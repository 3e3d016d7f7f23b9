// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/proxy/socket"
)

// heap is the memory in use.
func heap() int {
	for range 3 { // pooled buffers that nobody took are gone after two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestHeldMemory: what HeldBytes bounds is memory, however few bytes a peer has put into each buffer (F45). Streams that
// hold no more bytes than that are not reset, and get them all.
func TestHeldMemory(t *testing.T) { // not parallel: it reads the process's memory
	for _, c := range []struct{ streams, each int }{{420, smallBody + 800}, {40, 100_000}, {900, 1}} {
		t.Run(fmt.Sprintf("%d streams with %d bytes", c.streams, c.each), func(t *testing.T) {
			x := newWorld(t)
			cfg := Defaults()
			cfg.Streams = c.streams
			s := newTarget(x, &cfg)
			before := 0
			x.do(func(w *socket.Worker) {
				for i := range c.streams {
					if err := s.take(w, s.now, aFrame(frameHeaders, flagEndHeaders, uint32(2*i+1), string(aHead))); err != nil {
						t.Error(err)
					}
				}
				before = heap()
				for i := range c.streams {
					for n := c.each; n > 0; n -= frameBytes {
						f := aFrame(frameData, 0, uint32(2*i+1), strings.Repeat("x", min(n, frameBytes)))
						if err := s.take(w, s.now, f); err != nil {
							t.Error(err)
						}
					}
				}
			})
			took, held := heap()-before, s.conn.held
			t.Logf("%d KiB of bodies took %d KiB of memory; %d KiB are counted", c.streams*c.each>>10, took>>10, held>>10)
			if held > cfg.HeldBytes || took > cfg.HeldBytes*5/4 && !invariant.On {
				t.Errorf("%d bytes are held by count and %d by measure, of %d", held, took, cfg.HeldBytes)
			}
			x.do(func(w *socket.Worker) {
				for _, st := range s.held {
					got := 0
					for got < c.each {
						p, _, err := st.Next(w)
						if got += p.Len(); err != nil {
							t.Fatal(err)
						}
					}
					if got != c.each {
						t.Errorf("%d bytes of %d", got, c.each)
					}
				}
				s.finish()
				s.Close(w, NoError)
			})
			if s.conn.held != 0 {
				t.Errorf("%d bytes are held at the end", s.conn.held)
			}
		})
	}
}

// Bytes come as they were sent, whatever memory they were moved to in between.
func TestTighten(t *testing.T) {
	t.Parallel()
	for _, sizes := range [][]int{{smallBody, 1}, {smallBody + 1}, {100, smallBody, 200, 30_000}, {100_000, 5}, {1, 100_000, 3}} {
		var bufs bytebuf.Pool
		c := &conn{cfg: &Config{HeldBytes: 1 << 20}, bufs: &bufs}
		st := &stream{c: c}
		var want, got strings.Builder
		put := func(n int) {
			p := pattern(want.Len() + n)[want.Len():]
			want.Write(p)
			st.put(p)
		}
		for _, n := range sizes {
			put(n)
		}
		st.tighten()
		for _, n := range sizes {
			put(n)
			st.tighten()
		}
		for st.queued > 0 {
			p, _, err := st.take()
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			got.Write(p.Bytes())
			st.takeBack()
		}
		if got.String() != want.String() {
			t.Errorf("%v: %d bytes come out of %d", sizes, got.Len(), want.Len())
		}
		if c.held != 0 || bufs.InUse() != 0 {
			t.Errorf("%v: %d bytes and %d buffers are held at the end", sizes, c.held, bufs.InUse())
		}
	}
}

// TestHeldHeads: the heads of all requests of a connection are bounded together. What is beyond is refused, and counts as
// a reset; the others are served, and make room when they end.
func TestHeldHeads(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.HeldHeads, cfg.HeadBytes = 0, 15<<10
	s := newTarget(x, &cfg)
	block := string(aHead)
	for range 4 {
		block += string(literal(nil, 0, []byte("x"), []byte(strings.Repeat("v", 3000))))
	}
	x.do(func(w *socket.Worker) {
		ask := func(from, n int) {
			for i := from; i < from+n; i++ {
				if err := s.take(w, s.now, aFrame(frameHeaders, 5, uint32(2*i+1), block)); err != nil {
					t.Error(err)
				}
			}
		}
		ask(0, 20)
		if len(s.held) != 9 || s.refused != 11 || s.active != 9 || s.heads > 8*cfg.HeadBytes {
			t.Errorf("%d are served, %d refused, %d active, %d bytes", len(s.held), s.refused, s.active, s.heads)
		}
		s.finish()
		if ask(20, 1); len(s.held) != 1 {
			t.Errorf("%d are served when there is room again", len(s.held))
		}
		s.finish()
		if s.heads != 0 {
			t.Errorf("%d bytes at the end", s.heads)
		}
		s.Close(w, NoError)
	})
	for i := range uint32(11) {
		if refused := aFrame(frameReset, 0, 2*(9+i)+1, "\x00\x00\x00\x07"); !strings.Contains(s.c.out.String(), string(refused)) {
			t.Errorf("stream %d was not refused", 2*(9+i)+1)
		}
	}
}
