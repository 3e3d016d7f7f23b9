// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// TestFirstResult: what a host does, and what its first check makes of it.
func TestFirstResult(t *testing.T) {
	t.Parallel()
	well := health.Result{Healthy: true, Changed: true, First: true}
	fails := func(reason string) health.Result { return health.Result{First: true, Reason: reason} }
	http := httpCheck()
	named := httpCheck()
	named.HTTP.ServiceName = &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "loc"}
	hasty := httpCheck()
	hasty.Timeout = 20 * time.Millisecond
	hastyTCP := tcpCheck("PING", "PONG")
	hastyTCP.Timeout = hasty.Timeout
	silent := func(_ int, c net.Conn) { io.Copy(io.Discard, c) }
	for _, tc := range []struct {
		name string
		cfg  *mesh.HealthCheck
		host func(int, net.Conn)
		want health.Result
	}{
		{"up", http, answers(status(200)), well},
		{"503", http, answers(status(503)), fails("status 503")},
		{"a redirect", http, answers("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"), fails("status 302")},
		{
			"degraded", http, answers("HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n"),
			health.Result{Healthy: true, Changed: true, First: true, Degraded: true},
		},
		{
			"the right service", named,
			answers("HTTP/1.1 200 OK\r\nx-envoy-upstream-healthchecked-cluster: locations\r\ncontent-length: 0\r\n\r\n"), well,
		},
		{"no service", named, answers(status(200)), fails("the service name does not match")},
		{"never answers", hasty, silent, fails("timeout")},
		{"half an answer", hasty, answers("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), fails("timeout")},
		{"closes", http, answers(""), fails("read: connection closed")},
		{"closes in the middle", http, answers("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!"), fails("read: connection closed")},
		{"resets", http, func(_ int, c net.Conn) {
			c.Read(make([]byte, 1))
			c.(*net.TCPConn).SetLinger(0)
		}, fails("read: connection reset by peer")},
		{"garbage", http, answers("\x00\xff\r\n\r\n"), fails("malformed answer")},
		{"another protocol", http, answers("-ERR unknown command 'GET'\r\n\r\n"), fails("malformed answer")},
		{"a huge body", http, answers("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20)), well},
		{"a huge head", http, answers("HTTP/1.1 200 OK\r\n" + strings.Repeat("x-a: b\r\n", 1<<16)), fails("the answer's head is too large")},

		{"TCP, connects", tcpCheck(""), silent, well},
		{"TCP, sends only", tcpCheck("PING"), silent, well},
		{"TCP, answers", tcpCheck("PING", "PONG"), func(_ int, c net.Conn) {
			io.ReadFull(c, make([]byte, 4))
			io.WriteString(c, "+PONG\r\n")
		}, well},
		{"TCP, greets", tcpCheck("", "220", "\r\n"), func(_ int, c net.Conn) { io.WriteString(c, "220 mail ready\r\n") }, well},
		{"TCP, answers something else", hastyTCP, func(_ int, c net.Conn) {
			io.WriteString(c, "-LOADING")
			silent(0, c)
		}, fails("timeout")},
		{"TCP, closes", tcpCheck("PING", "PONG"), func(_ int, c net.Conn) {
			io.ReadFull(c, make([]byte, 4))
			io.WriteString(c, "PON")
		}, fails("read: connection closed")},
		{"TCP, does not end", tcpCheck("PING", "PONG"), func(_ int, c net.Conn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "PINGPINGPINGPING")
			}
		}, fails("the answer is too long")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, mesh.Address{}, tc.host)
			if got := first(t, tc.cfg, s.target()); got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, answers(status(200)))
	target := s.target()
	s.Close()
	d := deps()
	results, _ := watch(t, httpCheck(), target, d)
	if got, want := <-results, (health.Result{First: true, Reason: "connect: connection refused"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := counts(d.Stats), "attempt 1, success 0, failure 1, network_failure 1"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	target.Address = mesh.Address{Pipe: filepath.Join(t.TempDir(), "none")}
	if got, want := first(t, tcpCheck(""), target), (health.Result{First: true, Reason: "connect: no such file or directory"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLineBreakIsNotSent(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, answers(status(200)))
	target := s.target()
	target.ClusterName = "a\r\nb"
	want := health.Result{First: true, Reason: "path, host or a header has a line break"}
	if got := first(t, httpCheck(), target); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestAddresses: where a check connects to, and from where.
func TestAddresses(t *testing.T) {
	t.Parallel()
	path := mesh.Address{Pipe: filepath.Join(t.TempDir(), "s")}
	abstract := mesh.Address{Pipe: "@meshtap-health-" + filepath.Base(t.TempDir()) + t.Name()}
	nowhere := mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:1")}
	for _, tc := range []struct {
		name   string
		listen mesh.Address
		change func(cfg *mesh.HealthCheck, target *health.Target, d *health.Deps, port uint16)
		source string // "" for any
	}{
		{"unix socket", path, nil, ""},
		{"abstract unix socket", abstract, nil, ""},
		{"a unix socket has neither port nor source", mesh.Address{Pipe: path.Pipe + "2"},
			func(cfg *mesh.HealthCheck, _ *health.Target, d *health.Deps, _ uint16) {
				cfg.AltPort, d.Source = 1, netip.MustParseAddrPort("127.0.0.2:0")
			}, ""},
		{"port of the endpoint's check", mesh.Address{}, func(cfg *mesh.HealthCheck, target *health.Target, _ *health.Deps, port uint16) {
			target.Address, target.CheckPort, cfg.AltPort = nowhere, port, 1
		}, ""},
		{"port of the check", mesh.Address{}, func(cfg *mesh.HealthCheck, target *health.Target, _ *health.Deps, port uint16) {
			target.Address, cfg.AltPort = nowhere, port
		}, ""},
		{"source", mesh.Address{}, func(_ *mesh.HealthCheck, _ *health.Target, d *health.Deps, _ uint16) {
			d.Source = netip.MustParseAddrPort("127.0.0.2:0")
		}, "127.0.0.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			from := make(chan net.Addr, 1)
			s := serve(t, tc.listen, func(n int, c net.Conn) {
				if n == 1 {
					from <- c.RemoteAddr()
				}
				answers(status(200))(n, c)
			})
			cfg, target, d := httpCheck(), s.target(), deps()
			if tc.change != nil {
				tc.change(cfg, &target, &d, target.Address.IP.Port())
			}
			results, _ := watch(t, cfg, target, d)
			if r := <-results; !r.Healthy {
				t.Fatalf("got %+v", r)
			}
			if got := <-from; tc.source != "" && got.(*net.TCPAddr).IP.String() != tc.source {
				t.Errorf("came from %v, want %s", got, tc.source)
			}
		})
	}
}

// TestFlapping: thresholds, changes and numbers, over a host that answers by a script.
func TestFlapping(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, answers(status(200), status(500), status(200), status(500), status(500), status(200),
		status(200), status(404), ""))
	cfg := httpCheck()
	cfg.HealthyThreshold, cfg.UnhealthyThreshold = 2, 2
	cfg.HTTP.Retriable = []mesh.StatusRange{{Start: 500, End: 600}}
	d := deps()
	results, c := watch(t, cfg, s.target(), d)
	for i, want := range []health.Result{
		{Healthy: true, Changed: true, First: true},
		{Healthy: true, Reason: "status 500"},
		{Healthy: true},
		{Healthy: true, Reason: "status 500"},
		{Changed: true, Reason: "status 500"},
		{},
		{Healthy: true, Changed: true},
		{Changed: true, Reason: "status 404"},
		{Reason: "read: connection closed"},
	} {
		if got := <-results; got != want {
			t.Errorf("result %d: got %+v, want %+v", i, got, want)
		}
	}
	go func() {
		for range results {
		}
	}()
	c.Stop()
	// Those after the ninth all failed the same way; the last may have been cut short.
	n := d.Stats
	if got, want := n.Value(metrics.HealthCheckSuccess), int64(4); got != want {
		t.Errorf("%d successes, want %d", got, want)
	}
	if f, nf := n.Value(metrics.HealthCheckFailure), n.Value(metrics.HealthCheckNetworkFailure); f-nf != 4 || nf < 1 {
		t.Errorf("%d failures, %d of the network; want 4 more of the former", f, nf)
	}
	if n.Used(metrics.HealthCheckHealthy) {
		t.Error("the number of healthy hosts was moved: it belongs to the owner of the hosts")
	}
}

// TestFlappingTCP: the same over a host that speaks no HTTP, each check on a connection of its own.
func TestFlappingTCP(t *testing.T) {
	t.Parallel()
	script := []string{"PONG", "", "PONG", "", "NOPE", "PONG", "PONG"}
	s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
		io.ReadFull(c, make([]byte, 4))
		io.WriteString(c, script[min(n, len(script))-1])
	})
	cfg := tcpCheck("PING", "PONG")
	cfg.HealthyThreshold, cfg.UnhealthyThreshold, cfg.ReuseConnection = 2, 2, false
	results, _ := watch(t, cfg, s.target(), deps())
	for i, want := range []struct{ healthy, changed, ok bool }{
		{true, true, true}, {true, false, false}, {true, false, true}, {true, false, false}, {false, true, false},
		{false, false, true}, {true, true, true},
	} {
		got := <-results
		if got.Healthy != want.healthy || got.Changed != want.changed || (got.Reason == "") != want.ok {
			t.Errorf("result %d: got %+v, want %+v", i, got, want)
		}
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	s := serve(t, mesh.Address{}, func(_ int, c net.Conn) {
		q, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		got <- q.Method + " " + q.RequestURI + " " + q.Host + " " + q.UserAgent() + " " + q.Header.Get("x-a")
	})
	cfg := httpCheck()
	cfg.HTTP.Method, cfg.HTTP.Add = "OPTIONS", []mesh.HeaderAdd{{Name: "x-a", Literal: "v"}}
	first(t, cfg, s.target())
	if got, want := <-got, "OPTIONS /health backend Envoy/HC v"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestReuse: how many connections three checks take.
func TestReuse(t *testing.T) {
	t.Parallel()
	pong := func(_ int, c net.Conn) {
		for p := make([]byte, 4); ; {
			if _, err := io.ReadFull(c, p); err != nil {
				return
			}
			io.WriteString(c, "PONG")
		}
	}
	fresh, freshTCP := httpCheck(), tcpCheck("PING", "PONG")
	fresh.ReuseConnection, freshTCP.ReuseConnection = false, false
	for _, tc := range []struct {
		name string
		cfg  *mesh.HealthCheck
		host func(int, net.Conn)
		want int
	}{
		{"HTTP", httpCheck(), answers(status(200)), 1},
		{"HTTP, 503", httpCheck(), answers(status(503)), 1},
		{"HTTP, no reuse", fresh, answers(status(200)), 3},
		{"HTTP, the host closes", httpCheck(), answers("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"), 3},
		{"HTTP, too much", httpCheck(), answers("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"), 3},
		{"HTTP, unasked", httpCheck(), answers(status(200) + "HTTP/1.1 408 Late\r\n\r\n"), 3},
		{"TCP", tcpCheck("PING", "PONG"), pong, 1},
		{"TCP, no reuse", freshTCP, pong, 3},
		{"TCP, connects", tcpCheck(""), pong, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, mesh.Address{}, tc.host)
			results, c := watch(t, tc.cfg, s.target(), deps())
			for range 3 {
				<-results
			}
			// The fourth check may be under way.
			if got := s.connections(tc.want); got != tc.want && (tc.want == 1 || got != tc.want+1) {
				t.Errorf("%d connections, want %d", got, tc.want)
			}
			go func() {
				for range results {
				}
			}()
			c.Stop()
		})
	}
}

// TestClosedBetweenChecks: a host may close a connection that is idle, say something first, or abort it.
func TestClosedBetweenChecks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		cfg  *mesh.HealthCheck
		end  func(c *net.TCPConn)
	}{
		{"HTTP, close", httpCheck(), func(*net.TCPConn) {}},
		{"HTTP, 408", httpCheck(), func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Late\r\n\r\n") }},
		{"HTTP, reset", httpCheck(), func(c *net.TCPConn) { c.SetLinger(0) }},
		{"TCP, close", tcpCheck("PING", "200"), func(*net.TCPConn) {}},
		{"TCP, stale bytes", tcpCheck("PING", "200"), func(c *net.TCPConn) { io.WriteString(c, "200") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			answered, end, ended := make(chan bool), make(chan bool), make(chan bool)
			s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
				if n == 1 {
					c.Read(make([]byte, 1000))
					io.WriteString(c, status(200))
					close(answered)
					<-end
					tc.end(c.(*net.TCPConn))
					c.Close()
					close(ended)
					return
				}
				for p := make([]byte, 1000); ; {
					if _, err := c.Read(p); err != nil {
						return
					}
					io.WriteString(c, status(200))
				}
			})
			results := make(chan health.Result)
			c := health.Start(tc.cfg, s.target(), deps(), func(r health.Result) {
				if r.First {
					<-answered
					close(end)
					<-ended
				}
				select {
				case results <- r:
				case <-t.Context().Done():
				}
			})
			t.Cleanup(c.Stop)
			for i := range 3 {
				if r := <-results; !r.Healthy || r.Reason != "" {
					t.Errorf("result %d: %+v", i, r)
				}
			}
			if n := s.connections(2); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// TestStopInFlight stops checks whose hosts do not answer, once the request is with them.
func TestStopInFlight(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]*mesh.HealthCheck{"HTTP": httpCheck(), "TCP": tcpCheck("PING", "PONG")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Timeout = time.Hour
			asked := make(chan bool)
			closed := make(chan bool)
			s := serve(t, mesh.Address{}, func(_ int, c net.Conn) {
				c.Read(make([]byte, 1))
				close(asked)
				io.Copy(io.Discard, c)
				close(closed)
			})
			d := deps()
			c := health.Start(cfg, s.target(), d, func(r health.Result) { t.Errorf("reported %+v", r) })
			<-asked
			c.Stop()
			<-closed
			c.Stop()
			if got, want := counts(d.Stats), "attempt 1, success 0, failure 0, network_failure 0"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestNoReportAfterStop stops many busy checkers at any moment.
func TestNoReportAfterStop(t *testing.T) {
	t.Parallel()
	s := serve(t, mesh.Address{}, answers(status(200)))
	d := deps()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var mu sync.Mutex
			stopped, seen := false, make(chan bool, 1)
			c := health.Start(httpCheck(), s.target(), d, func(r health.Result) {
				mu.Lock()
				defer mu.Unlock()
				if stopped {
					t.Error("reported after Stop")
				}
				select {
				case seen <- true:
				default:
				}
			})
			for range i % 4 {
				<-seen
			}
			c.Stop()
			mu.Lock()
			defer mu.Unlock()
			stopped = true
		})
	}
	wg.Wait()
	n := d.Stats
	if a, ok := n.Value(metrics.HealthCheckAttempt), n.Value(metrics.HealthCheckSuccess); a < ok || a > ok+50 || n.Value(metrics.HealthCheckFailure) != 0 {
		t.Errorf("%s: the numbers do not add up", counts(n))
	}
}
