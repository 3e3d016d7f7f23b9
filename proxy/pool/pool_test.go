// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestNewestFirst: of the idle connections the one that was used last serves next, so that the others can grow old.
func TestNewestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	p := r.pool(config(), newBackend(t, nil).address())
	r.on(func(w *socket.Worker) {
		var streams []open
		take := func(n int) (ids []int) {
			for range n {
				o, err := ask(w, p, r.res, false)
				if err != nil {
					t.Error(err)
					return nil
				}
				streams = append(streams, o)
				ids = append(ids, o.id)
			}
			return ids
		}
		if got := take(3); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("connections %v", got)
			return
		}
		for _, i := range []int{0, 2, 1} {
			streams[i].stream.Release()
		}
		if got := take(4); !slices.Equal(got, []int{2, 3, 1, 4}) {
			t.Errorf("after 1, 3 and 2 were given back: %v", got)
		}
		for _, o := range streams[3:] {
			o.stream.Release()
		}
	})
	if n := p.Open(); n != 4 {
		t.Errorf("%d connections", n)
	}
}

// TestDeadIsNotUsed: an idle connection that died is not handed out, however it died.
func TestDeadIsNotUsed(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(c net.Conn){
		"closed":        func(c net.Conn) { c.Close() },
		"half closed":   func(c net.Conn) { c.(*net.TCPConn).CloseWrite() },
		"reset":         func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() },
		"unasked bytes": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, unlimited)
			b := newBackend(t, nil)
			p := r.pool(config(), b.address())
			if id := r.get(p, false); id != 1 {
				t.Fatalf("connection %d", id)
			}
			p.mu.Lock()
			idle := p.idle.newest
			p.mu.Unlock()
			kill(b.conn(1))
			until(t, "the pool can know of it", idle.Peer.Stale)
			if id := r.get(p, false); id != 2 {
				t.Errorf("the next request was served by connection %d", id)
			}
			until(t, "the dead one is closed, and counted", func() bool {
				return p.Open() == 1 && r.stats.Value(metrics.UpstreamCxDestroyRemote) == 1
			})
		})
	}
}

// TestDeadLeavesAtOnce: a connection that the upstream closes while it is idle does not wait for the next request to leave.
func TestDeadLeavesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newBackend(t, nil)
	p := r.pool(config(), b.address())
	r.get(p, false)
	b.conn(1).Close()
	until(t, "the pool is empty", func() bool { return p.Open() == 0 })
	if n := r.res.InUse(circuit.Connections); n != 0 {
		t.Errorf("%d connections count against the limit", n)
	}
}

func TestMaxRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	c := config()
	c.MaxRequests = 3
	p := r.pool(c, newBackend(t, nil).address())
	var got []int
	for range 7 {
		got = append(got, r.get(p, false))
	}
	if !slices.Equal(got, []int{1, 1, 1, 2, 2, 2, 3}) {
		t.Errorf("connections %v", got)
	}
	if n := r.stats.Value(metrics.UpstreamCxMaxRequests); n != 2 {
		t.Errorf("%d ended for it", n)
	}
}

func TestMaxDuration(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	c := config()
	c.MaxDuration = time.Hour
	p := r.pool(c, newBackend(t, nil).address())
	first, second := r.get(p, false), r.get(p, false)
	p.mu.Lock()
	p.idle.newest.born -= int64(time.Hour) // it is old now, and idle
	p.mu.Unlock()
	third := r.get(p, false)
	if first != 1 || second != 1 || third != 2 {
		t.Errorf("connections %d, %d, and when it was old %d", first, second, third)
	}
	r.on(func(w *socket.Worker) {
		o, err := ask(w, p, r.res, false)
		if err != nil {
			t.Error(err)
			return
		}
		o.conn.born -= int64(time.Hour) // it is old now, and busy
		o.stream.Release()
	})
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections", n)
	}
	if n := r.stats.Value(metrics.UpstreamCxMaxDurationReached); n != 2 {
		t.Errorf("%d ended for it", n)
	}
}

