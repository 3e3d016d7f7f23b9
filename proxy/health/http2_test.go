// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// deps2 is what checks over HTTP/2 need. The engine ends with the test, after its checkers.
func deps2(t *testing.T) health.Deps {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{Sets: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	d := deps()
	d.Engine, d.HTTP2 = e, h2.Defaults()
	return d
}

// http2Check is httpCheck over HTTP/2.
func http2Check() *mesh.HealthCheck {
	cfg := httpCheck()
	cfg.HTTP.HTTP2 = true
	return cfg
}

// handled serves a connection with Go's HTTP/2 server.
func handled(h http.HandlerFunc) func(int, net.Conn) {
	return func(_ int, c net.Conn) {
		//lint:ignore SA1019 it serves a connection that somebody else has accepted, which net/http's server does not
		(&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Handler: h})
	}
}

// closedByPeer reports whether the other side has closed the connection by now. On the loopback that is known at once.
func closedByPeer(t *testing.T, c net.Conn) (closed bool) {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = rc.Control(func(fd uintptr) {
		for p := make([]byte, 1<<10); ; {
			n, err := syscall.Read(int(fd), p)
			if n <= 0 {
				closed = err != syscall.EAGAIN
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return closed
}

// TestHTTP2Answers: what hosts answer means what it means over HTTP/1.1, and the connection is kept.
func TestHTTP2Answers(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	named := func(h *mesh.HTTPHealthCheck) {
		h.ServiceName = &mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile("^shop-.*")}
	}
	for _, tc := range []struct {
		name     string
		change   func(*mesh.HTTPHealthCheck)
		serve    http.HandlerFunc
		want     string
		degraded bool
		network  int64 // failures
		verified int64
	}{
		{name: "200", serve: answer(200, "ok")},
		{name: "200 without a body", serve: answer(200, "")},
		{name: "more than is read", serve: answer(200, strings.Repeat("x", 200<<10))},
		{name: "degraded", serve: answer(200, "", "x-envoy-degraded", ""), degraded: true},
		{name: "503", serve: answer(503, "no"), want: "status 503"},
		{name: "302 is not followed", serve: answer(302, "", "location", "/"), want: "status 302"},
		{
			name: "expected", serve: answer(302, ""),
			change: func(h *mesh.HTTPHealthCheck) { h.Expected = []mesh.StatusRange{{Start: 300, End: 400}} },
		},
		{name: "HEAD", serve: answer(200, "nothing of this is sent"), change: func(h *mesh.HTTPHealthCheck) { h.Method = "HEAD" }},
		{name: "its name", serve: answer(200, "", "x-envoy-upstream-healthchecked-cluster", "shop-1"), change: named, verified: 1},
		{name: "another name", serve: answer(200, ""), change: named, want: "the service name does not match", verified: 1},
		{name: "the name does not matter", serve: answer(500, ""), change: named, want: "status 500"},
		{
			name: "after an early hint", serve: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusOK)
			},
		},
		{
			name: "reset", serve: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			want: "stream reset by the peer, code 2", network: 1,
		},
		{
			name: "reset in the body", serve: func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "half")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			},
			want: "stream reset by the peer, code 2", network: 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, mesh.Address{}, handled(tc.serve))
			cfg, d := http2Check(), deps2(t)
			if tc.change != nil {
				tc.change(cfg.HTTP)
			}
			results, c := watch(t, cfg, s.target(), d)
			r := <-results
			want := health.Result{Healthy: tc.want == "", Changed: tc.want == "", First: true, Degraded: tc.degraded, Reason: tc.want}
			if r != want {
				t.Errorf("got %+v, want %+v", r, want)
			}
			if n, v := d.Stats.Value(metrics.HealthCheckNetworkFailure), d.Stats.Value(metrics.HealthCheckVerifyCluster); n != tc.network || v != tc.verified {
				t.Errorf("%d network failures, %d names looked at", n, v)
			}
			if r = <-results; r.Reason != tc.want {
				t.Errorf("the second time: %+v", r)
			}
			go func() { <-results }() // the third may be under way
			c.Stop()
			if n := s.connections(1); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestHTTP2Request: what hosts are asked.
func TestHTTP2Request(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*mesh.HealthCheck, *health.Target)
		want   string
	}{
		{"plain", func(*mesh.HealthCheck, *health.Target) {}, "HTTP/2.0 GET /health?x=1 backend [user-agent: Envoy/HC] 0"},
		{"the host of the check", func(cfg *mesh.HealthCheck, _ *health.Target) { cfg.HTTP.Host = "of.check" }, "HTTP/2.0 GET /health?x=1 of.check [user-agent: Envoy/HC] 0"},
		{
			"the host of the endpoint", func(cfg *mesh.HealthCheck, t *health.Target) { cfg.HTTP.Host, t.CheckHost = "of.check", "of.endpoint" },
			"HTTP/2.0 GET /health?x=1 of.endpoint [user-agent: Envoy/HC] 0",
		},
		{"POST", func(cfg *mesh.HealthCheck, _ *health.Target) { cfg.HTTP.Method = "POST" }, "HTTP/2.0 POST /health?x=1 backend [user-agent: Envoy/HC] 0"},
		{
			"headers", func(cfg *mesh.HealthCheck, _ *health.Target) {
				cfg.HTTP.Remove = []string{"user-agent"}
				cfg.HTTP.Add = []mesh.HeaderAdd{{Name: "x-a", Literal: "v"}, {Name: "x-a", Literal: "w"}}
			},
			"HTTP/2.0 GET /health?x=1 backend [x-a: v x-a: w] 0",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			s := serve(t, mesh.Address{}, handled(func(w http.ResponseWriter, q *http.Request) {
				select {
				case got <- asked(q):
				default: // it is not the first
				}
			}))
			cfg, target := http2Check(), s.target()
			cfg.HTTP.Path = "/health?x=1"
			tc.change(cfg, &target)
			results, _ := watch(t, cfg, target, deps2(t))
			if r := <-results; !r.Healthy {
				t.Errorf("%+v", r)
			}
			if q := <-got; q != tc.want {
				t.Errorf("got  %s\nwant %s", q, tc.want)
			}
		})
	}
}

