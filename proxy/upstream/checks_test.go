// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// job is a function on a worker.
type job struct {
	f    func(w *socket.Worker)
	done chan struct{}
}

// Run implements socket.Runner.
func (j *job) Run(w *socket.Worker) {
	defer close(j.done)
	j.f(w)
}

// exchange sends a request to a host and reads the answer.
func (r *rig) exchange(h *Host) {
	r.t.Helper()
	j := &job{done: make(chan struct{}), f: func(w *socket.Worker) {
		s, err := h.HTTP(mesh.HTTP11).Stream(w, h.Cluster().Resources(0), false)
		if err != nil {
			r.t.Error(err)
			return
		}
		var q codec.Request
		var a codec.Response
		q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("host")
		if err := s.Call(w, &q, nil, &a); err != nil {
			r.t.Error(err)
			s.Abort()
			return
		}
		s.Release()
	}}
	r.deps.Engine.Go(j)
	<-j.done
}

// listen returns a server that answers each request with an empty 200 and keeps its connections.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				for b := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(b); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l
}

// flapping is a server whose health a test decides.
func flapping(t testing.TB) (addr string, well *atomic.Bool) {
	t.Helper()
	well = &atomic.Bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), well
}

func checked(c *mesh.Cluster) {
	c.HealthChecks = []mesh.HealthCheck{{
		Timeout: hang, Interval: 2 * time.Millisecond, UnhealthyThreshold: 2, HealthyThreshold: 2, ReuseConnection: true,
		NoTrafficInterval: 2 * time.Millisecond, HTTP: &mesh.HTTPHealthCheck{Path: "/", Method: "GET"},
	}}
}

// TestActiveChecks: a host gets requests while its checks pass. One that discovery removed stays as long as they do.
func TestActiveChecks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr, well := flapping(t)
	c := r.cluster(config(checked), addr)
	if _, _, fail := pick(t, c); fail == nil || fail.Kind != mesh.NoHealthyHost {
		t.Fatalf("a host that was not checked yet: %v", fail)
	}
	serves := func(want bool) {
		t.Helper()
		until(t, "the checks decided", func() bool { return (attempt(t, c, 200) == addr) == want })
		// The gauge counts what passes its checks, and the notice came before the change.
		if n := r.number("health_check.healthy"); (n == 1) != want {
			t.Errorf("%d are healthy", n)
		}
	}
	well.Store(true)
	serves(true)
	well.Store(false)
	serves(false)
	well.Store(true)
	serves(true)
	r.mu.Lock()
	got := r.notices[len(r.notices)-2:]
	r.mu.Unlock()
	if got[0] != addr+" 1>2 active_check" || got[1] != addr+" 2>1 active_check" {
		t.Errorf("told %v", got)
	}
	listed := c.Hosts()[0].Endpoint()
	c.SetEndpoints(&mesh.EndpointSet{Version: "2"})
	if got := attempt(t, c, 200); got != addr {
		t.Errorf("removed while its checks pass: %s", got)
	}
	if e := c.Hosts()[0].Endpoint(); e == listed || e.Address != listed.Address {
		t.Errorf("what stays of %v holds the set that it was in", e.Address)
	}
	well.Store(false)
	until(t, "the host has gone", func() bool { return len(c.Hosts()) == 0 })
	c.Tick(0)
	if n := r.number("membership_total"); n != 0 {
		t.Errorf("%d members", n)
	}
}

// TestCheckUnejects: a check that passes lets an ejected host back at once.
func TestCheckUnejects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr, well := flapping(t)
	well.Store(true)
	c := r.cluster(config(checked, func(c *mesh.Cluster) {
		c.Outlier = &mesh.Outlier{
			Consecutive5xx: 1, Enforcing5xx: 100, Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour,
			MaxEjectionPercent: 100, HealthyUnejects: true,
		}
	}), addr)
	until(t, "the host is in service", func() bool { return attempt(t, c, 200) == addr })
	r.told()
	k, _, fail := pick(t, c)
	if fail != nil {
		t.Fatal(fail)
	}
	k.Done(&circuit.Attempt{Status: 500}, 0)
	until(t, "the host is back", func() bool { return attempt(t, c, 200) == addr })
	got := r.told()
	if len(got) != 2 || got[0] != addr+" ejected=true consecutive_5xx times=1 for=1h0m0s" || got[1] != addr+" ejected=false active_check times=1 for=0s" {
		t.Errorf("told %v", got)
	}
}

// TestHealthFailureCloses: with close_connections_on_host_health_failure, idle connections do not outlive the host's health.
func TestHealthFailureCloses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr, well := flapping(t)
	well.Store(true)
	c := r.cluster(config(checked, func(c *mesh.Cluster) { c.CloseOnHealthFailure = true }), addr)
	until(t, "the host is in service", func() bool { return attempt(t, c, 200) == addr })
	h := c.Hosts()[0]
	r.exchange(h)
	if n := h.HTTP(mesh.HTTP11).Open(); n != 1 {
		t.Fatalf("%d connections", n)
	}
	well.Store(false)
	until(t, "the connection is closed", func() bool { return h.HTTP(mesh.HTTP11).Open() == 0 })
}
