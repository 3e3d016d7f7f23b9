// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// eventually waits for what happens without telling the test.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(hang); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// circuits returns the transitions that were told, in their order.
func (r *recorder) circuits() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notices {
		if n.Circuit != nil {
			out = append(out, fmt.Sprintf("%s %s>%s %s", n.Cluster, n.Circuit.From, n.Circuit.To, n.Circuit.Reason))
		}
	}
	return out
}

// failing is an upstream that a test can make ill, in one of the ways that there are, and whose next good answer it can
// hold.
type failing struct {
	how            func(w http.ResponseWriter)
	ill, hold      atomic.Bool
	seen           atomic.Int64  // requests
	probe, release chan struct{} // an answer is held; it may go
}

// ServeHTTP implements http.Handler.
func (f *failing) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	f.seen.Add(1)
	if f.ill.Load() {
		f.how(w)
		return
	}
	if f.hold.CompareAndSwap(true, false) {
		close(f.probe)
		<-f.release
	}
	io.WriteString(w, "from upstream")
}

// TestBreakerOpensAndCloses: an upstream turns bad, in each of the ways that an upstream can; the circuit opens, and the
// fallback answers without the upstream's seeing a request; when its time is over one probe goes out while all others
// still get the fallback; the probe succeeds, and the circuit closes.
func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	ways := map[string]func(w http.ResponseWriter){
		"answers 500": func(w http.ResponseWriter) { w.WriteHeader(500) },
		"closes": func(w http.ResponseWriter) {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Close()
		},
		"resets": func(w http.ResponseWriter) {
			c, _, _ := w.(http.Hijacker).Hijack()
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
		"talks nonsense": func(w http.ResponseWriter) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "no such protocol\r\n\r\n")
			c.Close()
		},
	}
	const instead = "from elsewhere"
	for name, how := range ways {
		for fallback, fb := range map[string]mesh.Fallback{
			"static":  {Response: &mesh.DirectResponse{Status: 200, Body: []byte(instead)}},
			"cluster": {Cluster: "other"},
		} {
			t.Run(name+", "+fallback, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				f := &failing{how: how, probe: make(chan struct{}), release: make(chan struct{})}
				c := cluster("c", backend(t, f.ServeHTTP))
				c.Breaker = &mesh.Breaker{ConsecutiveFailures: 3, OpenFor: 200 * time.Millisecond, Probes: 1, ProbeSuccesses: 1}
				other := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, instead) })
				rt := prefix("/", to("c"))
				fb.On = mesh.FallbackOnOpenCircuit
				rt.Fallback = &fb
				r.serve(manager(), []*mesh.Route{rt}, c, cluster("other", other))
				opens(t, r, f, instead)
				closes(t, r, f, instead)
				got := r.rec.circuits()
				if got[0] != "c closed>open consecutive_failures" || !slices.Equal(got[len(got)-2:], []string{"c open>half_open open_expired", "c half_open>closed probes_succeeded"}) {
					t.Errorf("told %s", strings.Join(got, ", "))
				}
			})
		}
	}
}

// opens makes the upstream ill until the circuit opens, and checks that the fallback answers then.
func opens(t *testing.T, r *rig, f *failing, instead string) {
	if _, body, _ := r.get("/"); body != "from upstream" {
		t.Fatal(body)
	}
	f.ill.Store(true)
	eventually(t, "the circuit is open", func() bool {
		r.get("/")
		return len(r.rec.circuits()) == 1
	})
	if status, body, _ := r.get("/"); status != 200 || body != instead {
		t.Errorf("while open: %d %q", status, body)
	}
	eventually(t, "the fallback is told of", func() bool {
		o := r.rec.wait(t, 1)
		last := o[len(o)-1]
		return last.Fallback && last.Circuit != mesh.CircuitClosed && last.Status == 200
	})
}

