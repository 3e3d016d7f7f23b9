// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// conn2 is one client connection that speaks HTTP/2. Its turn (Ready) belongs to one worker at a time; each of its streams
// is served by a worker of its own, and may outlive it.
type conn2 struct {
	link
	h2 h2.Server

	// These belong to the turn.
	w       *socket.Worker
	opening *stream2 // whose head is being read
	// first and last are of the requests that are for the next HandOut.
	first, last *stream2
	told        bool // the client knows that the connection is to end

	idleSince atomic.Int64 // mono: when the last stream ended
	users     atomic.Int64 // the connection itself, and its streams
}

// stream2 is a request in flight on HTTP/2.
type stream2 struct {
	stream
	h2   h2.ServerStream
	conn *conn2
	next *stream2 // for the same HandOut
}

func newConn2(m *Manager, c *socket.Conn, info *inspect.ConnInfo) *conn2 {
	d := &conn2{link: link{m: m, c: c, info: info}}
	d.h2.Init(c, c.Bufs(), &m.http2, d)
	d.idleSince.Store(info.Accepted)
	d.users.Store(1)
	m.users.Add(1)
	m.deps.Busy.Add(1)
	m.numbers.Inc(0, metrics.DownstreamCxHTTP2Total)
	m.numbers.Inc(0, metrics.DownstreamCxHTTP2Active)
	return d
}

// Ready implements socket.Handler.
func (d *conn2) Ready(w *socket.Worker, c *socket.Conn) (open bool) {
	d.shard = w.Shard
	if d.lingering {
		return d.linger()
	}
	c.Expired() // the turn looks at all that time asks for
	now := mono.Now()
	defer func() {
		if v := recover(); v != nil {
			d.h2.Close(w, h2.InternalError) // no stream may write to a descriptor that is about to be closed
			panic(v)
		}
	}()
	d.drain()
	d.w = w
	err := d.h2.Turn(w, now)
	d.w = nil
	if err == nil && d.late(now) {
		err = h2.ErrDrained
		d.h2.Close(w, h2.NoError)
	}
	if err != nil {
		return d.leave(err)
	}
	d.wait(now)
	return true
}

// drain tells the client once that the connection is to end. One that has not asked yet is served first: many take a
// GOAWAY before their first stream for a connection that cannot be had, and do not try again.
func (d *conn2) drain() {
	if d.told || d.requests == 0 {
		return
	}
	switch {
	case d.draining():
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxDrainClose)
	case d.tooOld():
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxMaxDurationReached)
	default:
		return
	}
	d.told = true
	d.h2.Drain()
}

// late reports whether the time is over for a first request. A connection that nobody uses any more is drained, as in
// Envoy: the end of an answer may still be on its way, or a request.
func (d *conn2) late(now int64) bool {
	switch t := d.due(); {
	case t == 0 || now < t || d.h2.Streams() > 0:
		return false
	case d.requests == 0:
		return true
	}
	d.m.numbers.Inc(d.shard, metrics.DownstreamCxIdleTimeout)
	d.told = true
	d.h2.Drain()
	return false
}

// due is when a connection without streams ends (mono); 0 for never, also for one that ends already.
func (d *conn2) due() int64 {
	switch {
	case d.requests > 0 && d.told:
		return 0
	case d.requests == 0:
		t := d.m.cfg.RequestHeadersTimeout
		if t == 0 {
			t = headersTimeout
		}
		return d.info.Accepted + int64(t)
	}
	if t := d.m.cfg.IdleTimeout; t > 0 {
		return d.idleSince.Load() + int64(t)
	}
	return 0
}

// wait sets when the connection is to be looked at in any case. While it has streams, that is no later than it could be
// idle for too long: the end of a stream does not set a time of its own.
func (d *conn2) wait(now int64) {
	until := d.due()
	if until != 0 && d.h2.Streams() > 0 {
		until = now + int64(d.m.cfg.IdleTimeout)
	}
	if t := d.m.cfg.MaxConnectionDuration; t > 0 && !d.told {
		if end := d.info.Accepted + int64(t); until == 0 || end < until {
			until = end
		}
	}
	d.h2.SetExpire(until)
}

// leave ends the connection, whose codec has ended already.
func (d *conn2) leave(err error) (open bool) {
	d.inFlight = d.h2.Streams() > 0
	var fault *h2.ConnError
	rest := lingerBytes
	switch {
	case err == h2.ErrDrained:
	case errors.As(err, &fault):
		if fault.Code == h2.EnhanceYourCalm {
			rest = lingerBytesAbused
		}
		if d.byClient = fault.Remote; !fault.Remote {
			d.m.numbers.Inc(d.shard, metrics.DownstreamCxProtocolError)
		}
	default:
		d.byClient = true
		return false
	}
	return d.beginLinger(rest)
}

// Closed implements socket.Handler.
func (d *conn2) Closed(*socket.Conn) {
	d.m.numbers.Dec(d.shard, metrics.DownstreamCxHTTP2Active)
	d.closed()
	d.leaves()
}

