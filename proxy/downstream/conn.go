// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// conn is one client connection. Everything is owned by the worker that serves it.
type conn struct {
	m    *Manager
	c    *socket.Conn
	info *inspect.ConnInfo
	h1   h1.Server

	requests int
	headFrom int64 // mono: when the head that is not complete yet began; 0 where there is none
	shard    uint32
	// lingering says that our side has ended and the client's rest is read away; left is how much of it at most.
	lingering bool
	left      int
	byClient  bool // it was the client that ended the connection
	inFlight  bool // a request was cut off by the end
	mayFollow bool // the client may still be sending
	reset     bool // the connection ends with a reset
}

// refusalTimeout bounds the answer to a head that is refused, to a client that may not read.
const refusalTimeout = time.Second

// lingerBytes is how much of what a client still sends is read away before its connection is closed.
const lingerBytes = 1 << 20

// Ready implements socket.Handler.
func (d *conn) Ready(w *socket.Worker, c *socket.Conn) (open bool) {
	d.shard = w.Shard
	if d.lingering {
		return d.linger()
	}
	expired := c.Expired()
	d.h1.Edge()
	for {
		if d.h1.Dry() {
			return d.wait()
		}
		st := d.m.streams.Get().(*stream)
		st.x.Begin(w, mono.Now(), rand.Uint64())
		ok, err := d.h1.Poll(&st.h1, &st.x.Request)
		if !ok {
			open = d.idle(w, st, err, expired)
			d.m.streams.Put(st)
			return open
		}
		expired = false
		keep := d.serve(w, st)
		d.m.streams.Put(st)
		if !keep {
			return d.leave()
		}
	}
}

// idle is called when there is no complete head: to wait, or to end the connection.
func (d *conn) idle(w *socket.Worker, st *stream, err error, expired bool) (open bool) {
	switch {
	case err == nil && !expired:
		return d.wait()
	case err == nil && d.h1.Pending():
		return d.refuse(w, st, &mesh.Failure{Kind: mesh.RequestReadTimeout, Side: mesh.SideDownstream}, 408, "request_header_timeout")
	case err == nil:
		d.countExpiry()
		return false
	}
	var refused *codec.ProtocolError
	if errors.As(err, &refused) {
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxProtocolError)
		f := &mesh.Failure{Kind: mesh.DownstreamProtocolError, Side: mesh.SideDownstream, Detail: refused.Code}
		return d.refuse(w, st, f, refused.Status, "http1."+refused.Code)
	}
	d.byClient = err == io.EOF || d.c.HungUp()
	return false
}

// countExpiry counts why a connection without a request was closed.
func (d *conn) countExpiry() {
	switch {
	case d.tooOld():
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxMaxDurationReached)
	case d.draining():
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxDrainClose)
	case d.requests > 0:
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxIdleTimeout)
	}
}

// wait sets how long the connection may stay as it is.
func (d *conn) wait() (open bool) {
	now := mono.Now()
	head := d.m.cfg.RequestHeadersTimeout
	if head == 0 {
		head = headersTimeout
	}
	var until int64
	switch {
	case d.h1.Pending():
		if d.headFrom == 0 {
			d.headFrom = now
			if d.requests == 0 {
				d.headFrom = d.info.Accepted // one time for all until the first head is complete
			}
		}
		until = d.headFrom + int64(head)
	case d.requests == 0:
		until = d.info.Accepted + int64(head)
	case d.draining():
		// Long enough for a client that is just about to use it, and is then told to close.
		until = now + int64(d.m.cfg.DrainTimeout)
	default:
		if t := d.m.cfg.IdleTimeout; t > 0 {
			until = now + int64(t)
		}
	}
	if t := d.m.cfg.MaxConnectionDuration; t > 0 {
		if end := d.info.Accepted + int64(t); until == 0 || end < until {
			until = end
		}
	}
	d.c.SetExpire(until)
	return true
}

func (d *conn) draining() bool { return d.info.Owner.Draining() }

// tooOld reports whether the connection has lasted as long as it may.
func (d *conn) tooOld() bool {
	t := d.m.cfg.MaxConnectionDuration
	return t > 0 && mono.Now()-d.info.Accepted >= int64(t)
}

