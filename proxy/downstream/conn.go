// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// conn is one client connection that speaks HTTP/1. Everything is owned by the worker that serves it.
type conn struct {
	link
	h1 h1.Server

	headFrom  int64 // mono: when the head that is not complete yet began; 0 where there is none
	counted   bool  // it has turned out to speak HTTP/1
	mayFollow bool  // the client may still be sending
	reset     bool  // the connection ends with a reset
}

// refusalTimeout bounds the answer to a head that is refused, to a client that may not read.
const refusalTimeout = time.Second

// Ready implements socket.Handler.
func (d *conn) Ready(w *socket.Worker, c *socket.Conn) (open bool) {
	d.shard = w.Shard
	if d.lingering {
		return d.linger()
	}
	expired := c.Expired()
	d.h1.Edge()
	var ended int64 // mono: when the last request did
	for {
		if d.h1.Dry() {
			return d.wait(ended)
		}
		st := d.m.streams1.Get().(*stream1)
		st.x.Begin(w, mono.Now(), rand.Uint64())
		ok, err := d.h1.Poll(&st.h1, &st.x.Request)
		if !ok {
			open = d.idle(w, st, err, expired)
			d.m.streams1.Put(st)
			return open
		}
		expired = false
		keep := d.serve(w, st)
		ended = st.x.Start + st.x.Outcome.Duration
		d.m.streams1.Put(st)
		if !keep {
			return d.leave()
		}
	}
}

// idle is called when there is no complete head: to wait, or to end the connection.
func (d *conn) idle(w *socket.Worker, st *stream1, err error, expired bool) (open bool) {
	switch {
	case err == nil && !expired:
		return d.wait(st.x.Start)
	case err == nil && d.h1.Pending():
		return d.refuse(w, st, &mesh.Failure{Kind: mesh.RequestReadTimeout, Side: mesh.SideDownstream}, 408, "request_header_timeout")
	case err == nil:
		d.countExpiry()
		return false
	}
	if d.requests == 0 && d.m.cfg.Codec == mesh.CodecAuto {
		if b := d.h1.TakePreface(); b != nil {
			return d.speak2(w, b)
		}
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

// speak2 goes on in HTTP/2, which the client has begun with.
func (d *conn) speak2(w *socket.Worker, begun *bytebuf.Buf) (open bool) {
	n := newConn2(d.m, d.c, d.info)
	n.h2.Preload(begun)
	d.c.Handle(n)
	return n.Ready(w, d.c)
}

// count notes that the connection speaks HTTP/1.
func (d *conn) count() {
	if !d.counted {
		d.counted = true
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxHTTP1Total)
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxHTTP1Active)
	}
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

// wait sets how long the connection may stay as it is, from now on.
func (d *conn) wait(now int64) (open bool) {
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

// serve takes one request from its head to its Outcome, and reports whether the connection can serve another.
func (d *conn) serve(w *socket.Worker, st *stream1) (keep bool) {
	d.count()
	d.requests++
	st.number = d.requests
	d.headFrom = 0
	d.c.SetExpire(0)
	previous := st.open(w, &d.link, &st.h1, d.c)
	defer func() {
		if r := recover(); r != nil {
			st.panicked(r)
		}
		keep = d.finish(st)
		w.SetDeadline(0)
		w.Own(previous)
		d.c.WatchHangUp(nil)
	}()
	st.run()
	return true
}

// finish ends a request with its Outcome, and reports whether the connection can serve another.
func (d *conn) finish(st *stream1) (keep bool) {
	keep = st.h1.Finish()
	d.mayFollow = !st.h1.Last() || !st.h1.BodyEnded()
	d.reset = st.h1.MustReset()
	d.byClient = st.x.Outcome.Failure == mesh.DownstreamClosed
	d.inFlight = st.h1.Broken() || d.byClient
	st.close(st.h1.Broken())
	return keep
}

// refuse answers a head that cannot be served, and ends the connection.
func (d *conn) refuse(w *socket.Worker, st *stream1, f *mesh.Failure, status int, details string) (open bool) {
	d.count()
	x := &st.x
	st.h1.Refuse(&d.h1, &x.Request)
	previous := st.open(w, &d.link, &st.h1, d.c)
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
	if err := x.SendLocal(nil); err != nil {
		o.Flags |= mesh.FlagDC
	}
	d.finish(st)
	return d.leave()
}

// leave ends our side of the connection. Where the client may still be sending, its bytes are read away for a moment: a
// close on unread bytes would reset the connection and could take the answer with it (RFC 9112 section 9.6).
func (d *conn) leave() (open bool) {
	follows := d.mayFollow || d.h1.Pending()
	d.h1.Close()
	if d.reset {
		d.c.Reset()
		return false
	}
	return follows && d.beginLinger(lingerBytes)
}

// Closed implements socket.Handler.
func (d *conn) Closed(*socket.Conn) {
	d.h1.Close()
	if d.counted {
		d.m.numbers.Dec(d.shard, metrics.DownstreamCxHTTP1Active)
	}
	d.closed()
}