// TestIdleTimeout: the sweeper closes what is idle for long enough, and only that.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	p := r.pool(config(), newBackend(t, nil).address())
	r.on(func(w *socket.Worker) {
		var streams []open
		for range 3 {
			o, err := ask(w, p, r.res, false)
			if err != nil {
				t.Error(err)
				return
			}
			streams = append(streams, o)
		}
		for _, o := range streams {
			o.stream.Release()
		}
	})
	p.mu.Lock()
	p.idle.oldest.used -= int64(time.Hour)
	p.sweeper.Stop() // it comes now instead
	p.mu.Unlock()
	p.sweep()
	if n, timeouts := p.Open(), r.stats.Value(metrics.UpstreamCxIdleTimeout); n != 2 || timeouts != 1 {
		t.Errorf("%d are left, %d timed out", n, timeouts)
	}
	if p.sweeper == nil {
		t.Error("nobody looks for the others")
	}
}

func TestIdleTimeoutComes(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	c := config()
	c.IdleTimeout = 20 * time.Millisecond
	p := r.pool(c, newBackend(t, nil).address())
	r.get(p, false)
	until(t, "the connection timed out", func() bool { return r.stats.Value(metrics.UpstreamCxIdleTimeout) == 1 && p.Open() == 0 })
}

// slowGuard takes its time over the first connection that ends.
type slowGuard struct {
	once           sync.Once
	reached, until chan struct{}
	told           atomic.Int64
}

func (*slowGuard) Dialed(_, _ netip.AddrPort) bool { return true }
func (g *slowGuard) Gone(_, _ netip.AddrPort) {
	g.once.Do(func() {
		close(g.reached)
		<-g.until
	})
	g.told.Add(1)
}

// The connections that are closed because they were idle for too long are waited for at the end, like dials.
func TestIdleTimeoutIsJoined(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	g := &slowGuard{reached: make(chan struct{}), until: make(chan struct{})}
	c := config()
	c.Guard, c.IdleTimeout = g, time.Millisecond
	p := r.pool(c, newBackend(t, nil).address())
	r.get(p, false)
	<-g.reached
	p.Drain()
	time.AfterFunc(50*time.Millisecond, func() { close(g.until) }) // while Close waits, if it does
	r.dials.Close()
	if g.told.Load() == 0 {
		t.Error("the dials' owner has not waited for a connection that is being closed")
	}
}

func TestConnectFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		address func(testing.TB) mesh.Address
		kind    mesh.FailureKind
		detail  string
		timeout int64
	}{
		{"refused", dead, mesh.ConnectFailure, "connect: connection refused", 0},
		{"timeout", deaf, mesh.ConnectTimeout, "connection timeout", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, unlimited)
			c := config()
			c.Dialer.Timeout = 50 * time.Millisecond
			p := r.pool(c, tc.address(t))
			r.on(func(w *socket.Worker) {
				_, err := ask(w, p, r.res, false)
				var f *mesh.Failure
				if !errors.As(err, &f) || f.Kind != tc.kind || f.Side != mesh.SideUpstream || f.Retry != mesh.RetryAlways || f.Detail != tc.detail {
					t.Errorf("%+v", err)
				}
			})
			if fails, timeouts := r.stats.Value(metrics.UpstreamCxConnectFail), r.stats.Value(metrics.UpstreamCxConnectTimeout); fails != 1 || timeouts != tc.timeout {
				t.Errorf("%d failed, %d timed out", fails, timeouts)
			}
			if all, failed := p.Tried(); all != 1 || failed != 1 {
				t.Errorf("%d tried, %d failed", all, failed)
			}
		})
	}
}

// TestConnectFailureTellsAll: where there is one place for a connection and it cannot be made, all who wait are told.
func TestConnectFailureTellsAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(1, 1024, 1024))
	c := config()
	c.Dialer.Timeout = 100 * time.Millisecond
	p := r.pool(c, deaf(t))
	var tasks []*task
	var told atomic.Int64
	for range 20 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			if _, err := ask(w, p, r.res, false); failure(err) == mesh.ConnectTimeout {
				told.Add(1)
			}
		}))
	}
	for _, k := range tasks {
		k.wait(t)
	}
	if told.Load() != 20 {
		t.Errorf("%d of 20 were told", told.Load())
	}
}

