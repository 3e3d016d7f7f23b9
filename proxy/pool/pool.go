// SPDX-License-Identifier: Apache-2.0

// Package pool keeps the upstream connections of one host: it hands a connection to one request at a time, newest first,
// opens new ones under the cluster's limits, lets requests wait in turn where none is free, and closes what is idle for
// long or was closed by the other side.
//
// It stands between upstream, which picks the host, and codec, which speaks on the connection. An idle connection is a
// descriptor in the engine's set: a hang-up takes it out of the pool at once, and bytes that nobody asked for are
// noticed before the next request is sent.
package pool

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Guard finds connections that come back to the proxy that made them.
type Guard interface {
	// Dialed tells of a new connection; false means that it goes in a circle and must be closed. Gone follows otherwise.
	Dialed(local, remote netip.AddrPort) (ok bool)
	Gone(local, remote netip.AddrPort)
}

// Config is what the pools of a cluster have in common. It is immutable.
type Config struct {
	Dialer socket.Dialer
	// Guard is told of every TCP connection; nil where no connection can come back.
	Guard Guard
	// H1 bounds what the upstream may send.
	H1 h1.Limits
	// MaxRequests bounds the requests of one connection; 0 does not.
	MaxRequests int
	// IdleTimeout closes a connection that was idle for so long, MaxDuration one that is so old; 0 does not.
	IdleTimeout, MaxDuration time.Duration
	// MaxConnections bounds the connections to one host; 0 does not.
	MaxConnections int
}

// Pool is the connections to one address.
type Pool struct {
	cfg    *Config
	addr   mesh.Address
	engine *socket.Engine
	stats  *metrics.Cluster
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // dials

	mu       sync.Mutex
	idle     []*Conn // newest last
	waiting  []*waiter
	open     int // connections, idle or not
	dialing  int
	draining bool
	sweeper  *time.Timer // set while there are idle connections and an idle timeout
}

// New returns an empty pool.
func New(cfg *Config, addr mesh.Address, engine *socket.Engine, stats *metrics.Cluster) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{cfg: cfg, addr: addr, engine: engine, stats: stats, ctx: ctx, cancel: cancel}
}

// Conn is one upstream connection.
type Conn struct {
	// Peer is the connection itself, for those who move bytes without HTTP.
	Peer *socket.Peer

	pool *Pool
	res  *circuit.Resources
	h1   *h1.Client
	born int64 // mono
	used int64 // mono: when it became idle
	// shard is that of the worker that uses it, for the counters. streams are those that began.
	shard   uint32
	streams int64
	// idle is guarded by pool.mu.
	idle, closed bool
}

// waiter is a request that waits for a connection.
type waiter struct {
	w    *socket.Worker
	res  *circuit.Resources
	conn *Conn
	fail *mesh.Failure
}

// Stream takes a connection and begins an exchange on it. With fresh it is not one that has served before: for a request
// that has just met a stale one. The error is a *mesh.Failure, or the reason for which the worker was interrupted.
func (p *Pool) Stream(w *socket.Worker, res *circuit.Resources, fresh bool) (*Conn, codec.ClientStream, error) {
	c, err := p.Take(w, res, fresh)
	if err != nil {
		return nil, nil, err
	}
	if c.h1 == nil {
		c.h1 = h1.NewClient(c.Peer, &p.engine.Bufs, &p.cfg.H1, c.done)
		p.stats.Inc(w.Shard, metrics.UpstreamCxHTTP1Total)
	}
	c.streams++
	p.stats.Inc(w.Shard, metrics.UpstreamRqTotal)
	p.stats.Inc(w.Shard, metrics.UpstreamRqActive)
	c.h1.Begin()
	return c, c.h1, nil
}

// Take takes a connection for the caller alone, who closes it or, through the stream's end, gives it back.
func (p *Pool) Take(w *socket.Worker, res *circuit.Resources, fresh bool) (*Conn, error) {
	for !fresh {
		c := p.pop()
		if c == nil {
			break
		}
		if c.Peer.Stale() {
			c.close(remote)
			continue
		}
		c.shard = w.Shard
		return c, nil
	}
	return p.await(w, res, fresh)
}

// pop takes the newest idle connection.
func (p *Pool) pop() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	c.idle = false
	return c
}