// asked puts a request into words.
func asked(q *http.Request) string {
	var lines []string
	for name, values := range q.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(lines)
	body, _ := io.ReadAll(q.Body)
	return fmt.Sprintf("%s %s %s %s %v %d", q.Proto, q.Method, q.RequestURI, q.Host, lines, len(body))
}

// frames is a host that is told each frame to send. The preface and the SETTINGS are exchanged by framed.
type frames struct {
	*http2.Framer
	net.Conn
}

func framed(f func(n int, s *frames)) func(int, net.Conn) {
	return func(n int, c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		s := &frames{http2.NewFramer(c, c), c}
		if s.WriteSettings() != nil {
			return
		}
		f(n, s)
	}
}

// request waits for a request to end and returns its stream, 0 at the connection's end.
func (s *frames) request() uint32 {
	for {
		f, err := s.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = s.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return f.StreamID
			}
		}
	}
}

// ok answers 200; end says that this is all.
func (s *frames) ok(id uint32, end bool) {
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: end})
}

// rest serves the rest of a connection well.
func (s *frames) rest() {
	for id := s.request(); id != 0; id = s.request() {
		s.ok(id, true)
	}
}

// TestHTTP2Ends: how connections end, and what of that is a failure. Each script serves the first connection; later ones
// are served well.
func TestHTTP2Ends(t *testing.T) {
	t.Parallel()
	const all = 1<<31 - 1
	for _, tc := range []struct {
		name   string
		script func(s *frames)
		want   []string // the reasons of the first checks
		conns  int      // that these checks need
	}{
		{"in order while a check is under way", func(s *frames) {
			id := s.request()
			_ = s.WriteGoAway(all, http2.ErrCodeNo, nil)
			s.ok(id, true)
			s.rest()
		}, []string{"", ""}, 2},
		{"in order between two checks", func(s *frames) {
			s.ok(s.request(), true)
			_ = s.WriteGoAway(1, http2.ErrCodeNo, nil)
			s.rest()
		}, []string{"", ""}, 2},
		{"a request that is not looked at", func(s *frames) {
			s.ok(s.request(), true)
			s.request()
			_ = s.WriteGoAway(1, http2.ErrCodeNo, nil)
			s.rest()
		}, []string{"", "", ""}, 2},
		{"a request that is not looked at, the first", func(s *frames) {
			s.request()
			_ = s.WriteGoAway(0, http2.ErrCodeNo, nil)
			s.rest()
		}, []string{"stream reset by the peer, code 0", ""}, 2},
		{"closed between two checks", func(s *frames) { s.ok(s.request(), true) }, []string{"", ""}, 2},
		{"closed as it is asked", func(s *frames) {
			s.ok(s.request(), true)
			s.request()
		}, []string{"", "", ""}, 2},
		{"closed as it is asked, the first time", func(s *frames) { s.request() }, []string{"read: connection closed", ""}, 2},
		{"closed in the middle of an answer", func(s *frames) {
			s.ok(s.request(), true)
			s.ok(s.request(), false)
		}, []string{"", "read: connection closed", ""}, 2},
		{"with an error", func(s *frames) {
			s.request()
			_ = s.WriteGoAway(all, http2.ErrCodeEnhanceYourCalm, nil)
		}, []string{"read: connection closed", ""}, 2},
		{"one stream, and the connection stays", func(s *frames) {
			s.ok(s.request(), true)
			_ = s.WriteRSTStream(s.request(), http2.ErrCodeRefusedStream)
			s.rest()
		}, []string{"", "stream reset by the peer, code 7", ""}, 1},
		{"a malformed answer", func(s *frames) {
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: s.request(), BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true})
			s.rest()
		}, []string{"protocol error: unexpected_pseudo_header", ""}, 2},
		{"a frame that is none", func(s *frames) {
			s.request()
			io.WriteString(s, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
		}, []string{"protocol error: frame too long", ""}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, mesh.Address{}, framed(func(n int, s *frames) {
				if n == 1 {
					tc.script(s)
				} else {
					s.rest()
				}
			}))
			d := deps2(t)
			results, c := watch(t, http2Check(), s.target(), d)
			failed := int64(0)
			for i, want := range tc.want {
				r := <-results
				// A connection that is closed with something unread is reset.
				if got := strings.Replace(r.Reason, "connection reset by peer", "connection closed", 1); got != want {
					t.Errorf("check %d: %q, want %q", i, got, want)
				}
				if want != "" {
					failed++
				}
			}
			if n := d.Stats.Value(metrics.HealthCheckNetworkFailure); n != failed {
				t.Errorf("%d network failures, want %d", n, failed)
			}
			go func() { <-results }()
			c.Stop()
			if n := s.connections(tc.conns); n != tc.conns {
				t.Errorf("%d connections, want %d", n, tc.conns)
			}
		})
	}
}