// TestLimitsAreExact: with room for two connections and three who wait, of 20 that come on top exactly three wait, in the
// order of their coming, and the upstream never sees a third connection.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(2, 3, 1024))
	release := make(chan struct{})
	b := newBackend(t, func(int, net.Conn) { <-release })
	p := r.pool(config(), b.address())
	var mu sync.Mutex
	var order []int
	get := func(i int) func(w *socket.Worker) {
		return func(w *socket.Worker) {
			o, err := ask(w, p, r.res, false)
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			o.stream.Release()
		}
	}
	var tasks []*task
	for i := range 2 {
		tasks = append(tasks, r.start(get(i)))
	}
	until(t, "two are served", func() bool { n, _ := b.seen(); return n == 2 })
	for i := 2; i < 5; i++ {
		tasks = append(tasks, r.start(get(i)))
		until(t, "it waits", func() bool { return r.res.InUse(circuit.Pending) == uint64(i-1) })
	}
	var refused atomic.Int64
	var late []*task
	for range 15 {
		late = append(late, r.start(func(w *socket.Worker) {
			if _, err := ask(w, p, r.res, false); failure(err) == mesh.Overflow {
				refused.Add(1)
			} else {
				t.Errorf("one too many: %v", err)
			}
		}))
	}
	for _, k := range late {
		k.wait(t)
	}
	close(release)
	for _, k := range tasks {
		k.wait(t)
	}
	if refused.Load() != 15 || b.peak != 2 {
		t.Errorf("%d refused, %d connections at a time", refused.Load(), b.peak)
	}
	if n := r.stats.Value(metrics.UpstreamCxOverflow); n == 0 {
		t.Error("nobody counted that the limit of connections was met")
	}
}

// TestQueueIsFair: with one connection, those who wait are served in the order in which they came.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(1, 1024, 1024))
	release := make(chan struct{})
	b := newBackend(t, func(int, net.Conn) { <-release })
	p := r.pool(config(), b.address())
	order := make(chan int, 20)
	var tasks []*task
	for i := range 20 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, p, r.res, false)
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			o.stream.Release()
		}))
		if i == 0 {
			until(t, "the first is served", func() bool { n, _ := b.seen(); return n == 1 })
		} else {
			until(t, "it waits", func() bool { return p.queue() == i })
		}
	}
	close(release)
	for i := range 20 {
		if got := <-order; got != i {
			t.Errorf("number %d was served in place of %d", got, i)
		}
	}
	for _, k := range tasks {
		k.wait(t)
	}
}

// TestRequestLimitIsExact: the upstream sees as many requests at a time as the limit admits, and never one more.
func TestRequestLimitIsExact(t *testing.T) {
	t.Parallel()
	const limit, clients = 5, 40
	r := newRig(t, limits(1024, 1024, limit))
	in, release := make(chan struct{}, clients), make(chan struct{})
	b := newBackend(t, func(int, net.Conn) { in <- struct{}{}; <-release })
	p := r.pool(config(), b.address())
	var ok, refused atomic.Int64
	var tasks []*task
	for range clients {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			o, err := ask(w, p, r.res, false)
			switch {
			case err == nil:
				ok.Add(1)
				o.stream.Release()
			case failure(err) == mesh.Overflow:
				refused.Add(1)
			default:
				t.Error(err)
			}
		}))
	}
	for range limit {
		<-in
	}
	until(t, "all others are refused", func() bool { return refused.Load() == clients-limit })
	close(release)
	for _, k := range tasks {
		k.wait(t)
	}
	if ok.Load() != limit || b.mostAtOne != limit {
		t.Errorf("%d served, %d at a time", ok.Load(), b.mostAtOne)
	}
}

