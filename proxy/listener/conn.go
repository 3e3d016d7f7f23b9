// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"io"
	"net/netip"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/sys"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// conn is an accepted connection until it is closed. It stands in front of the chain's handler, so that the connection is
// counted and can be ended whatever the handler does.
type conn struct {
	info inspect.ConnInfo
	c    *socket.Conn

	group      *group
	prev, next *conn       // guarded by group.mu
	started    atomic.Bool // the engine knows the connection
	ended      bool        // guarded by group.mu: the descriptor may be closed any moment

	// Owned by the goroutine that serves the connection; before Start, by the one that accepts.
	counted  bool  // towards the limit of the process
	checked  bool  // whether it goes in a circle
	guarded  bool  // known to the guard
	at       int32 // the listener filter that looks
	shard    uint32
	listener *listener
	cfg      *config
	chain    *chain         // nil while the listener filters look
	version  *version       // of a chain whose end is discovered, once it has taken the connection
	h        socket.Handler // the chain's; nil likewise
	deadline int64          // of the listener filters (mono); 0 for none
	secure   *handshake     // while it is to be made; otherwise nil
	// Where it is counted as one that listener filters look at, and as one that a chain has; nil where it is not.
	looking, active *metrics.Listener
}

// state is how far a connection has come.
type state uint8

const (
	wait  state = iota // for more bytes
	serve              // the chain's handler has it
	over               // it is to be closed
)

// accept takes a new connection from l's socket. from is where it comes from; a unix socket does not tell.
func (s *Set) accept(l *listener, fd int, from netip.AddrPort, shard uint32) {
	x := &conn{listener: l, cfg: l.cfg.Load(), shard: shard}
	x.info.Remote = from
	x.info.ID = s.ids.Add(1)
	x.info.Accepted = mono.Now()
	x.c = s.cfg.Engine.Adopt(fd, x)
	if !x.open() {
		x.close()
	}
}

// open brings the connection as far as it comes without bytes.
func (x *conn) open() (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
			ok = false
		}
	}()
	var now bool
	switch x.begin() {
	case over:
		return false
	case wait:
		// The first look at the bytes is a worker's, which then leaves a deadline with the engine.
		x.setLooking(x.cfg.metrics)
		now = true
	case serve:
		if x.chain.tls != nil {
			x.c.SetExpire(x.beginHandshake())
			now = x.chain.tls.Unready() != nil // it need not say anything first
		} else if now, ok = x.take(); !ok {
			return false
		}
	}
	ch := x.chain
	if err := x.c.Start(now); err != nil {
		x.notWatched(err)
		return false
	}
	// From here on a worker owns x.
	x.started.Store(true)
	if ch != nil && ch.Draining() {
		x.c.Look()
	}
	return true
}

// begin applies the limits and the filters that need no bytes.
func (x *conn) begin() state {
	s := x.listener.set
	x.listener.looking.add(x)
	open := x.listener.open.Add(1)
	if x.cfg.Address.Pipe == "" {
		x.info.Local, _ = sys.LocalAddr(x.c.FD())
	}
	if open > x.cfg.limit() {
		return x.refuse(metrics.ListenerDownstreamCxOverflow, mesh.Overloaded, "listener_connection_limit")
	}
	if !x.cfg.IgnoreGlobalLimit {
		x.counted = true
		if s.conns.Add(1) > s.most() {
			return x.refuse(metrics.ListenerDownstreamGlobalCxOverflow, mesh.Overloaded, "global_connection_limit")
		}
	}
	x.setDeadline()
	return x.advance(nil, false)
}

func (x *conn) setDeadline() {
	x.deadline = 0
	if t := x.cfg.FiltersTimeout; t > 0 {
		x.deadline = mono.Now() + int64(t)
	}
}