// serve takes one request from its head to its Outcome, and reports whether the connection can serve another.
func (d *conn) serve(w *socket.Worker, st *stream) (keep bool) {
	d.requests++
	d.headFrom = 0
	d.c.SetExpire(0)
	previous := st.open(w, d)
	defer func() {
		if r := recover(); r != nil {
			st.panicked(r)
		}
		keep = st.close()
		w.SetDeadline(0)
		w.Own(previous)
		d.c.WatchHangUp(nil)
	}()
	st.run()
	return true
}

// refuse answers a head that cannot be served, and ends the connection.
func (d *conn) refuse(w *socket.Worker, st *stream, f *mesh.Failure, status int, details string) (open bool) {
	x := &st.x
	st.h1.Refuse(&d.h1, &x.Request)
	previous := st.open(w, d)
	defer func() {
		w.SetDeadline(0)
		w.Own(previous)
	}()
	x.After(exchange.MaxDeadline, refusalTimeout)
	x.Stream.CloseAfter()
	o := &x.Outcome
	o.Failure, o.Side = f.Kind, f.Side
	o.Flags |= f.Kind.Info().Flag
	x.Answer(status, details, nil)
	if err := x.Send(bytebuf.Piece{}, true); err != nil {
		o.Flags |= mesh.FlagDC
	}
	st.close()
	return d.leave()
}

// leave ends our side of the connection. Where the client may still be sending, its bytes are read away for a moment: a
// close on unread bytes would reset the connection and could take the answer with it (RFC 9112 section 9.6).
func (d *conn) leave() (open bool) {
	follows := d.mayFollow || d.h1.Pending()
	d.h1.Close()
	delay := d.m.cfg.DelayedCloseTimeout
	if d.reset {
		d.c.Reset()
		return false
	}
	// Also where the client has ended its side: bytes of before that may still be unread.
	if !follows || delay <= 0 || d.c.CloseWrite() != nil {
		return false
	}
	d.lingering, d.left = true, lingerBytes
	d.c.SetExpire(mono.Now() + int64(delay))
	return d.linger()
}

// linger reads away what the client sends, until it closes or the time is over.
func (d *conn) linger() (open bool) {
	if d.c.Expired() {
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxDelayedCloseTimeout)
		return false
	}
	b := d.c.Bufs().Get()
	defer d.c.Bufs().Put(b)
	for d.left > 0 {
		n, err := d.c.TryRead(b.Free())
		if err == socket.ErrWouldBlock {
			return true
		}
		if err != nil {
			return false
		}
		d.left -= n
	}
	return false
}

// Closed implements socket.Handler.
func (d *conn) Closed(*socket.Conn) {
	d.h1.Close()
	n := d.m.numbers
	n.Dec(d.shard, metrics.DownstreamCxActive)
	n.Dec(d.shard, metrics.DownstreamCxHTTP1Active)
	n.Observe(d.shard, metrics.DownstreamCxLengthMs, mono.Now()-d.info.Accepted)
	switch {
	case d.byClient && d.inFlight:
		n.Inc(d.shard, metrics.DownstreamCxDestroyRemoteActiveRq)
	case d.inFlight:
		n.Inc(d.shard, metrics.DownstreamCxDestroyLocalActiveRq)
	}
	if d.byClient {
		n.Inc(d.shard, metrics.DownstreamCxDestroyRemote)
	} else {
		n.Inc(d.shard, metrics.DownstreamCxDestroyLocal)
	}
}

// panicked answers for a request whose handling broke an invariant. Only this request is lost.
func (st *stream) panicked(r any) {
	d := st.d
	d.m.deps.Log.Error("a request's handling panicked; it was answered with 500 and its connection closed",
		zap.String("listener", d.m.listener.Name), zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
	x := &st.x
	x.Stream.Abort()
	o := &x.Outcome
	o.Failure, o.Side = mesh.InternalError, mesh.SideInternal
	if !x.Stream.Started() {
		x.Answer(500, "internal_error", nil)
		x.Outcome.Status = 500
		_ = x.Stream.Head(x.Worker, &x.Response, bytebuf.Piece{}, true) // the connection closes either way
	}
}