// await waits for a connection, opening one where the limits admit it.
func (p *Pool) await(w *socket.Worker, res *circuit.Resources, fresh bool) (*Conn, error) {
	if !res.Acquire(circuit.Pending) {
		return nil, &mesh.Failure{Kind: mesh.Overflow, Side: mesh.SideInternal, Retry: mesh.RetryAlways, Detail: "too many pending requests"}
	}
	defer res.Release(circuit.Pending)
	p.stats.Inc(w.Shard, metrics.UpstreamRqPendingTotal)
	p.stats.Inc(w.Shard, metrics.UpstreamRqPendingActive)
	defer p.stats.Dec(w.Shard, metrics.UpstreamRqPendingActive)

	wt := &waiter{w: w, res: res}
	p.mu.Lock()
	if n := len(p.idle); n > 0 && !fresh {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		c.idle = false
		p.mu.Unlock()
		c.shard = w.Shard
		return c, nil
	}
	p.waiting = append(p.waiting, wt)
	p.feed()
	p.mu.Unlock()
	for {
		err := w.Sleep()
		p.mu.Lock()
		conn, fail := wt.conn, wt.fail
		if conn == nil && fail == nil && err != nil {
			p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter) bool { return o == wt })
		}
		p.mu.Unlock()
		switch {
		case conn != nil && err != nil:
			p.put(conn)
			p.stats.Inc(w.Shard, metrics.UpstreamRqCancelled)
			return nil, err
		case conn != nil:
			conn.shard = w.Shard
			return conn, nil
		case fail != nil:
			return nil, fail
		case err != nil:
			p.stats.Inc(w.Shard, metrics.UpstreamRqCancelled)
			return nil, err
		}
	}
}

// feed opens connections for those who wait, as far as the limits admit. p.mu is held.
//
// Where the cluster's limit is reached by other hosts and this one has no connection at all, one is opened all the same:
// nothing would ever come free here for the request that waits (Envoy does so too).
func (p *Pool) feed() {
	for p.dialing < len(p.waiting) {
		res := p.waiting[p.dialing].res
		admitted := (p.cfg.MaxConnections == 0 || p.open+p.dialing < p.cfg.MaxConnections) && res.Acquire(circuit.Connections)
		if !admitted {
			p.stats.Inc(0, metrics.UpstreamCxOverflow)
			if p.open+p.dialing > 0 {
				return
			}
			res.Force(circuit.Connections)
		}
		p.dialing++
		p.wg.Go(func() { p.dial(res) })
	}
}

// dial opens one connection and gives it, or the failure, to the first who waits.
func (p *Pool) dial(res *circuit.Resources) {
	c := &Conn{pool: p, res: res}
	start := mono.Now()
	peer, err := p.engine.Dial(p.ctx, &p.cfg.Dialer, p.addr.Network(), p.addr.String(), func(*socket.Peer) { c.hungUp() })
	p.stats.Observe(0, metrics.UpstreamCxConnectMs, mono.Now()-start)
	if err == nil && !p.enter(peer) {
		peer.Close()
		err = errCircle
	}
	p.mu.Lock()
	p.dialing--
	if err != nil {
		res.Release(circuit.Connections)
		p.fail(p.connectFailure(err))
		p.mu.Unlock()
		return
	}
	c.Peer, c.born = peer, mono.Now()
	p.open++
	p.mu.Unlock()
	p.stats.Inc(0, metrics.UpstreamCxTotal)
	p.stats.Inc(0, metrics.UpstreamCxActive)
	p.put(c)
}

// errCircle ends a connection that a redirect rule has brought back to us.
var errCircle = errors.New("the connection came back to this proxy: exclude its own traffic from the redirect rules")

// enter tells the guard of a new connection.
func (p *Pool) enter(peer *socket.Peer) (ok bool) {
	return p.cfg.Guard == nil || p.addr.Pipe != "" || p.cfg.Guard.Dialed(peer.LocalAddr(), p.addr.IP)
}

// connectFailure counts and names why a connection could not be opened.
func (p *Pool) connectFailure(err error) *mesh.Failure {
	p.stats.Inc(0, metrics.UpstreamCxConnectFail)
	f := &mesh.Failure{Kind: mesh.ConnectFailure, Side: mesh.SideUpstream, Retry: mesh.RetryAlways}
	var sys *os.SyscallError
	switch {
	case os.IsTimeout(err):
		p.stats.Inc(0, metrics.UpstreamCxConnectTimeout)
		f.Kind, f.Detail = mesh.ConnectTimeout, "connection timeout"
	case err == errCircle:
		f.Detail = err.Error()
	case errors.As(err, &sys):
		f.Detail = sys.Syscall + ": " + sys.Err.Error()
	default:
		f.Detail = "connection failure"
	}
	return f
}

// fail tells the first who waits. p.mu is held.
func (p *Pool) fail(f *mesh.Failure) {
	if len(p.waiting) == 0 {
		return
	}
	wt := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	p.stats.Inc(wt.w.Shard, metrics.UpstreamRqPendingFailureEject)
	wt.fail = f
	wt.w.Signal()
}

// put gives a connection to the first who waits, or makes it idle.
func (p *Pool) put(c *Conn) {
	p.mu.Lock()
	switch {
	case c.Peer.HungUp():
		p.mu.Unlock()
		c.close(remote)
		return
	case len(p.waiting) > 0:
		wt := p.waiting[0]
		p.waiting = slices.Delete(p.waiting, 0, 1)
		wt.conn = c
		wt.w.Signal()
		p.mu.Unlock()
		return
	case p.draining:
		p.mu.Unlock()
		c.close(local)
		return
	}
	c.idle, c.used = true, mono.Now()
	p.idle = append(p.idle, c)
	if p.sweeper == nil && p.cfg.IdleTimeout > 0 {
		p.sweeper = time.AfterFunc(p.cfg.IdleTimeout, p.sweep)
	}
	hungUp := c.Peer.HungUp() // since it was asked: the news found it busy
	p.mu.Unlock()
	if hungUp {
		c.hungUp()
	}
}