// advance lets the listener filters see all bytes that have come, and goes on when they are done.
func (x *conn) advance(peeked []byte, end bool) state {
	v := x.cfg.filters.Run(&x.at, x.c.FD(), peeked, end, &x.info)
	if x.info.Redirected() && !x.checked {
		x.checked = true
		if x.circles() {
			return x.loops()
		}
	}
	switch v {
	case inspect.More:
		return wait
	case inspect.Reject:
		return x.refuse(metrics.ListenerDownstreamListenerFilterError, mesh.DownstreamProtocolError, "listener_filter_rejected")
	case inspect.Missing:
		return x.refuse(metrics.ListenerExtensionConfigMissing, mesh.InternalError, "listener_filter_config_missing")
	}
	return x.onward(peeked, end)
}

// onward is the way from the end of the listener filters to a chain.
func (x *conn) onward(peeked []byte, end bool) state {
	if to := x.handOff(); to != nil {
		if st := x.moveTo(to); st == over {
			return over
		}
		return x.advance(peeked, end)
	}
	return x.choose()
}

// handOff returns the listener that serves the original destination, nil where it is this one. The answer is the same for
// the listener that was handed to, so there is no second hand-off.
func (x *conn) handOff() *listener {
	if !x.info.Redirected() || !x.cfg.UseOriginalDst {
		return nil
	}
	if to := x.listener.set.routes.Load().target(x.info.Local); to != x.listener {
		return to
	}
	return nil
}

// moveTo makes the connection one of another listener, whose filters look at it from the start, with their own time.
// Envoy does not apply the limit of the listener that it hands to; without it, hand-off would have no limit at all.
func (x *conn) moveTo(to *listener) state {
	x.listener.looking.remove(x)
	x.listener.left()
	x.listener, x.cfg, x.at = to, to.cfg.Load(), 0
	if x.looking != nil {
		x.setLooking(x.cfg.metrics)
	}
	open := to.open.Add(1)
	if !to.looking.add(x) {
		return x.refuse(metrics.ListenerNoFilterChainMatch, mesh.NoRoute, "listener_removed")
	}
	if open > x.cfg.limit() {
		return x.refuse(metrics.ListenerDownstreamCxOverflow, mesh.Overloaded, "listener_connection_limit")
	}
	x.setDeadline()
	return wait
}

// choose finds the chain.
func (x *conn) choose() state {
	for {
		fc := x.cfg.match.Match(&x.info)
		if fc == nil {
			return x.refuse(metrics.ListenerNoFilterChainMatch, mesh.NoRoute, "filter_chain_not_found")
		}
		ch := x.cfg.chains[fc]
		if ch.toOriginalDst && x.toItself() {
			return x.loops()
		}
		x.group.remove(x)
		if ch.conns.add(x) {
			x.chain, x.info.Owner = ch, ch
			return serve
		}
		// The chain has gone while we were looking. Its successor serves, where there is one.
		x.listener.looking.add(x)
		if next := x.listener.cfg.Load(); next != x.cfg {
			x.cfg = next
			continue
		}
		return x.refuse(metrics.ListenerNoFilterChainMatch, mesh.NoRoute, "listener_removed")
	}
}

// take gives the connection to its chain's handler.
func (x *conn) take() (now, ok bool) {
	x.setLooking(nil)
	h := x.chain.handler
	if d := x.chain.discovered; d != nil {
		x.version = d.take()
		switch {
		case x.version == nil:
			x.refuse(metrics.ListenerNetworkExtensionConfigMissing, mesh.InternalError, "network_filter_config_missing")
			return false, false
		case x.version.toOriginalDst && x.toItself():
			x.loops()
			return false, false
		}
		h = x.version.handler
	}
	x.h, now = h.Accept(x.c, &x.info)
	if x.h == nil {
		return false, false
	}
	x.activate()
	return now, true
}

// activate counts the connection as one that a chain has.
func (x *conn) activate() {
	if x.active != nil {
		return
	}
	x.active = x.cfg.metrics
	x.active.Inc(x.shard, metrics.ListenerDownstreamCxTotal)
	x.active.Inc(x.shard, metrics.ListenerDownstreamCxActive)
}

