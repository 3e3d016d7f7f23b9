// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Mux is the HTTP/2 connections to one address. A request takes a place on the first that has one; where none has, it
// waits for a place, or for a connection that is opened for as many of those who wait as are taken to fit on one.
//
// A connection drains when it shall take no more streams: the other side said so, it is old, or it has served as many as it
// may. It ends with its last stream. It is closed by its own turn alone.
type Mux struct {
	base
	leases sync.Pool // of *lease
	// negotiates says that the protocol is the upstream's choice, which need not be HTTP/2.
	negotiates bool

	conns  []*muxConn // guarded by mu: those that take streams
	all    []*muxConn // guarded by mu
	places int        // guarded by mu: how many streams the server allowed last
}

// assumedStreams is how many streams a server is taken to allow before it has said so (RFC 9113 section 6.5.2 recommends
// that it be no fewer).
const assumedStreams = 100

// NewMux returns an empty pool of HTTP/2 connections. Its dials are among those of dials.
func NewMux(cfg *Config, addr mesh.Address, engine *socket.Engine, stats *metrics.Cluster, dials *Dials) *Mux {
	m := &Mux{base: base{cfg: cfg, addr: addr, engine: engine, stats: stats, dials: dials}}
	m.places = max(1, min(cfg.H2.Streams, assumedStreams))
	m.leases.New = func() any { return new(lease) }
	return m
}

// Stream implements Streams. Connections that are about to end take no streams: fresh is for other protocols.
func (m *Mux) Stream(w *socket.Worker, res *circuit.Resources, _ bool) (Stream, error) {
	l, err := m.place(w, res)
	if err != nil {
		return nil, err
	}
	if !res.Acquire(circuit.Requests) {
		l.giveBack()
		return nil, overflow("too many requests")
	}
	l.user, l.shard = res, w.Shard
	m.stats.Inc(w.Shard, metrics.UpstreamRqTotal)
	m.stats.Inc(w.Shard, metrics.UpstreamRqActive)
	return l, nil
}

// lease is a place on a connection, or the stream that is made of it.
type lease struct {
	*h2.ClientStream
	conn  *muxConn
	user  *circuit.Resources
	shard uint32
}

// LocalAddr implements Stream.
func (l *lease) LocalAddr() netip.AddrPort { return l.conn.local }

// Protocol implements Stream.
func (l *lease) Protocol() mesh.Protocol { return mesh.HTTP2 }

// ResetTunnel implements Stream: a stream that is aborted is reset.
func (l *lease) ResetTunnel() {}

// Failed implements Stream.
func (l *lease) Failed(kind mesh.FailureKind) {
	m := l.conn.mux
	switch kind {
	case mesh.UpstreamProtocolError:
		m.stats.Inc(l.shard, metrics.UpstreamCxProtocolError)
		m.stats.Inc(l.shard, metrics.UpstreamRqTxReset)
	case mesh.UpstreamReset, mesh.UpstreamClosed:
	default:
		if l.Sent() > 0 {
			m.stats.Inc(l.shard, metrics.UpstreamRqTxReset)
		}
	}
}

// Release implements codec.ClientStream.
func (l *lease) Release() { l.end((*h2.ClientStream).Release) }

// Abort implements codec.ClientStream.
func (l *lease) Abort() { l.end((*h2.ClientStream).Abort) }

func (l *lease) end(how func(*h2.ClientStream)) {
	s, m := l.ClientStream, l.conn.mux
	m.stats.Dec(l.shard, metrics.UpstreamRqActive)
	m.stats.Add(l.shard, metrics.UpstreamCxRxBytesTotal, s.Received())
	m.stats.Add(l.shard, metrics.UpstreamCxTxBytesTotal, s.Sent())
	l.user.Release(circuit.Requests)
	*l = lease{}
	m.leases.Put(l)
	how(s)
}

// giveBack gives up a place that no stream was made of.
func (l *lease) giveBack() {
	s, m := l.ClientStream, l.conn.mux
	*l = lease{}
	m.leases.Put(l)
	s.Abort()
}

// place takes a place on a connection, and waits for one where there is none.
func (m *Mux) place(w *socket.Worker, res *circuit.Resources) (*lease, error) {
	m.mu.Lock()
	l := m.pick()
	if l != nil {
		m.preconnect(res)
	}
	m.mu.Unlock()
	if l != nil {
		return l, nil
	}
	if !m.pend(w, res) {
		return nil, overflow("too many pending requests")
	}
	defer m.unpend(w, res)
	wt := &waiter{w: w, res: res}
	m.mu.Lock()
	if l = m.pick(); l == nil {
		m.waiting = append(m.waiting, wt)
		m.feed()
		m.preconnect(res)
	}
	m.mu.Unlock()
	if l != nil {
		return l, nil
	}
	err := m.wait(wt)
	if err != nil && wt.lease != nil {
		wt.lease.giveBack()
	}
	return wt.lease, err
}

// pick takes a place on the first connection that has one. m.mu is held.
func (m *Mux) pick() *lease {
	for _, c := range m.conns {
		if l := c.reserve(); l != nil {
			return l
		}
	}
	return nil
}