func TestCancelledWaiter(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(1, 1024, 1024))
	release := make(chan struct{})
	b := newBackend(t, func(int, net.Conn) { <-release })
	p := r.pool(config(), b.address())
	first := r.start(func(w *socket.Worker) {
		if o, err := ask(w, p, r.res, false); err != nil {
			t.Error(err)
		} else {
			o.stream.Release()
		}
	})
	until(t, "the first is served", func() bool { n, _ := b.seen(); return n == 1 })
	second := r.start(func(w *socket.Worker) {
		if _, err := ask(w, p, r.res, false); err != errCancelled {
			t.Errorf("got %v", err)
		}
	})
	until(t, "the second waits", func() bool { return r.res.InUse(circuit.Pending) == 1 })
	second.cancel()
	second.wait(t)
	p.mu.Lock()
	if len(p.waiting) != 0 {
		t.Error("it still stands in the queue")
	}
	p.mu.Unlock()
	close(release)
	first.wait(t)
	if n := r.stats.Value(metrics.UpstreamRqCancelled); n != 1 || p.Open() != 1 {
		t.Errorf("%d cancelled, %d open", n, p.Open())
	}
}

// TestInterruptBeatsNews: who is to stop is told that, also where a connection or a failure comes for it at the same time:
// the reason to stop is told only once. A connection goes back to the pool then.
func TestInterruptBeatsNews(t *testing.T) {
	t.Parallel()
	for _, news := range []string{"a connection", "a failure"} {
		t.Run(news, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, limits(1, 1024, 1024))
			release := make(chan struct{})
			b := newBackend(t, func(int, net.Conn) { <-release })
			p := r.pool(config(), b.address())
			var held open
			first := r.start(func(w *socket.Worker) {
				var err error
				if held, err = ask(w, p, r.res, false); err != nil {
					t.Error(err)
				}
			})
			until(t, "the first is served", func() bool { n, _ := b.seen(); return n == 1 })
			second := r.start(func(w *socket.Worker) {
				if _, err := ask(w, p, r.res, false); err != errCancelled {
					t.Errorf("got %v", err)
				}
			})
			until(t, "the second waits", func() bool { return r.res.InUse(circuit.Pending) == 1 })
			close(release)
			first.wait(t)
			if news == "a connection" {
				second.stop.Store(true)
				second.worker.Load().Interrupt() // its mark is there before it can wake up for the connection
				held.stream.Release()
			} else {
				p.mu.Lock()
				second.stop.Store(true)
				second.worker.Load().Interrupt()
				p.fail(0, &mesh.Failure{Kind: mesh.ConnectFailure})
				p.mu.Unlock()
				defer held.stream.Release()
			}
			second.wait(t)
		})
	}
}

// TestDrainWhileUsed: a host that leaves its cluster serves who has it, and keeps nothing.
func TestDrainWhileUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	release := make(chan struct{})
	var wait atomic.Bool
	b := newBackend(t, func(int, net.Conn) {
		if wait.Load() {
			<-release
		}
	})
	p := r.pool(config(), b.address())
	r.on(func(w *socket.Worker) { // two idle connections
		one, err1 := ask(w, p, r.res, false)
		two, err2 := ask(w, p, r.res, false)
		if err1 != nil || err2 != nil {
			t.Error(err1, err2)
			return
		}
		one.stream.Release()
		two.stream.Release()
	})
	wait.Store(true)
	k := r.start(func(w *socket.Worker) {
		o, err := ask(w, p, r.res, false)
		if err != nil {
			t.Error(err)
			return
		}
		o.stream.Release()
	})
	until(t, "a request is being served", func() bool { n, _ := b.seen(); return n == 1 })
	p.Drain()
	if n := p.Open(); n != 1 {
		t.Errorf("%d connections, want only the busy one", n)
	}
	wait.Store(false)
	close(release)
	k.wait(t)
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
	if id := r.get(p, false); id != 3 {
		t.Errorf("a late request was served by connection %d", id)
	}
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// TestCloseJoins: the end does not wait for a dial that hangs, and whoever waits for it is told.
func TestCloseJoins(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	p := r.pool(config(), deaf(t))
	k := r.start(func(w *socket.Worker) {
		if _, err := ask(w, p, r.res, false); failure(err) != mesh.ConnectFailure {
			t.Errorf("got %v", err)
		}
	})
	until(t, "it dials", func() bool { return r.stats.Value(metrics.UpstreamCxActive) == 1 })
	r.dials.Close()
	k.wait(t)
}

