// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Conn is one upstream connection.
type Conn struct {
	// Peer is the connection itself, for those who move bytes without HTTP.
	Peer *socket.Peer

	pool *Pool
	res  *circuit.Resources // what it counts for as a connection
	born int64              // mono

	// The rest belongs to whoever has taken the connection.
	h1      *h1.Client
	stream  exclusive          // over h1
	user    *circuit.Resources // what its user counts for; nil where there is none
	shard   uint32             // of the user's worker, for the counters
	streams int64              // that began

	// Guarded by pool.mu.
	used         int64 // mono: when it became idle
	idle, rested bool  // it is idle; it was
	newer, older *Conn
}

// tooOld reports whether the connection has lasted as long as it may.
func (c *Conn) tooOld() bool {
	d := c.pool.cfg.MaxDuration
	return d > 0 && mono.Now()-c.born >= int64(d)
}

// done is told by the codec that an exchange has ended.
func (c *Conn) done(cl *h1.Client, reuse bool) {
	p := c.pool
	p.stats.Dec(c.shard, metrics.UpstreamRqActive)
	p.stats.Add(c.shard, metrics.UpstreamCxRxBytesTotal, cl.Received())
	p.stats.Add(c.shard, metrics.UpstreamCxTxBytesTotal, cl.Sent())
	if cl.Closes() {
		p.stats.Inc(c.shard, metrics.UpstreamCxCloseNotify)
	}
	c.leaveUser()
	switch {
	case !reuse && c.Peer.HungUp():
		c.close(remote)
	case !reuse:
		c.close(local)
	case p.cfg.MaxRequests > 0 && cl.Served() >= p.cfg.MaxRequests:
		p.stats.Inc(c.shard, metrics.UpstreamCxMaxRequests)
		c.close(local)
	case c.tooOld():
		p.stats.Inc(c.shard, metrics.UpstreamCxMaxDurationReached)
		c.close(local)
	default:
		p.put(c)
	}
}

func (c *Conn) leaveUser() {
	if c.user != nil {
		c.user.Release(circuit.Requests)
		c.user = nil
	}
}

// exclusive is an HTTP/1.1 connection as the stream that it is.
type exclusive struct {
	*h1.Client
	*Conn
}

// LocalAddr implements Stream.
func (c *Conn) LocalAddr() netip.AddrPort { return c.Peer.LocalAddr() }

// Protocol implements Stream.
func (c *Conn) Protocol() mesh.Protocol { return mesh.HTTP11 }

// ResetTunnel implements Stream.
func (c *Conn) ResetTunnel() { c.Peer.Reset() }

// Failed implements Stream.
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
		p.idle.remove(c)
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

// Close closes a connection that was taken with Take.
func (c *Conn) Close() {
	c.leaveUser()
	c.close(closer(c.Peer.HungUp()))
}

// close closes a connection that is in nobody's hands but the caller's. Its place may serve one who waits.
func (c *Conn) close(by closer) {
	p := c.pool
	c.shut(by)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(c.res)
	p.feed()
}

// shut closes the socket and counts that.
func (c *Conn) shut(by closer) {
	c.pool.ended(c.shard, by, c.Peer.LocalAddr(), c.born)
	c.Peer.Close()
	if c.h1 != nil {
		c.pool.stats.ObserveCount(c.shard, metrics.UpstreamRqPerCx, c.streams)
	}
}

// list is idle connections in the order in which they became idle.
type list struct {
	newest, oldest *Conn
	n              int
}

func (l *list) add(c *Conn) {
	c.idle, c.older, c.newer = true, l.newest, nil
	if l.newest != nil {
		l.newest.newer = c
	} else {
		l.oldest = c
	}
	l.newest = c
	l.n++
}

func (l *list) remove(c *Conn) {
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		l.newest = c.older
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		l.oldest = c.newer
	}
	c.idle, c.older, c.newer = false, nil, nil
	l.n--
}