// leaves is called at the end of the connection and of each stream. The last lets go of the manager.
func (d *conn2) leaves() {
	if d.users.Add(-1) == 0 {
		d.m.leave()
		d.m.deps.Busy.Done()
	}
}

// Open implements h2.Acceptor.
func (d *conn2) Open() (*h2.ServerStream, *codec.Request) {
	st := d.m.streams2.Get().(*stream2)
	st.conn = d
	d.users.Add(1)
	st.x.Begin(d.w, mono.Now(), rand.Uint64())
	d.opening = st
	d.requests++
	return &st.h2, &st.x.Request
}

// Serve implements h2.Acceptor.
func (d *conn2) Serve(*h2.ServerStream) {
	st := d.opening
	d.opening = nil
	st.number = d.requests
	if d.last == nil {
		d.first = st
	} else {
		d.last.next = st
	}
	d.last = st
}

// HandOut implements h2.Acceptor. In an attack, most streams have been reset by then.
func (d *conn2) HandOut(w *socket.Worker) {
	for d.first != nil {
		st := d.first
		d.first, st.next = st.next, nil
		if _, reset := st.h2.Reset(); reset && st.h2.Refused() == nil {
			st.takeBack(w)
		} else {
			w.Go(st)
		}
	}
	d.last = nil
}

// Drop implements h2.Acceptor: a request that nobody could read was reset.
func (d *conn2) Drop(_ *h2.ServerStream, why string) {
	d.m.numbers.Inc(d.shard, metrics.DownstreamCxProtocolError)
	d.drop(mesh.DownstreamProtocolError, mesh.SideDownstream, "http2."+why)
}

// Refused implements h2.Acceptor.
func (d *conn2) Refused() {
	d.Open()
	d.drop(mesh.LocalReset, mesh.SideInternal, "http2.stream_refused")
}

// drop ends a request that was reset before anybody could serve it, with its Outcome.
func (d *conn2) drop(kind mesh.FailureKind, side mesh.Side, details string) {
	st := d.opening
	d.opening = nil
	st.number = d.requests
	previous := st.open(d.w, &d.link, nil, nil)
	st.failed(kind, side, details)
	st.x.Outcome.Duration = mono.Now() - st.x.Start
	st.observe()
	d.w.Own(previous)
	st.conn = nil
	d.m.streams2.Put(st)
	d.leaves()
}

// failed notes how a request ended that was not served.
func (st *stream2) failed(kind mesh.FailureKind, side mesh.Side, details string) {
	o := &st.x.Outcome
	o.Failure, o.Side, o.Details = kind, side, details
	o.Flags |= kind.Info().Flag
}

// takeBack ends a request whose stream was reset before anybody looked at it: without a worker, a filter or an attempt, and
// with an Outcome that tells what was asked for.
func (st *stream2) takeBack(w *socket.Worker) {
	x := &st.x
	previous := st.open(w, &st.conn.link, &st.h2, &st.h2)
	st.asked()
	if t := st.d.m.table(st.live, &x.Request); t != nil {
		st.tell(t)
		x.Match = t.Routes.Match(&x.Request, x.RouteRandom)
		st.nameRoute()
	}
	kind := mesh.DownstreamClosed
	st.failed(kind, mesh.SideDownstream, kind.Info().Details)
	st.finish(w, previous)
}

// Run implements socket.Runner: it takes the request from its head to its Outcome.
func (st *stream2) Run(w *socket.Worker) {
	st.x.Worker, st.x.Outcome.Shard = w, w.Shard
	previous := st.open(w, &st.conn.link, &st.h2, &st.h2)
	defer func() {
		if r := recover(); r != nil {
			st.panicked(r)
		}
		w.SetDeadline(0)
		st.finish(w, previous)
	}()
	if refused := st.h2.Refused(); refused != nil {
		st.refuse(refused)
		return
	}
	st.run()
}

// finish ends the request with its Outcome, and gives up the stream.
func (st *stream2) finish(w *socket.Worker, previous socket.Owner) {
	d := st.conn
	st.close(st.h2.Broken())
	w.Own(previous)
	d.idleSince.Store(mono.Now()) // before the turn can find no stream
	st.h2.Finish()
	st.conn = nil
	d.m.streams2.Put(st)
	d.leaves()
}

// refuse answers a request whose head cannot be served.
func (st *stream2) refuse(why *codec.ProtocolError) {
	x := &st.x
	x.After(exchange.MaxDeadline, refusalTimeout)
	o := &x.Outcome
	o.Failure, o.Side = mesh.DownstreamProtocolError, mesh.SideDownstream
	o.Flags |= mesh.DownstreamProtocolError.Info().Flag
	x.Answer(why.Status, "http2."+why.Code, nil)
	if err := x.Send(bytebuf.Piece{}, true); err != nil {
		o.Flags |= mesh.FlagDC
	}
}
