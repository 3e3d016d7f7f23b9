// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// replayBytes is how much of a request's body is kept, so that another attempt can send it again.
const replayBytes = 64 << 10

// requestBody is the body of a request over all its attempts: what was read of it already, and what is still to come.
type requestBody struct {
	src codec.Body
	// kept is what was read, as far as it may be needed again; where the whole body came with the head, it is the
	// connection's own buffer.
	kept []byte
	own  []byte // the memory that kept uses otherwise
	// ended says that kept is all; lost that something was read which is not kept any more. The worker that sends the
	// body sets lost, the exchange's own asks while it does.
	ended bool
	lost  atomic.Bool
	// err is why the body cannot be read, where that shows in what came with the head.
	err error
	// replay says that another attempt is possible by the route's policy or the upstream's protocol, idempotent that it is
	// by the method.
	replay, idempotent bool
	// size counts the bytes.
	size int64
	// passTrailers says that trailer fields go upstream.
	passTrailers bool
	// messages counts those of gRPC, where the request is one of gRPC.
	grpc     bool
	messages grpcwire.Counter
}

func (b *requestBody) begin(x *exchange.Exchange, grpc bool) {
	*b = requestBody{
		src: x.Body(), own: b.own[:0], idempotent: circuit.Idempotent(x.Request.Method), grpc: grpc,
		passTrailers: takesTrailers(x),
	}
}

// count counts what was read.
func (b *requestBody) count(p []byte) {
	b.size += int64(len(p))
	if b.grpc {
		b.messages.Write(p)
	}
}

// whole returns the whole body if it is here. The first call looks; it takes nothing away.
func (b *requestBody) whole() ([]byte, bool) {
	if !b.ended && b.kept == nil && !b.lost.Load() {
		p, end, err := b.src.Buffered()
		b.count(p.Bytes())
		switch {
		case err != nil:
			b.err = err
		case end:
			b.kept, b.ended = p.Bytes(), true
		case p.Len() > 0:
			b.own = append(b.own[:0], p.Bytes()...)
			b.kept = b.own
		}
	}
	return b.kept, b.ended && !b.lost.Load()
}

// trailers returns the trailer fields that go upstream, once the body was read to its end; nil where there are none.
func (b *requestBody) trailers() *header.List {
	if t := b.src.Trailers(); b.passTrailers && t != nil && t.Len() > 0 {
		return t
	}
	return nil
}

// replayable reports whether the body can be sent from its beginning.
func (b *requestBody) replayable() bool { return !b.lost.Load() }

// keep keeps a piece for another attempt, as far as there may be one and it is not too much.
func (b *requestBody) keep(p []byte) {
	b.count(p)
	switch {
	case b.lost.Load():
	case !b.replay && !b.idempotent, len(b.kept)+len(p) > replayBytes:
		b.lost.Store(true)
		b.kept = nil
	default:
		b.own = append(b.own, p...)
		b.kept = b.own
	}
}

// upload sends a request's body on another worker, while the exchange's own waits for the answer.
type upload struct {
	x      *exchange.Exchange
	stream codec.ClientStream
	body   *requestBody
	tunnel bool

	running bool
	halt    atomic.Bool
	worker  atomic.Pointer[socket.Worker]
	done    chan struct{} // one place

	// failure is why the client's side failed; read after stop.
	failure *mesh.Failure
	// panicked is a panic of the other worker, with its stack; read after stop, "" where there was none.
	panicked string
}

var errHalted = errors.New("forward: the body is not wanted any more")

// start begins to send.
func (u *upload) start(w *socket.Worker, s codec.ClientStream, b *requestBody, x *exchange.Exchange) {
	if u.done == nil {
		u.done = make(chan struct{}, 1)
	}
	u.x, u.stream, u.body, u.failure, u.running = x, s, b, nil, true
	u.halt.Store(false)
	w.Go(u)
}