// closes makes the upstream well again, and checks that one request finds that out while all others get the fallback.
func closes(t *testing.T, r *rig, f *failing, instead string) {
	f.hold.Store(true)
	f.ill.Store(false)
	done := make(chan string, 1)
	go func() { // asks until it is the probe
		for {
			if _, body, _ := r.get("/"); body != instead {
				done <- body
				return
			}
		}
	}()
	select {
	case <-f.probe:
	case <-time.After(hang):
		t.Fatal("there is no probe")
	}
	seen := f.seen.Load()
	for range 20 {
		if _, body, _ := r.get("/"); body != instead {
			t.Errorf("beside the probe: %q", body)
		}
	}
	if f.seen.Load() != seen {
		t.Error("the upstream saw more than the probe")
	}
	close(f.release)
	if body := <-done; body != "from upstream" {
		t.Errorf("the probe's answer is %q", body)
	}
	if _, body, _ := r.get("/"); body != "from upstream" {
		t.Errorf("when closed again: %q", body)
	}
}

// TestBreakerOpensOnSlowness: an upstream that answers well, but late, opens the circuit.
func TestBreakerOpensOnSlowness(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	up := backend(t, func(w http.ResponseWriter, q *http.Request) { time.Sleep(20 * time.Millisecond) })
	c := cluster("c", up)
	c.Breaker = &mesh.Breaker{SlowRate: 0.5, SlowAfter: 10 * time.Millisecond, MinVolume: 5, OpenFor: time.Hour}
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, c)
	for i := range 6 {
		status, _, _ := r.get("/")
		if want := map[bool]int{true: 200, false: 503}[i < 5]; status != want {
			t.Errorf("request %d: %d", i, status)
		}
	}
	if got := r.rec.circuits(); !slices.Equal(got, []string{"c closed>open slow_rate"}) {
		t.Errorf("told %v", got)
	}
}

// counted is an upstream that counts what it has at a time.
type counted struct {
	net.Listener
	wg                  sync.WaitGroup
	open                sync.Map // net.Conn
	closed              atomic.Bool
	mu                  sync.Mutex
	conns, mostConns    int // guarded by mu
	requests, mostAtOne int // guarded by mu
}

// count starts an upstream whose answers serve makes: a status, when it returns.
func count(t testing.TB, serve func(q *http.Request) int) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &counted{Listener: l}
	u.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.open.Store(c, true)
			if u.closed.Load() {
				c.Close()
			}
			u.wg.Go(func() { u.serve(c, serve) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		u.closed.Store(true)
		u.open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		u.wg.Wait()
	})
	return u
}

func (u *counted) change(n *int, by int, most *int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	*n += by
	*most = max(*most, *n)
}

// most returns what there was at a time.
func (u *counted) most() (conns, requests int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mostConns, u.mostAtOne
}

func (u *counted) serve(c net.Conn, serve func(q *http.Request) int) {
	defer u.open.Delete(c)
	defer c.Close()
	u.change(&u.conns, 1, &u.mostConns)
	defer u.change(&u.conns, -1, &u.mostConns)
	for b := bufio.NewReader(c); ; {
		q, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		u.change(&u.requests, 1, &u.mostAtOne)
		status := serve(q)
		u.change(&u.requests, -1, &u.mostAtOne)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n", status); err != nil {
			return
		}
	}
}