// serve gives the places that there are to those who wait, and opens connections for the others. m.mu is held.
func (m *Mux) serve() {
	for len(m.waiting) > 0 {
		l := m.pick()
		if l == nil {
			m.feed()
			return
		}
		wt := m.waiting[0]
		m.waiting = slices.Delete(m.waiting, 0, 1)
		wt.lease = l
		wt.w.Signal()
	}
}

// feed opens connections for those who wait, as far as the limits admit. m.mu is held.
func (m *Mux) feed() {
	for m.dialing*m.places < len(m.waiting) {
		res := m.waiting[m.dialing*m.places].res
		if !m.admit(res) {
			return
		}
		m.dialing++
		m.dials.wg.Go(func() { m.dial(res) })
	}
}

// preconnect opens connections for requests that are to be expected. m.mu is held.
func (m *Mux) preconnect(res *circuit.Resources) {
	if m.cfg.Preconnect <= 1 {
		return
	}
	for range preconnects {
		if active, capacity := m.capacity(); !m.short(active, capacity) || !m.admit(res) {
			return
		}
		m.dialing++
		m.dials.wg.Go(func() { m.dial(res) })
	}
}

// capacity returns the streams that there are, and how many more there could be. m.mu is held.
func (m *Mux) capacity() (active, capacity int) {
	capacity = m.dialing * m.places
	for _, c := range m.conns {
		n := c.h2.Streams()
		active += n
		capacity += max(0, c.h2.Places()-n)
	}
	return active, capacity
}

// Predict implements Streams.
func (m *Mux) Predict(res *circuit.Resources, ratio float64) (opened bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if active, capacity := m.capacity(); !m.predict(res, ratio, active, capacity) {
		return false
	}
	m.dials.wg.Go(func() { m.dial(res) })
	return true
}

// dial opens one connection for those who wait.
func (m *Mux) dial(res *circuit.Resources) {
	c := &muxConn{mux: m, res: res, born: m.begin()}
	sock, err := m.connect(c)
	m.stats.Observe(0, metrics.UpstreamCxConnectMs, mono.Now()-c.born)
	switch {
	case err == errOtherProtocol:
		m.stats.Dec(0, metrics.UpstreamCxActive)
		m.stats.Inc(0, metrics.UpstreamCxDestroyLocal)
		m.failed(res, errNotHTTP2)
		return
	case err != nil:
		m.failed(res, m.connectFailure(err))
		return
	}
	m.stats.Inc(0, metrics.UpstreamCxHTTP2Total)
	c.sock, c.born = sock, mono.Now()
	c.idleSince.Store(c.born)
	c.h2.Init(sock, sock.Bufs(), &m.cfg.H2, c)
	m.dials.wg.Add(1) // until Closed
	m.mu.Lock()
	m.open++
	m.all = append(m.all, c)
	c.h2.Assume(m.places)
	m.mu.Unlock()
	err = sock.Start(true)
	if err != nil {
		sock.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialing-- // only now: until its places can be seen, nobody is to open another connection for want of them
	if err == nil && !c.h2.Draining() {
		m.conns = append(m.conns, c)
	}
	m.serve()
	if m.draining {
		c.h2.Drain()
	}
}

// errOtherProtocol ends a connection on which another protocol than HTTP/2 was negotiated.
var errOtherProtocol = errors.New("the upstream did not choose HTTP/2 by ALPN")

// connect opens the connection's socket.
func (m *Mux) connect(c *muxConn) (*socket.Conn, error) {
	link, err := m.engine.Connect(m.dials.ctx, &m.cfg.Dialer, m.addr.Network(), m.addr.String())
	if err != nil {
		return nil, err
	}
	if m.negotiates && link.Protocol() != "h2" {
		link.Close()
		return nil, errOtherProtocol
	}
	sock, err := link.Conn(c)
	if err != nil {
		return nil, err
	}
	if c.local, _ = socket.Addrs(sock.FD()); !m.enter(c.local) {
		c.refused = true
		sock.Close()
		return nil, errCircle
	}
	return sock, nil
}

// failed tells those who wait that there is no connection: those whom this one would have served, or all where there is no
// other and none to come.
func (m *Mux) failed(res *circuit.Resources, f *mesh.Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialing--
	res.Release(circuit.Connections)
	n := min(m.places, len(m.waiting))
	if m.open+m.dialing == 0 {
		n = len(m.waiting)
	}
	for range n {
		m.fail(0, f)
	}
	m.feed()
}

// Drain implements Streams. A request that had picked the host before is still served, on a connection of its own.
func (m *Mux) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = true
	for _, c := range m.all {
		c.h2.Drain()
	}
}

// CloseIdle implements Streams.
func (m *Mux) CloseIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.all {
		if c.h2.Streams() == 0 {
			c.h2.Drain()
		}
	}
}

