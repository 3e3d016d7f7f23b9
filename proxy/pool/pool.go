// SPDX-License-Identifier: Apache-2.0

// Package pool keeps the upstream connections of one host: it gives each request a stream, opens connections under the
// cluster's limits, lets requests wait in turn where none has room, and closes what is idle for long or was closed by the
// other side. A Pool has HTTP/1.1 connections, which it hands to one request at a time, newest first; a Mux has HTTP/2
// connections, each of which carries many streams.
//
// It stands between upstream, which picks the host, and codec, which speaks on the connection. An idle connection is a
// descriptor in the engine's set: a hang-up takes it out of the pool at once, and on HTTP/1.1 bytes that nobody asked for
// are noticed before the next request is sent.
package pool

import (
	"slices"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Pool is the connections to one address.
//
// While a connection is idle, nobody waits who could use it: whoever gives one back looks at the queue first.
type Pool struct {
	base
	single bool // a connection is for one user and never kept

	// Guarded by mu.
	idle    list
	sweeper *time.Timer // set from the first idle connection on until sweep finds none, where there is an idle timeout
}

// New returns an empty pool of HTTP connections. Its dials are among those of dials.
func New(cfg *Config, addr mesh.Address, engine *socket.Engine, stats *metrics.Cluster, dials *Dials) *Pool {
	return &Pool{base: base{cfg: cfg, addr: addr, engine: engine, stats: stats, dials: dials}}
}

// NewSingle returns a pool of connections that serve one user each, as those that carry no HTTP.
func NewSingle(cfg *Config, addr mesh.Address, engine *socket.Engine, stats *metrics.Cluster, dials *Dials) *Pool {
	p := New(cfg, addr, engine, stats, dials)
	p.single = true
	return p
}

// Stream takes a connection and begins an exchange on it. With fresh it is one that has not served before: for a request
// that has just met a stale one. The error is a *mesh.Failure, or the reason for which the worker was interrupted.
func (p *Pool) Stream(w *socket.Worker, res *circuit.Resources, fresh bool) (Stream, error) {
	c, err := p.Take(w, res, fresh)
	if err != nil {
		return nil, err
	}
	if c.h1 == nil {
		c.h1 = h1.NewClient(c.Peer, &p.engine.Bufs, &p.cfg.H1, c.done)
		c.stream = exclusive{c.h1, c}
		p.stats.Inc(w.Shard, metrics.UpstreamCxHTTP1Total)
	}
	c.streams++
	p.stats.Inc(w.Shard, metrics.UpstreamRqTotal)
	p.stats.Inc(w.Shard, metrics.UpstreamRqActive)
	c.h1.Begin()
	return &c.stream, nil
}

// Take takes a connection for the caller alone, who closes it or, through the stream's end, gives it back. It counts as
// one of the cluster's requests until then.
func (p *Pool) Take(w *socket.Worker, res *circuit.Resources, fresh bool) (*Conn, error) {
	c, err := p.find(w, res, fresh)
	if err != nil {
		return nil, err
	}
	if !res.Acquire(circuit.Requests) {
		p.put(c)
		return nil, overflow("too many requests")
	}
	c.user, c.shard = res, w.Shard
	return c, nil
}

// find takes an idle connection, or waits for one.
func (p *Pool) find(w *socket.Worker, res *circuit.Resources, fresh bool) (c *Conn, err error) {
	for {
		if c = p.pop(res, fresh); c == nil {
			if c, err = p.await(w, res, fresh); err != nil {
				return nil, err
			}
		}
		switch {
		case c.streams == 0 && !c.rested:
			// It was made for this request. A server may have spoken first, or hung up at once: that is for the request to
			// find out, which would be sent in circles otherwise.
			return c, nil
		case c.Peer.Stale():
			c.close(remote)
		case c.tooOld():
			p.stats.Inc(w.Shard, metrics.UpstreamCxMaxDurationReached)
			c.close(local)
		default:
			return c, nil
		}
	}
}

// pop takes the newest idle connection.
func (p *Pool) pop(res *circuit.Resources, fresh bool) *Conn {
	if fresh {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.idle.newest
	if c != nil {
		p.idle.remove(c)
		p.preconnect(res)
	}
	return c
}

// await waits for a connection, opening one where the limits admit it.
func (p *Pool) await(w *socket.Worker, res *circuit.Resources, fresh bool) (*Conn, error) {
	if !p.pend(w, res) {
		return nil, overflow("too many pending requests")
	}
	defer p.unpend(w, res)
	wt := &waiter{w: w, res: res, fresh: fresh}
	if c := p.enqueue(wt); c != nil {
		return c, nil
	}
	err := p.wait(wt)
	if err != nil && wt.conn != nil {
		p.put(wt.conn)
	}
	return wt.conn, err
}

// enqueue makes wt wait, unless a connection has become idle meanwhile, which it returns.
func (p *Pool) enqueue(wt *waiter) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.idle.newest; c != nil && !wt.fresh {
		p.idle.remove(c)
		return c
	}
	p.waiting = append(p.waiting, wt)
	p.feed()
	p.preconnect(wt.res)
	return nil
}

// next takes the first of the queue that can use a connection; used says that it has served before.
func (p *Pool) next(used bool) *waiter {
	for i, wt := range p.waiting {
		if !used || !wt.fresh {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			return wt
		}
	}
	return nil
}

// feed opens connections for those who wait, as far as the limits admit. p.mu is held.
func (p *Pool) feed() {
	for p.dialing < len(p.waiting) {
		res := p.waiting[p.dialing].res
		if !p.makeRoom(res) {
			return
		}
		p.dialing++
		p.dials.wg.Go(func() { p.dial(res) })
	}
}

// preconnect opens connections for requests that are to be expected. p.mu is held.
func (p *Pool) preconnect(res *circuit.Resources) {
	for range preconnects {
		if p.single || !p.short(p.open-p.idle.n, p.dialing+p.idle.n) || !p.admit(res) {
			return
		}
		p.dialing++
		p.dials.wg.Go(func() { p.dial(res) })
	}
}

// Predict implements Streams.
func (p *Pool) Predict(res *circuit.Resources, ratio float64) (opened bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.single || !p.predict(res, ratio, p.open-p.idle.n, p.dialing+p.idle.n) {
		return false
	}
	p.dials.wg.Go(func() { p.dial(res) })
	return true
}

// makeRoom is admit. Where the limit is reached and all who wait want new connections, the idle ones, which only they
// could see, give way. p.mu is held.
func (p *Pool) makeRoom(res *circuit.Resources) bool {
	for !p.admit(res) {
		c := p.idle.oldest
		if c == nil {
			return false
		}
		p.idle.remove(c)
		p.leave(c.res)
		c.shut(local)
	}
	return true
}

// put gives a connection to the first who waits, or makes it idle.
func (p *Pool) put(c *Conn) {
	if c.Peer.HungUp() {
		c.close(remote)
		return
	}
	p.mu.Lock()
	kept := p.place(c)
	p.mu.Unlock()
	switch {
	case !kept:
		c.close(local)
	case c.Peer.HungUp(): // since it was asked: the news found it busy
		c.hungUp()
	}
}

// place is put for the holder of p.mu. It reports false where the connection is to be closed: it is not to be kept, or
// its place is wanted by one who waits for another connection.
func (p *Pool) place(c *Conn) (kept bool) {
	if wt := p.next(c.streams > 0); wt != nil {
		wt.conn = c
		wt.w.Signal()
		return true
	}
	if p.draining || p.single || p.dialing < len(p.waiting) {
		return false
	}
	c.used, c.rested = mono.Now(), true
	p.idle.add(c)
	if p.sweeper == nil && p.cfg.IdleTimeout > 0 {
		p.sweepIn(p.cfg.IdleTimeout)
	}
	return true
}

// sweepIn makes sweep come after d, which the owner of the dials waits for. p.mu is held.
func (p *Pool) sweepIn(d time.Duration) {
	p.dials.wg.Add(1)
	p.sweeper = time.AfterFunc(d, p.sweep)
}

// sweep closes what was idle for too long.
func (p *Pool) sweep() {
	defer p.dials.wg.Done()
	now := mono.Now()
	p.mu.Lock()
	var old []*Conn
	for c := p.idle.oldest; c != nil && now-c.used >= int64(p.cfg.IdleTimeout); c = p.idle.oldest {
		p.idle.remove(c)
		old = append(old, c)
	}
	p.sweeper = nil
	if c := p.idle.oldest; c != nil {
		p.sweepIn(p.cfg.IdleTimeout - time.Duration(now-c.used))
	}
	p.mu.Unlock()
	for _, c := range old {
		p.stats.Inc(0, metrics.UpstreamCxIdleTimeout)
		c.close(local)
	}
}

// Drain is for a host that has left its cluster: idle connections are closed, and none is kept from now on. A request
// that had picked the host before is still served, on a connection of its own.
func (p *Pool) Drain() {
	p.mu.Lock()
	p.draining = true
	if p.sweeper != nil && p.sweeper.Stop() {
		p.dials.wg.Done()
		p.sweeper = nil
	}
	p.mu.Unlock()
	p.CloseIdle()
}

// CloseIdle closes the idle connections, as when the host was found to be unhealthy.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	var idle []*Conn
	for c := p.idle.newest; c != nil; c = p.idle.newest {
		p.idle.remove(c)
		idle = append(idle, c)
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close(local)
	}
}