// TestHTTP2Reused: a connection serves more checks than it can hold streams at a time.
func TestHTTP2Reused(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, framed(func(_ int, s *frames) { s.rest() }))
	d := deps2(t)
	d.HTTP2.Streams = 3
	results, _ := watch(t, http2Check(), s.target(), d)
	for range 10 {
		if r := <-results; !r.Healthy {
			t.Errorf("%+v", r)
		}
	}
	if n := s.connections(1); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTP2Scheme: the scheme says whether there is TLS.
func TestHTTP2Scheme(t *testing.T) {
	t.Parallel()
	own := testcert.New(t).Issue(t, "server.test").Certificate
	for _, want := range []string{"http", "https"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			serves := framed(func(_ int, s *frames) {
				s.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
				for {
					f, err := s.ReadFrame()
					if err != nil {
						return
					}
					if f, ok := f.(*http2.MetaHeadersFrame); ok {
						got <- f.PseudoValue("scheme")
						return
					}
				}
			})
			d := deps2(t)
			s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
				switch {
				case n > 1: // the first one was enough
					return
				case want == "https":
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"h2"}})
				}
				serves(n, c)
			})
			if want == "https" {
				cl, err := transport.NewClient(&mesh.TLSContext{ALPN: []string{"h2"}}, nil, metrics.NewClusterTLS(stats.NewRegistry(stats.Options{}), "c"))
				if err != nil {
					t.Fatal(err)
				}
				d.Layer = cl
			}
			watch(t, http2Check(), s.target(), d)
			if scheme := <-got; scheme != want {
				t.Errorf("got %q", scheme)
			}
		})
	}
}