// Ready implements socket.Handler.
func (x *conn) Ready(w *socket.Worker, c *socket.Conn) (open bool) {
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
			open = false
		}
		if !open {
			x.group.end(x)
		}
	}()
	x.shard = w.Shard
	if x.h == nil {
		x.started.Store(true)
		switch x.arrive(w) {
		case wait:
			return true
		case over:
			return false
		}
		if _, ok := x.take(); !ok {
			return false
		}
		// The bytes that were looked at are still there, and there will be no other edge for them.
	}
	open = x.h.Ready(w, c)
	if h := c.Handler(); h != x {
		x.h = h
		c.Handle(x)
	}
	return open
}

// arrive brings the connection to its chain's handler.
func (x *conn) arrive(w *socket.Worker) state {
	if x.chain == nil {
		if st := x.look(); st != serve {
			return st
		}
	}
	if x.chain.tls == nil {
		return serve
	}
	return x.shake(w)
}

// look peeks at what has come and lets the listener filters see it.
func (x *conn) look() state {
	x.c.Expired() // what counts is the clock: the news may come late, and from another deadline
	if x.deadline != 0 && mono.Now() >= x.deadline {
		return x.timeout()
	}
	hungUp := x.c.HungUp() // asked first: what comes after a no may be the rest
	b := x.c.Bufs().Get()
	defer x.c.Bufs().Put(b)
	n, err := x.c.Peek(b.Free()[:x.cfg.filters.Limit()])
	st := wait
	switch err {
	case nil:
		st = x.advance(b.Free()[:n], hungUp)
	case socket.ErrWouldBlock:
	case io.EOF:
		return x.refuse(metrics.ListenerDownstreamListenerFilterRemoteClose, mesh.DownstreamClosed, "closed_during_listener_filters")
	default:
		return x.refuse(metrics.ListenerDownstreamListenerFilterError, mesh.DownstreamClosed, "reset_during_listener_filters")
	}
	if st == wait {
		x.c.SetExpire(x.deadline)
	} else {
		x.c.SetExpire(0)
	}
	return st
}

// timeout ends the listener filters, or the connection.
func (x *conn) timeout() state {
	x.count(metrics.ListenerDownstreamPreCxTimeout)
	if !x.cfg.ContinueOnTimeout {
		return x.failed(mesh.RequestReadTimeout, "listener_filters_timeout")
	}
	x.c.SetExpire(0)
	st := x.onward(nil, false)
	if st == wait {
		return x.look() // another listener's filters: what they want to see may be there already
	}
	return st
}

// Closed implements socket.Handler.
func (x *conn) Closed(c *socket.Conn) {
	if x.h != nil {
		x.closeHandler(c)
	}
	if x.version != nil {
		x.version.leave()
	}
	if x.secure != nil {
		x.listener.set.gate.Leave(&x.secure.place)
	}
	x.setLooking(nil)
	if x.active != nil {
		x.active.Dec(x.shard, metrics.ListenerDownstreamCxActive)
		x.active.Inc(x.shard, metrics.ListenerDownstreamCxDestroy)
		x.active.Observe(x.shard, metrics.ListenerDownstreamCxLengthMs, mono.Now()-x.info.Accepted)
	}
	s := x.listener.set
	if x.guarded {
		s.guard.leave(pair{x.info.DirectRemote(), x.info.Local}, s.guard.accepted)
	}
	if x.counted {
		s.conns.Add(-1)
	}
	x.group.remove(x)
	if x.chain != nil && x.chain.Draining() && x.chain.conns.isEmpty() {
		s.quiet.wake()
	}
	x.listener.left()
}

func (x *conn) closeHandler(c *socket.Conn) {
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
		}
	}()
	x.h.Closed(c)
}

// close closes a connection that the engine does not watch yet.
func (x *conn) close() {
	x.group.end(x)
	x.c.Close()
}
