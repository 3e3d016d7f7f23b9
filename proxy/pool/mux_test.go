// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// muxBackend is net/http with HTTP/2 by prior knowledge; it answers each request with the number of its connection, from 1.
type muxBackend struct {
	srv   *http.Server
	addr  netip.AddrPort
	hold  chan struct{} // an answer waits for it where it is not nil
	conns atomic.Int64
	now   atomic.Int64 // requests in work
	peak  atomic.Int64 // the most of them
	total atomic.Int64
}

type connKey struct{}

func newMuxBackend(t testing.TB, streams int, hold chan struct{}) *muxBackend {
	t.Helper()
	b := &muxBackend{hold: hold}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().(*net.TCPAddr).AddrPort()
	b.srv = &http.Server{
		Handler:   b,
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: streams},
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, b.conns.Add(1))
		},
	}
	b.srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = b.srv.Serve(l) }()
	t.Cleanup(func() { b.srv.Close(); <-done })
	return b
}

func (b *muxBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.total.Add(1)
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for p := b.peak.Load(); n > p && !b.peak.CompareAndSwap(p, n); p = b.peak.Load() {
	}
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-r.Context().Done():
		}
	}
	_, _ = io.WriteString(w, strconv.FormatInt(r.Context().Value(connKey{}).(int64), 10))
}

func (r *rig) mux(b *muxBackend, set func(*Config)) *Mux {
	c := config()
	c.H2 = h2.Defaults()
	c.H2.Streams = 1024
	if set != nil {
		set(c)
	}
	m := NewMux(c, mesh.Address{IP: b.addr}, r.engine, r.stats, r.dials)
	r.pools = append(r.pools, m)
	return m
}

// first returns the oldest connection.
func (m *Mux) first() *muxConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[0]
}

// crowd makes n exchanges at a time and returns how many were served by each connection.
func (r *rig) crowd(m *Mux, n int) map[int]int {
	var mu sync.Mutex
	by := map[int]int{}
	var tasks []*task
	for range n {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, m, r.res, false)
			if err != nil {
				r.t.Error(err)
				return
			}
			o.stream.Release()
			mu.Lock()
			by[o.id]++
			mu.Unlock()
		}))
	}
	for _, k := range tasks {
		k.wait(r.t)
	}
	return by
}

// TestMuxShares: many requests at a time go on one connection.
func TestMuxShares(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newMuxBackend(t, 250, nil)
	m := r.mux(b, nil)
	if by := r.crowd(m, 80); by[1] != 80 {
		t.Errorf("%v, want all on one connection", by)
	}
	if n := r.stats.Value(metrics.UpstreamCxHTTP2Total); n != 1 {
		t.Errorf("%d connections were counted", n)
	}
}

// TestMuxKeepsTheServersLimit: no more streams than the server allows are open on a connection; the others get one of their
// own, as far as the limits admit, and wait in turn otherwise.
func TestMuxKeepsTheServersLimit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ connections, most int64 }{"more connections": {0, 4}, "one connection": {1, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, unlimited)
			hold := make(chan struct{})
			b := newMuxBackend(t, 3, hold)
			m := r.mux(b, func(c *Config) { c.MaxConnections = int(tc.connections) })
			first := r.start(func(w *socket.Worker) {
				o, err := ask(w, m, r.res, false)
				if err != nil {
					t.Error(err)
					return
				}
				o.stream.Release()
			})
			until(t, "the server's limit is known", func() bool { return b.now.Load() == 1 && m.first().h2.Places() == 3 })
			var rest []*task
			for range 20 {
				rest = append(rest, r.start(func(w *socket.Worker) {
					if o, err := ask(w, m, r.res, false); err != nil {
						t.Error(err)
					} else {
						o.stream.Release()
					}
				}))
			}
			until(t, "as many as may are served", func() bool { return b.now.Load() >= min(3, tc.most) })
			close(hold)
			first.wait(t)
			for _, k := range rest {
				k.wait(t)
			}
			if tc.connections > 0 && (b.conns.Load() != tc.connections || b.peak.Load() > tc.most) {
				t.Errorf("%d connections, %d streams at a time", b.conns.Load(), b.peak.Load())
			}
			if b.total.Load() != 21 {
				t.Errorf("%d requests were served", b.total.Load())
			}
		})
	}
}