// TestLimitsAreExact: whatever the limit, as many as it says get in when many come at once, and not one more; the rest is
// refused with what tells a client so. What is in use comes back to 0.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	const clients = 40
	for _, tc := range []struct {
		name   string
		limits mesh.Limits
		// served are the clients that get an answer, conns and requests what the upstream sees at most at a time. As in
		// Envoy, a request that is one too many may have brought a connection about.
		served, conns, requests int
	}{
		{"max_requests", mesh.Limits{Connections: 1024, Pending: 1024, Requests: 7, Retries: 3}, 7, clients, 7},
		{"max_requests of one", mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1, Retries: 3}, 1, clients, 1},
		{"max_connections", mesh.Limits{Connections: 5, Pending: 1024, Requests: 1024, Retries: 3}, clients, 5, 5},
		{"max_pending_requests", mesh.Limits{Connections: 1, Pending: 4, Requests: 1024, Retries: 3}, 5, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			release := make(chan struct{})
			u := count(t, func(*http.Request) int { <-release; return 200 })
			c := cluster("c", u.Addr().String())
			c.Limits[0] = tc.limits
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, c)
			var wg sync.WaitGroup
			var served, refused atomic.Int64
			ask := func() {
				resp, err := client.Get("http://" + r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				switch {
				case resp.StatusCode == 200:
					served.Add(1)
				case resp.StatusCode == 503 && resp.Header.Get("x-envoy-overloaded") == "true":
					refused.Add(1)
				default:
					t.Errorf("status %d", resp.StatusCode)
				}
			}
			wg.Go(ask)
			eventually(t, "the first is served", func() bool { u.mu.Lock(); defer u.mu.Unlock(); return u.requests == 1 })
			for range clients - 1 {
				wg.Go(ask)
			}
			eventually(t, "all others are refused or wait", func() bool {
				u.mu.Lock()
				defer u.mu.Unlock()
				waiting := r.Clusters()[0].Stats.Value(metrics.UpstreamRqPendingActive)
				return u.requests == tc.requests && refused.Load() == int64(clients-tc.served) && waiting == int64(tc.served-tc.requests)
			})
			close(release)
			wg.Wait()
			if conns, requests := u.most(); served.Load() != int64(tc.served) || conns > tc.conns || requests != tc.requests {
				t.Errorf("%d were served; the upstream saw %d connections and %d requests at a time", served.Load(), conns, requests)
			}
			for _, o := range r.rec.wait(t, clients) {
				if (o.Status == 503) != (o.Flags&mesh.FlagUO != 0) {
					t.Errorf("%d has the flags %s", o.Status, o.Flags)
				}
			}
			res := r.Clusters()[0].Resources(0)
			for _, k := range []circuit.Resource{circuit.Pending, circuit.Requests, circuit.Retries} {
				if n := res.InUse(k); n != 0 {
					t.Errorf("%d of %s are in use at the end", n, k)
				}
			}
		})
	}
}

// TestRetryLimitIsExact: of many requests that are to be sent again at once, as many are as max_retries says.
func TestRetryLimitIsExact(t *testing.T) {
	t.Parallel()
	const clients, limit = 20, 3
	r := newRig(t)
	var first sync.Map
	var arrived, again atomic.Int64
	all, release := make(chan struct{}), make(chan struct{})
	u := count(t, func(q *http.Request) int {
		if _, seen := first.LoadOrStore(q.URL.Path, true); seen {
			again.Add(1)
			<-release
			return 200
		}
		if arrived.Add(1) == clients {
			close(all)
		}
		<-all
		return 503
	})
	c := cluster("c", u.Addr().String())
	c.Limits[0].Retries = limit
	a := to("c")
	a.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 1, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
	r.serve(manager(), []*mesh.Route{prefix("/", a)}, c)
	var wg sync.WaitGroup
	var ok, refused atomic.Int64
	for i := range clients {
		wg.Go(func() {
			resp, err := client.Get(fmt.Sprintf("http://%s/%d", r.addr, i))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode == 200 {
				ok.Add(1)
			} else {
				refused.Add(1)
			}
		})
	}
	eventually(t, "all others are refused", func() bool { return refused.Load() == clients-limit && again.Load() == limit })
	close(release)
	wg.Wait()
	if ok.Load() != limit || again.Load() != limit {
		t.Errorf("%d were answered after %d retries", ok.Load(), again.Load())
	}
	s := r.Clusters()[0]
	if n := s.Stats.Value(metrics.UpstreamRqRetryOverflow); n != clients-limit {
		t.Errorf("%d retries were refused by the count", n)
	}
	if n := s.Resources(0).InUse(circuit.Retries); n != 0 {
		t.Errorf("%d retries are in use at the end", n)
	}
}
