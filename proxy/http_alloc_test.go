// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// counter is an observer that only counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Observe(*mesh.Outcome) { c.n.Add(1) }
func (c *counter) Notify(*mesh.Notice)   {}

// TestHTTPAllocations: a request on a kept connection, through real sockets, allocates nothing, with a client and an
// upstream that allocate nothing either. It is not parallel, so that nothing else is counted; what is left over is the
// text of the date, once a second, and what the runtime does by itself, for all of which there is one in fifty requests. An address
// in x-forwarded-for costs one allocation: package netip reads only strings.
func TestHTTPAllocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector and the invariants allocate")
	}
	const (
		head   = "Host: service.example\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\nX-A: b\r\nX-Trace: 0123456789abcdef\r\n"
		answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-cache\r\nX-B: c\r\n"
	)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name, request, answer string
		cfg                   func(*mesh.HTTPManager)
		allowed               float64
	}{
		{"GET", "GET /path?q=1 HTTP/1.1\r\n" + head + "\r\n", answer + "Content-Length: 1024\r\n\r\n" + long(1024), nil, 0},
		{"GET at the edge", "GET /path?q=1 HTTP/1.1\r\n" + head + "\r\n", answer + "Content-Length: 1024\r\n\r\n" + long(1024), func(m *mesh.HTTPManager) { m.UseRemoteAddress, m.NormalizePath, m.MergeSlashes = true, true, true }, 0},
		{"GET of chunks", "GET /path HTTP/1.1\r\n" + head + "\r\n", answer + "Transfer-Encoding: chunked\r\n\r\n400\r\n" + long(1024) + "\r\n0\r\n\r\n", nil, 0},
		{"GET of 64 KiB", "GET /path HTTP/1.1\r\n" + head + "\r\n", answer + "Content-Length: 65536\r\n\r\n" + long(65536), nil, 0},
		{"POST", "POST /path HTTP/1.1\r\n" + head + "Content-Length: 1024\r\n\r\n" + long(1024), answer + "Content-Length: 2\r\n\r\nok", nil, 0},
		{"gRPC", "POST /p.Svc/Do HTTP/1.1\r\n" + head + "Content-Type: application/grpc\r\nTE: trailers\r\ngrpc-timeout: 5S\r\nContent-Length: 1024\r\n\r\n" + "\x00\x00\x00\x03\xfb" + long(1019), "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 7\r\n\r\n\x00\x00\x00\x00\x02ok", nil, 0},
		{"GET through other proxies", "GET /path HTTP/1.1\r\n" + head + "X-Forwarded-For: 192.0.2.1\r\nX-Request-Id: 0123\r\n\r\n", answer + "Content-Length: 2\r\n\r\nok", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := httpAllocations(t, c.request, c.answer, c.cfg); got > c.allowed+0.02 {
				t.Errorf("%.4f allocations for each request", got)
			}
		})
	}
}

// httpAllocations returns the allocations for each of many requests.
func httpAllocations(t *testing.T, request, answer string, change func(*mesh.HTTPManager)) float64 {
	r, seen := newLean(t)
	m := manager()
	if change != nil {
		change(m)
	}
	r.serve(m, []*mesh.Route{prefix("/", to("c"))}, cluster("c", httpFixed(t, answer)))
	c, _ := httpDial(t, r.addr)
	out, in := []byte(request), make([]byte, 128<<10)
	return allocations(t, seen, func() {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; {
			k, err := c.Read(in[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
			if httpWhole(in[:n]) {
				return
			}
		}
	})
}

// newLean returns a server with an observer that only counts.
func newLean(t *testing.T) (*rig, *counter) {
	seen := &counter{}
	s, err := New(Config{}, Deps{
		Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Notifier: seen, Observers: []mesh.Observer{seen},
		ListenerFilters: registry.Builders(inspect.Rows()), Policies: registry.Builders(lb.Rows()),
		Logs: func([]mesh.AccessLog) (Logs, error) { return noLogs{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &rig{Server: s, t: t, rec: newRecorder()}, seen
}

// allocations returns what the process allocates for each of many exchanges.
func allocations(t *testing.T, seen *counter, exchange func()) float64 {
	const rounds = 1000
	for range rounds {
		exchange()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools of buffers
	// The least of three, since on a busy machine a worker may move between processors and find its pool empty there.
	least := math.Inf(1)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			exchange()
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/rounds)
	}
	if n := seen.n.Load(); n < 4*rounds-1 {
		t.Errorf("%d outcomes for %d requests", n, 4*rounds)
	}
	return least
}

// httpWhole reports whether b holds a whole answer.
func httpWhole(b []byte) bool {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return false
	}
	head, body := b[:i], b[i+4:]
	name := []byte("ontent-Length: ")
	j := bytes.Index(head, name)
	if j < 0 {
		return bytes.HasSuffix(body, []byte("\r\n0\r\n\r\n"))
	}
	n := 0
	for _, d := range head[j+len(name):] {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int(d-'0')
	}
	return len(body) == n
}

// httpFixed is an upstream that answers each request with the same bytes.
func httpFixed(t *testing.T, answer string) string {
	return httpOrigin(t, func(c *net.TCPConn, _ *bufio.Reader) {
		in, out := make([]byte, 64<<10), []byte(answer)
		for n := 0; ; {
			k, err := c.Read(in[n:])
			if err != nil {
				return
			}
			if n += k; httpWholeRequest(in[:n]) {
				n = 0
				if _, err := c.Write(out); err != nil {
					return
				}
			}
		}
	})
}

func httpWholeRequest(b []byte) bool {
	if b[0] == 'G' {
		return bytes.HasSuffix(b, []byte("\r\n\r\n"))
	}
	return httpWhole(b)
}