// TestMuxMaxRequests: a connection takes so many requests and no more, also where they come at once, and none fails.
func TestMuxMaxRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newMuxBackend(t, 250, nil)
	m := r.mux(b, func(c *Config) { c.MaxRequests = 4 })
	served := map[int]int{}
	for range 5 {
		for id, n := range r.crowd(m, 7) {
			served[id] += n
		}
	}
	total := 0
	for id, n := range served {
		if total += n; n > 4 {
			t.Errorf("connection %d served %d", id, n)
		}
	}
	if total != 35 {
		t.Errorf("%d were served", total)
	}
	if n := r.stats.Value(metrics.UpstreamCxMaxRequests); n < 8 {
		t.Errorf("%d ended for that", n)
	}
}

// TestMuxGoAway: a server that shuts down ends what it has, and takes no more; nothing fails that goes elsewhere.
func TestMuxGoAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	hold := make(chan struct{})
	b := newMuxBackend(t, 250, hold)
	m := r.mux(b, nil)
	var tasks []*task
	for range 10 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, m, r.res, false)
			if err != nil {
				t.Error(err)
				return
			}
			o.stream.Release()
		}))
	}
	until(t, "all are in work", func() bool { return b.now.Load() == 10 })
	down := make(chan error, 1)
	go func() { down <- b.srv.Shutdown(context.Background()) }()
	until(t, "the connection drains", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.conns) == 0 })
	r.on(func(w *socket.Worker) {
		if _, err := m.Stream(w, r.res, false); failure(err) != mesh.ConnectFailure {
			t.Errorf("a new request: %v", err)
		}
	})
	close(hold)
	for _, k := range tasks {
		k.wait(t)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	until(t, "the connection is closed", func() bool { return m.Open() == 0 })
}

// TestMuxIdleTimeout: a connection that nobody uses ends, one that is in use does not.
func TestMuxIdleTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	hold := make(chan struct{})
	b := newMuxBackend(t, 250, hold)
	m := r.mux(b, func(c *Config) { c.IdleTimeout = 50 * time.Millisecond })
	k := r.start(func(w *socket.Worker) {
		o, err := ask(w, m, r.res, false)
		if err != nil {
			t.Error(err)
			return
		}
		o.stream.Release()
	})
	until(t, "it is in work", func() bool { return b.now.Load() == 1 })
	time.Sleep(200 * time.Millisecond) // several idle timeouts
	if n := m.Open(); n != 1 {
		t.Errorf("%d connections while one is in use", n)
	}
	close(hold)
	k.wait(t)
	until(t, "the idle connection ends", func() bool { return m.Open() == 0 })
	if n := r.stats.Value(metrics.UpstreamCxIdleTimeout); n != 1 {
		t.Errorf("%d idle timeouts", n)
	}
}

// TestMuxEnd: the owner of the dials waits for the connections, too.
func TestMuxEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	m := r.mux(newMuxBackend(t, 250, nil), nil)
	r.get(m, false)
	m.Drain()
	r.dials.Close()
	if n := m.Open(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// TestMuxMaxDuration: an old connection takes no more, and ends with its last stream.
func TestMuxMaxDuration(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newMuxBackend(t, 250, nil)
	m := r.mux(b, func(c *Config) { c.MaxDuration = 50 * time.Millisecond })
	if id := r.get(m, false); id != 1 {
		t.Errorf("connection %d", id)
	}
	until(t, "the old connection ends", func() bool { return m.Open() == 0 })
	if id := r.get(m, false); id != 2 {
		t.Errorf("connection %d after that", id)
	}
	if n := r.stats.Value(metrics.UpstreamCxMaxDurationReached); n < 1 {
		t.Errorf("%d ended for that", n)
	}
}

// TestMuxDrain: a drained pool serves who comes still, keeps nothing, and lets those in work end.
func TestMuxDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	hold := make(chan struct{})
	b := newMuxBackend(t, 250, hold)
	m := r.mux(b, nil)
	var tasks []*task
	start := func() {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, m, r.res, false)
			if err != nil {
				t.Error(err)
				return
			}
			o.stream.Release()
		}))
	}
	for range 5 {
		start()
	}
	until(t, "all are in work", func() bool { return b.now.Load() == 5 })
	m.Drain()
	start()
	until(t, "one more is in work", func() bool { return b.now.Load() == 6 })
	close(hold)
	for _, k := range tasks {
		k.wait(t)
	}
	until(t, "nothing is kept", func() bool { return m.Open() == 0 })
}