// muxConn is one HTTP/2 connection.
type muxConn struct {
	mux   *Mux
	sock  *socket.Conn
	res   *circuit.Resources // what it counts for as a connection
	local netip.AddrPort
	born  int64 // mono
	h2    h2.Client

	idleSince atomic.Int64 // mono: since when it has no streams
	served    int          // guarded by mux.mu: places that were taken

	// These belong to the connection's turn.
	shard   uint32
	by      closer // who ended it
	old     bool   // it was told to drain for its age, or because nobody used it
	active  int    // the streams that were open at its end
	refused bool   // it was closed before it was one
}

// reserve takes a place, if there is one. mux.mu is held.
func (c *muxConn) reserve() *lease {
	limit := c.mux.cfg.MaxRequests
	if limit > 0 && c.served >= limit {
		return nil
	}
	s, ok := c.h2.Reserve()
	if !ok {
		return nil
	}
	if c.served++; c.served == limit {
		c.mux.stats.Inc(0, metrics.UpstreamCxMaxRequests)
		c.h2.Drain()
	}
	l := c.mux.leases.Get().(*lease)
	l.ClientStream, l.conn = s, c
	return l
}

// Capacity implements h2.Owner.
func (c *muxConn) Capacity(*h2.Client) {
	m := c.mux
	if c.h2.Streams() == 0 {
		c.idleSince.Store(mono.Now())
	}
	m.mu.Lock()
	if n := c.h2.Places(); n > 0 {
		m.places = n
	}
	m.serve()
	m.mu.Unlock()
}

// Draining implements h2.Owner.
func (c *muxConn) Draining(*h2.Client) {
	m := c.mux
	m.mu.Lock()
	m.conns = slices.DeleteFunc(m.conns, func(o *muxConn) bool { return o == c })
	m.serve()
	m.mu.Unlock()
}

// Ready implements socket.Handler.
func (c *muxConn) Ready(w *socket.Worker, sock *socket.Conn) (open bool) {
	defer func() {
		if v := recover(); v != nil {
			c.mux.cfg.Panicked(v)
			c.h2.Close(w, h2.InternalError) // no stream may write to a descriptor that is about to be closed
			open = false
		}
	}()
	c.shard = w.Shard
	sock.Expired() // the turn looks at all that time asks for
	now := mono.Now()
	if d := c.mux.cfg.MaxDuration; d > 0 && !c.old && now-c.born >= int64(d) {
		c.old = true
		c.mux.stats.Inc(w.Shard, metrics.UpstreamCxMaxDurationReached)
		c.h2.Drain()
	}
	if d := c.mux.cfg.IdleTimeout; d > 0 && !c.old && now-c.idleSince.Load() >= int64(d) && c.h2.Streams() == 0 {
		// Whoever has just taken a place may still use it.
		c.old = true
		c.mux.stats.Inc(w.Shard, metrics.UpstreamCxIdleTimeout)
		c.h2.Drain()
	}
	if err := c.h2.Turn(w, now); err != nil {
		c.active = c.h2.Streams()
		c.end(w, sock, err)
		return false
	}
	c.wait(now)
	return true
}

// end notes why the codec has ended.
func (c *muxConn) end(w *socket.Worker, sock *socket.Conn, err error) {
	var fault *h2.ConnError
	switch {
	case errors.As(err, &fault):
		c.by = closer(fault.Remote)
		if !fault.Remote {
			c.mux.stats.Inc(w.Shard, metrics.UpstreamCxProtocolError)
		}
	default:
		c.by = closer(err != h2.ErrDrained || sock.HungUp())
	}
}

// wait sets when the connection is to be looked at in any case. While it has streams, that is no later than it could be
// idle for too long: the end of a stream does not set a time of its own.
func (c *muxConn) wait(now int64) {
	cfg := c.mux.cfg
	until := int64(0)
	if cfg.IdleTimeout > 0 && !c.old {
		until = c.idleSince.Load()
		if c.h2.Streams() > 0 {
			until = now
		}
		until += int64(cfg.IdleTimeout)
	}
	if end := c.born + int64(cfg.MaxDuration); cfg.MaxDuration > 0 && !c.old && (until == 0 || end < until) {
		until = end
	}
	c.h2.SetExpire(until)
}

// Closed implements socket.Handler.
func (c *muxConn) Closed(*socket.Conn) {
	if c.refused {
		return
	}
	m := c.mux
	defer m.dials.wg.Done()
	m.mu.Lock()
	is := func(o *muxConn) bool { return o == c }
	m.conns, m.all = slices.DeleteFunc(m.conns, is), slices.DeleteFunc(m.all, is)
	served := c.served
	m.leave(c.res)
	m.serve()
	m.mu.Unlock()
	switch {
	case c.active > 0 && c.by == remote:
		m.stats.Inc(c.shard, metrics.UpstreamCxDestroyRemoteWithActiveRq)
	case c.active > 0:
		m.stats.Inc(c.shard, metrics.UpstreamCxDestroyLocalWithActiveRq)
	}
	m.ended(c.shard, c.by, c.local, c.born)
	m.stats.ObserveCount(c.shard, metrics.UpstreamRqPerCx, int64(served))
}

var (
	_ Stream  = (*lease)(nil)
	_ Streams = (*Mux)(nil)
	_ Streams = (*Pool)(nil)
)