// sweep closes what was idle for too long. The oldest are in front.
func (p *Pool) sweep() {
	now := mono.Now()
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].used >= int64(p.cfg.IdleTimeout) {
		p.idle[n].idle = false
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.sweeper = nil
	if len(p.idle) > 0 && !p.draining {
		p.sweeper = time.AfterFunc(p.cfg.IdleTimeout-time.Duration(now-p.idle[0].used), p.sweep)
	}
	p.mu.Unlock()
	for _, c := range old {
		p.stats.Inc(0, metrics.UpstreamCxIdleTimeout)
		c.close(local)
	}
}

// done is told by the codec that an exchange has ended.
func (c *Conn) done(cl *h1.Client, reuse bool) {
	p := c.pool
	p.stats.Dec(c.shard, metrics.UpstreamRqActive)
	p.stats.Add(c.shard, metrics.UpstreamCxRxBytesTotal, cl.Received())
	p.stats.Add(c.shard, metrics.UpstreamCxTxBytesTotal, cl.Sent())
	switch {
	case !reuse && c.Peer.HungUp():
		c.close(remote)
	case !reuse:
		c.close(local)
	case p.cfg.MaxRequests > 0 && cl.Served() >= p.cfg.MaxRequests:
		p.stats.Inc(c.shard, metrics.UpstreamCxMaxRequests)
		c.close(local)
	case p.cfg.MaxDuration > 0 && mono.Now()-c.born >= int64(p.cfg.MaxDuration):
		p.stats.Inc(c.shard, metrics.UpstreamCxMaxDurationReached)
		c.close(local)
	default:
		p.put(c)
	}
}

// Failed counts an exchange on c that did not end as it should; its stream is aborted next.
func (c *Conn) Failed(kind mesh.FailureKind) {
	p := c.pool
	switch {
	case kind == mesh.UpstreamProtocolError:
		p.stats.Inc(c.shard, metrics.UpstreamCxProtocolError)
		fallthrough
	case !c.Peer.HungUp():
		p.stats.Inc(c.shard, metrics.UpstreamRqTxReset)
		p.stats.Inc(c.shard, metrics.UpstreamCxDestroyLocalWithActiveRq)
	default:
		p.stats.Inc(c.shard, metrics.UpstreamCxDestroyRemoteWithActiveRq)
	}
}

// hungUp is called by the engine when the other side has closed. An idle connection leaves the pool; whoever uses a busy
// one finds out by reading.
func (c *Conn) hungUp() {
	p := c.pool
	p.mu.Lock()
	idle := c.idle
	if idle {
		i := slices.Index(p.idle, c)
		p.idle = slices.Delete(p.idle, i, i+1)
		c.idle = false
	}
	p.mu.Unlock()
	if idle {
		c.close(remote)
	}
}

// closer says who ended a connection, for the counters.
type closer bool

const (
	local  closer = false
	remote closer = true
)

// Close closes a connection that was taken.
func (c *Conn) Close() { c.close(local) }

func (c *Conn) close(by closer) {
	p := c.pool
	p.mu.Lock()
	if c.closed {
		p.mu.Unlock()
		return
	}
	c.closed = true
	p.open--
	c.res.Release(circuit.Connections)
	// The place may serve one who waits.
	p.feed()
	p.mu.Unlock()
	if p.cfg.Guard != nil && p.addr.Pipe == "" {
		p.cfg.Guard.Gone(c.Peer.LocalAddr(), p.addr.IP)
	}
	c.Peer.Close()
	p.stats.Dec(c.shard, metrics.UpstreamCxActive)
	if by == remote {
		p.stats.Inc(c.shard, metrics.UpstreamCxDestroyRemote)
	} else {
		p.stats.Inc(c.shard, metrics.UpstreamCxDestroyLocal)
	}
	p.stats.Observe(c.shard, metrics.UpstreamCxLengthMs, mono.Now()-c.born)
	if c.h1 != nil {
		p.stats.ObserveCount(c.shard, metrics.UpstreamRqPerCx, c.streams)
	}
}

// Drain is for a host that has left its cluster: idle connections are closed, and none is kept from now on. A request
// that had picked the host before is still served, on a connection of its own.
func (p *Pool) Drain() {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	p.CloseIdle()
}

// CloseIdle closes the idle connections, as when the host was found to be unhealthy.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	for _, c := range idle {
		c.idle = false
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close(local)
	}
}

// Close ends the dials that are under way and waits for them. No request may use the pool any more.
func (p *Pool) Close() {
	p.Drain()
	p.cancel()
	p.wg.Wait()
}

// Open returns the number of connections.
func (p *Pool) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}