// stop ends the sending, in whatever it is, and waits until it has ended. Without a start it does nothing.
func (u *upload) stop() {
	if !u.running {
		return
	}
	u.halt.Store(true)
	if w := u.worker.Load(); w != nil {
		w.Interrupt()
	}
	<-u.done
	u.running = false
	u.x, u.stream = nil, nil
	if p := u.panicked; p != "" {
		u.panicked = ""
		panic(p) // where it can be handled: on the exchange's own worker
	}
}

// Interrupted implements socket.Owner.
func (u *upload) Interrupted() error {
	if u.halt.Load() {
		return errHalted
	}
	return nil
}

// Run implements socket.Runner.
func (u *upload) Run(w *socket.Worker) {
	w.Own(u)
	u.worker.Store(w)
	defer func() {
		if r := recover(); r != nil {
			u.panicked = fmt.Sprintf("%v, in the upload:\n%s", r, debug.Stack())
			u.x.FailElsewhere(&mesh.Failure{Kind: mesh.InternalError, Side: mesh.SideInternal})
		}
		u.worker.Store(nil)
		u.done <- struct{}{}
	}()
	if u.halt.Load() {
		return
	}
	if kept := u.body.kept; !u.tunnel && (len(kept) > 0 || u.body.ended) {
		if u.send(w, bytebuf.Of(kept), u.body.ended) != nil {
			return
		}
	}
	for !u.body.ended {
		if !u.next(w) {
			return
		}
	}
	u.x.ReadElsewhere()
}

// next moves one piece. Where the upstream does not take it, that is for the worker that reads its answer to find out.
func (u *upload) next(w *socket.Worker) bool {
	p, end, err := u.body.src.Next(w)
	if err != nil {
		if err != errHalted {
			u.failure = clientFailure(err)
			u.x.FailElsewhere(u.failure)
		}
		return false
	}
	u.x.Touch()
	if u.tunnel {
		u.body.size += int64(p.Len())
	} else {
		u.body.keep(p.Bytes())
	}
	if u.send(w, p, end) != nil {
		return false
	}
	u.body.ended = end
	return true
}

// send sends one piece, and behind the last the trailers.
func (u *upload) send(w *socket.Worker, p bytebuf.Piece, end bool) error {
	if !end || u.tunnel || u.body.trailers() == nil {
		return u.stream.Data(w, p, end)
	}
	if err := u.stream.Data(w, p, false); err != nil {
		return err
	}
	return u.stream.SendTrailers(w, u.body.trailers())
}

// clientFailure names why a request could not be read to its end.
func clientFailure(err error) *mesh.Failure {
	var refused *codec.ProtocolError
	var own *mesh.Failure
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &refused):
		return &mesh.Failure{Kind: mesh.DownstreamProtocolError, Side: mesh.SideDownstream, Detail: refused.Code}
	}
	return &mesh.Failure{Kind: mesh.DownstreamClosed, Side: mesh.SideDownstream}
}

// Error codes of RFC 9113 section 7: REFUSED_STREAM and CANCEL.
const refusedStream, cancelStream = 7, 8

// failureOf names why an attempt failed. stream is nil where there was none yet.
func failureOf(err error, stream codec.ClientStream) *mesh.Failure {
	var own *mesh.Failure
	if errors.As(err, &own) {
		return own
	}
	var refused *codec.ProtocolError
	if errors.As(err, &refused) {
		return &mesh.Failure{Kind: mesh.UpstreamProtocolError, Side: mesh.SideUpstream, Detail: refused.Code}
	}
	f := &mesh.Failure{Kind: mesh.UpstreamClosed, Side: mesh.SideUpstream}
	var reset *codec.ResetError
	if errors.As(err, &reset) {
		if reset.Unprocessed {
			f.Retry = mesh.RetryAlways
		}
		// A stream that the connection's end left out is like a stale connection; one that was refused is an answer.
		if reset.Remote && (!reset.Unprocessed || reset.Code == refusedStream) {
			f.Kind = mesh.UpstreamReset
		}
		return f
	}
	switch {
	case stream == nil || stream.Sent() == 0:
		f.Retry = mesh.RetryAlways
	case stream.Reused() && !stream.Answered():
		f.Retry = mesh.RetryIfReused
	}
	return f
}
