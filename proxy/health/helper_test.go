// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// TestMain fails if a checker's goroutine outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && leaked() {
		fmt.Fprintln(os.Stderr, "goroutines of checkers are left")
		code = 1
	}
	os.Exit(code)
}

// leaked reports whether a checker, or an engine that checks were made on, still runs. One whose last statement has run may yet have to be scheduled away.
func leaked() bool {
	buf := make([]byte, 1<<20)
	for range 1000 {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "health.(*") && !strings.Contains(stacks, "socket.(*") {
			return false
		}
		runtime.Gosched()
	}
	return true
}

// numbers returns the numbers of a cluster's checks.
func numbers() *metrics.HealthCheck {
	return metrics.NewHealthCheck(stats.NewRegistry(stats.Options{}), "backend")
}

func deps() health.Deps {
	return health.Deps{Log: zap.NewNop(), Stats: numbers(), Random: func() uint64 { return 0 }}
}

// counts puts the numbers of checks into words.
func counts(n *metrics.HealthCheck) string {
	return fmt.Sprintf("attempt %d, success %d, failure %d, network_failure %d", n.Value(metrics.HealthCheckAttempt),
		n.Value(metrics.HealthCheckSuccess), n.Value(metrics.HealthCheckFailure), n.Value(metrics.HealthCheckNetworkFailure))
}

// httpCheck is a check that is due again at once, and turns health with each result.
func httpCheck() *mesh.HealthCheck {
	return &mesh.HealthCheck{
		Timeout: 10 * time.Second, Interval: time.Millisecond, HealthyThreshold: 1, UnhealthyThreshold: 1, ReuseConnection: true,
		HTTP: &mesh.HTTPHealthCheck{Path: "/health", Method: "GET"},
	}
}

func tcpCheck(send string, receive ...string) *mesh.HealthCheck {
	cfg := httpCheck()
	cfg.HTTP, cfg.TCP = nil, &mesh.TCPHealthCheck{Send: []byte(send)}
	for _, r := range receive {
		cfg.TCP.Receive = append(cfg.TCP.Receive, []byte(r))
	}
	return cfg
}

// server is a listener on the loopback whose connections are served by a function, each with its number, from 1.
type server struct {
	net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	more  *sync.Cond
	conns []net.Conn // guarded by mu
}

// serve starts a server on a free port, or on a unix socket where address has a path.
func serve(t *testing.T, address mesh.Address, f func(n int, c net.Conn)) *server {
	t.Helper()
	where := address.Pipe
	if where == "" {
		where = "127.0.0.1:0"
	}
	l, err := net.Listen(address.Network(), where)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l}
	s.more = sync.NewCond(&s.mu)
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			n := len(s.conns)
			s.mu.Unlock()
			s.more.Broadcast()
			s.wg.Go(func() {
				defer c.Close()
				f(n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// target is the server as a check's target.
func (s *server) target() health.Target {
	a := mesh.Address{Pipe: s.Addr().String()}
	if tcp, ok := s.Addr().(*net.TCPAddr); ok {
		a = mesh.Address{IP: tcp.AddrPort()}
	}
	return health.Target{Address: a, ClusterName: "backend", Traffic: true}
}

// connections waits for a number of connections and returns how many there were.
func (s *server) connections(want int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) < want {
		s.more.Wait()
	}
	return len(s.conns)
}

// answers serves requests with raw answers, in order, over all connections; the last one goes on for ever. After an
// answer that is "" or ends in "!", without that, the connection is closed.
func answers(list ...string) func(int, net.Conn) {
	var mu sync.Mutex
	next := func() string {
		mu.Lock()
		defer mu.Unlock()
		a := list[0]
		if len(list) > 1 {
			list = list[1:]
		}
		return a
	}
	return func(_ int, c net.Conn) {
		for r := bufio.NewReader(c); ; {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			a, last := strings.CutSuffix(next(), "!")
			if _, err := io.WriteString(c, a); err != nil || last || a == "" {
				return
			}
		}
	}
}

func status(code int) string {
	return fmt.Sprintf("HTTP/1.1 %d Whatever\r\ncontent-length: 2\r\n\r\nok", code)
}

// watch starts a checker whose results come out of a channel. Each result holds the checker up until it is taken, so that
// a test can do something between two checks. The checker ends with the test.
func watch(t *testing.T, cfg *mesh.HealthCheck, target health.Target, d health.Deps) (<-chan health.Result, *health.Checker) {
	t.Helper()
	results := make(chan health.Result)
	ctx, cancel := context.WithCancel(context.Background())
	c := health.Start(cfg, target, d, func(r health.Result) {
		select {
		case results <- r:
		case <-ctx.Done():
		}
	})
	t.Cleanup(func() {
		cancel()
		c.Stop()
	})
	return results, c
}

// first returns the first result of a check.
func first(t *testing.T, cfg *mesh.HealthCheck, target health.Target) health.Result {
	t.Helper()
	results, _ := watch(t, cfg, target, deps())
	return <-results
}