// TestHTTP2NotReused: without reuse_connection each check has a connection of its own, and the one before is closed.
func TestHTTP2NotReused(t *testing.T) {
	t.Parallel()
	ended := make(chan int, 100)
	good := handled(func(http.ResponseWriter, *http.Request) {})
	s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
		good(n, c)
		ended <- n
	})
	cfg := http2Check()
	cfg.ReuseConnection = false
	results, _ := watch(t, cfg, s.target(), deps2(t))
	seen := map[int]bool{}
	for range 3 {
		if r := <-results; !r.Healthy {
			t.Errorf("%+v", r)
		}
		seen[<-ended] = true
	}
	if len(seen) != 3 {
		t.Errorf("connections %v ended", seen)
	}
}

// TestHTTP2Timeout: a host that does not answer in time fails, and is asked on a new connection next.
func TestHTTP2Timeout(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 100)
	stuck := handled(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	good := handled(func(http.ResponseWriter, *http.Request) {})
	s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
		if n > 1 {
			good(n, c)
			return
		}
		stuck(n, c)
		ended <- struct{}{}
	})
	cfg, d := http2Check(), deps2(t)
	cfg.Timeout = 200 * time.Millisecond
	results, _ := watch(t, cfg, s.target(), d)
	if r := <-results; r.Reason != "timeout" || r.Healthy {
		t.Errorf("%+v", r)
	}
	<-ended
	if d.Stats.Value(metrics.HealthCheckNetworkFailure) == 0 {
		t.Errorf("got %s", counts(d.Stats))
	}
	for r := range results {
		if r.Healthy {
			return
		}
	}
}

// TestHTTP2Unreachable: nobody listens, and a host that takes connections and says nothing.
func TestHTTP2Unreachable(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, func(int, net.Conn) {})
	target := s.target()
	s.Close()
	results, _ := watch(t, http2Check(), target, deps2(t))
	if r := <-results; r.Reason != "connect: connection refused" {
		t.Errorf("%+v", r)
	}
}

// TestHTTP2Socket: hosts can be behind a unix socket.
func TestHTTP2Socket(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{Pipe: t.TempDir() + "/s"}, handled(func(http.ResponseWriter, *http.Request) {}))
	results, _ := watch(t, http2Check(), s.target(), deps2(t))
	if r := <-results; !r.Healthy {
		t.Errorf("%+v", r)
	}
}

// TestHTTP2Invalid: what would end a header line is not sent, in no protocol.
func TestHTTP2Invalid(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, handled(func(http.ResponseWriter, *http.Request) { t.Error("it was sent") }))
	target := s.target()
	target.CheckHost = "a\r\nx-evil: 1"
	results, _ := watch(t, http2Check(), target, deps2(t))
	if r := <-results; r.Reason != "path, host or a header has a line break" {
		t.Errorf("%+v", r)
	}
}

// TestHTTP2Stop: Stop ends a check that waits for its answer, and its connection is closed when it returns.
func TestHTTP2Stop(t *testing.T) {
	t.Parallel()
	asked, done := make(chan net.Conn), make(chan struct{})
	s := serve(t, mesh.Address{}, framed(func(_ int, s *frames) {
		s.request()
		asked <- s.Conn
		<-done
	}))
	d := deps2(t)
	c := health.Start(http2Check(), s.target(), d, func(r health.Result) { t.Errorf("told %+v", r) })
	conn := <-asked
	c.Stop()
	if !closedByPeer(t, conn) {
		t.Error("the connection is still open")
	}
	close(done)
	c.Stop()
	if got, want := counts(d.Stats), "attempt 1, success 0, failure 0, network_failure 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