// TestMuxConnectFailure: all who wait are told, and nobody is left behind.
func TestMuxConnectFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	m := r.mux(&muxBackend{addr: dead(t).IP}, nil)
	var tasks []*task
	for range 30 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			if _, err := m.Stream(w, r.res, false); failure(err) != mesh.ConnectFailure {
				t.Errorf("%v", err)
			}
		}))
	}
	for _, k := range tasks {
		k.wait(t)
	}
}

// TestMuxRequestLimit: max_requests is exact, and what it refuses costs no place on the connection.
func TestMuxRequestLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(1024, 1024, 5))
	hold := make(chan struct{})
	b := newMuxBackend(t, 250, hold)
	m := r.mux(b, nil)
	var refused atomic.Int64
	var tasks []*task
	for range 40 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, m, r.res, false)
			switch {
			case err == nil:
				o.stream.Release()
			case failure(err) == mesh.Overflow:
				refused.Add(1)
			default:
				t.Error(err)
			}
		}))
	}
	until(t, "five are in work, the others refused", func() bool { return b.now.Load() == 5 && refused.Load() == 35 })
	if n := m.first().h2.Streams(); n != 5 {
		t.Errorf("%d places are taken", n)
	}
	close(hold)
	for _, k := range tasks {
		k.wait(t)
	}
	if b.peak.Load() != 5 || r.res.InUse(circuit.Requests) != 0 {
		t.Errorf("%d at a time, %d left", b.peak.Load(), r.res.InUse(circuit.Requests))
	}
}

// TestMuxCancelledWaiter: who is interrupted while it waits takes nothing with it.
func TestMuxCancelledWaiter(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	hold := make(chan struct{})
	b := newMuxBackend(t, 1, hold)
	m := r.mux(b, func(c *Config) { c.MaxConnections, c.H2.Streams = 1, 1 })
	get := func(w *socket.Worker) {
		if o, err := ask(w, m, r.res, false); err != nil {
			t.Error(err)
		} else {
			o.stream.Release()
		}
	}
	first := r.start(get)
	until(t, "one is in work", func() bool { return b.now.Load() == 1 })
	second := r.start(func(w *socket.Worker) {
		if _, err := m.Stream(w, r.res, false); err != errCancelled {
			t.Errorf("%v", err)
		}
	})
	until(t, "one waits", func() bool { return m.queue() == 1 })
	third := r.start(get)
	until(t, "two wait", func() bool { return m.queue() == 2 })
	second.cancel()
	second.wait(t)
	close(hold)
	first.wait(t)
	third.wait(t)
}

// TestMuxChurn: requests, aborts, interrupts and connections that end all at once leave nothing behind (rig.end).
func TestMuxChurn(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newMuxBackend(t, 7, nil)
	m := r.mux(b, func(c *Config) { c.MaxRequests, c.MaxConnections = 20, 6 })
	var tasks []*task
	for i := range 32 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			for n := range 60 {
				s, err := m.Stream(w, r.res, false)
				if err != nil {
					continue // interrupted
				}
				if (i+n)%5 == 0 {
					s.Failed(mesh.RequestTimeout)
					s.Abort()
					continue
				}
				s.Abort()
				if o, err := ask(w, m, r.res, false); err == nil {
					o.stream.Release()
				}
			}
		}))
	}
	for i := 0; i < 8; i++ {
		tasks[i*4].cancel()
	}
	for _, k := range tasks {
		k.wait(t)
	}
}