// TestFresh: who asks for a connection that has not served before gets one, also where there is no room for another: an
// idle one gives way.
func TestFresh(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint32{1024, 1} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, limits(limit, 1024, 1024))
			p := r.pool(config(), newBackend(t, nil).address())
			if one, two := r.get(p, false), r.get(p, true); one != 1 || two != 2 {
				t.Errorf("connections %d and %d", one, two)
			}
			if n := p.Open(); n != int(min(limit, 2)) {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestFirstConnectionIsForced: other hosts use up the cluster's connections; a host without any gets one nevertheless,
// since nothing would ever come free there (as Envoy does).
func TestFirstConnectionIsForced(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(1, 1024, 1024))
	a, b := r.pool(config(), newBackend(t, nil).address()), r.pool(config(), newBackend(t, nil).address())
	r.get(a, false)
	r.get(b, false)
	if n := r.res.InUse(circuit.Connections); n != 2 || a.Open() != 1 || b.Open() != 1 {
		t.Errorf("%d in use, %d and %d open", n, a.Open(), b.Open())
	}
}

func TestConnectionsPerHost(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	release := make(chan struct{})
	b := newBackend(t, func(int, net.Conn) { <-release })
	c := config()
	c.MaxConnections = 3
	p := r.pool(c, b.address())
	var tasks []*task
	for range 12 {
		tasks = append(tasks, r.start(func(w *socket.Worker) {
			if o, err := ask(w, p, r.res, false); err != nil {
				t.Error(err)
			} else {
				o.stream.Release()
			}
		}))
	}
	until(t, "three are served", func() bool { n, _ := b.seen(); return n == 3 })
	until(t, "nine wait", func() bool { return r.res.InUse(circuit.Pending) == 9 })
	close(release)
	for _, k := range tasks {
		k.wait(t)
	}
	if b.peak != 3 {
		t.Errorf("%d connections at a time", b.peak)
	}
}

// TestSingle: what carries no HTTP has each connection for itself.
func TestSingle(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	b := newBackend(t, nil)
	p := NewSingle(config(), b.address(), r.engine, r.stats, r.dials)
	r.pools = append(r.pools, p)
	r.on(func(w *socket.Worker) {
		for range 2 {
			c, err := p.Take(w, r.res, true)
			if err != nil {
				t.Error(err)
				return
			}
			if n := r.res.InUse(circuit.Requests); n != 1 {
				t.Errorf("%d requests", n)
			}
			c.Close()
		}
	})
	until(t, "the backend has seen both", func() bool { _, n := b.seen(); return n == 2 })
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// circle is a Guard that takes every connection for one to ourselves.
type circle struct{ dialed, gone atomic.Int64 }

func (c *circle) Dialed(_, _ netip.AddrPort) bool { c.dialed.Add(1); return false }
func (c *circle) Gone(_, _ netip.AddrPort)        { c.gone.Add(1) }

func TestCircleIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, unlimited)
	g := &circle{}
	c := config()
	c.Guard = g
	p := r.pool(c, newBackend(t, nil).address())
	r.on(func(w *socket.Worker) {
		_, err := ask(w, p, r.res, false)
		var f *mesh.Failure
		if !errors.As(err, &f) || f.Kind != mesh.ConnectFailure || f.Detail != errCircle.Error() {
			t.Errorf("%+v", err)
		}
	})
	if g.dialed.Load() != 1 || g.gone.Load() != 0 {
		t.Errorf("told of %d that came and %d that went", g.dialed.Load(), g.gone.Load())
	}
}
