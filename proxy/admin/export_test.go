// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// Scrape returns a function that renders /stats/prometheus without a connection and returns the number of bytes.
func Scrape(reg *stats.Registry, query string) func() int64 {
	s := New(Config{}, Views{}, Deps{Stats: reg, Log: zap.NewNop()})
	q, err := parseQuery([]byte(strings.TrimPrefix(query, "?")), new(fasthttp.RequestHeader), nil)
	if err != nil {
		panic(err)
	}
	return func() int64 {
		a, err := s.prometheus(&request{query: q})
		if err != nil {
			panic(err)
		}
		n := &counting{w: nowhere{}}
		if err := a.write(context.Background(), n); err != nil {
			panic(err)
		}
		return n.n
	}
}

// CutAt runs what ends the intervals, at these ticks, until the server is closed.
func (s *Server) CutAt(tick <-chan time.Time) { s.cutAt(tick) }

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// Clean is clean.
func Clean(s string) string { return clean(s) }

// Unclean is unclean.
func Unclean(r rune) bool { return unclean(r) }

// CleanJSON passes b through a jsonWriter in pieces of size n.
func CleanJSON(b []byte, n int) string {
	var out bytes.Buffer
	j := &jsonWriter{w: bufio.NewWriter(&out)}
	for len(b) > 0 {
		m := min(n, len(b))
		j.Write(b[:m])
		b = b[m:]
	}
	j.Flush()
	return out.String()
}

// ParseQuery is parseQuery without a form.
func ParseQuery(raw []byte) (map[string][]string, error) {
	return parseQuery(raw, new(fasthttp.RequestHeader), nil)
}

// LocalHost is localHost for a connection to 10.1.2.3:15000 of a server that is configured to listen on configured.
func LocalHost(host string, configured mesh.Address) bool {
	return localHost(host, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 15000}, configured)
}
