// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// relay passes the answer on, whose head is in x.Response, and ends the attempt.
func (c *Call) relay() {
	x := c.x
	if x.Response.Switched {
		c.openTunnel()
	}
	x.Outcome.Details = "via_upstream"
	c.decorate()
	c.whole = false
	status := x.Response.Status
	body := x.PrepareAnswer((*answerBody)(c))
	if x.Response.Status != status {
		x.Outcome.ClusterStatus = status
	}
	p, end, err := body.Buffered()
	var fail *mesh.Failure
	if err != nil {
		fail = c.cut(err)
	} else if err = c.pass(body, p, end, true); err == nil && x.Response.Switched {
		c.startTunnel()
	}
	for err == nil && !end {
		if p, end, err = body.Next(x.Worker); err != nil {
			fail = c.cut(err)
			break
		}
		x.Outcome.BytesSent += int64(p.Len())
		err = c.pass(body, p, end, false)
	}
	if err != nil && fail == nil {
		fail = clientFailure(err)
	}
	c.finish(fail)
}

// cut names why the answer broke off. That the upstream has cancelled it is kept for the client: gRPC servers do so at a
// call's deadline, of which the client need not have heard yet.
func (c *Call) cut(err error) *mesh.Failure {
	var reset *codec.ResetError
	c.cancelled = errors.As(err, &reset) && reset.Remote && reset.Code == cancelStream
	return failureOf(err, c.stream)
}

// answerBody is a Call as the body of its answer, as the upstream sends it: it minds the timers, and counts.
type answerBody Call

// Buffered implements codec.Body.
func (b *answerBody) Buffered() (bytebuf.Piece, bool, error) {
	p, end, err := b.stream.Body().Buffered()
	if err == nil {
		b.got(p, end)
	}
	return p, end, err
}

// Next implements codec.Body.
func (b *answerBody) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	p, end, err := b.stream.Body().Next(w)
	if err == nil {
		b.x.Touch()
		(*Call)(b).touchTry()
		b.got(p, end)
	}
	return p, end, err
}

// Trailers implements codec.Body.
func (b *answerBody) Trailers() *header.List { return b.stream.Body().Trailers() }

func (b *answerBody) got(p bytebuf.Piece, end bool) {
	if b.grpcAnswer {
		b.messages.Write(p.Bytes())
	}
	if end {
		b.whole = true
		b.x.Outcome.UpstreamEnd = b.x.Since()
		b.x.Trailers = b.Trailers()
	}
}

// pass sends one piece downstream, the first together with the head. Trailers go behind the last where the client may
// have them.
func (c *Call) pass(body codec.Body, p bytebuf.Piece, end, head bool) error {
	x := c.x
	var trailers *header.List
	if end {
		trailers = body.Trailers()
	}
	last := end && (trailers == nil || !takesTrailers(x))
	var err error
	switch {
	case head:
		err = x.Send(p, last)
	case p.Len() > 0 || last:
		err = x.Stream.Data(x.Worker, p, last)
	}
	if err == nil && end && !last {
		err = x.Stream.SendTrailers(x.Worker, trailers)
	}
	return err
}

// takesTrailers reports whether trailer fields go to the client, and are taken from it: in HTTP/2 always, in HTTP/1 where
// the configuration says so.
func takesTrailers(x *exchange.Exchange) bool {
	return x.Manager.EnableTrailers || x.Request.Protocol == mesh.HTTP2
}

// finish ends the attempt whose answer was passed on, as far as it came.
func (c *Call) finish(fail *mesh.Failure) {
	x := c.x
	c.up.stop()
	x.Settle()
	if fail != nil && fail.Side != mesh.SideDownstream && c.up.failure != nil {
		fail = c.up.failure
	}
	c.account()
	c.stopTryTimers()
	x.KeepTrailers()
	if fail != nil {
		c.facts.Failure = *fail
		c.stream.Failed(fail.Kind)
		if c.up.tunnel {
			c.stream.ResetTunnel() // the upstream must not take what it has for all either
		}
		c.stream.Abort()
	} else if c.whole {
		c.learnGRPC()
		c.stream.Release()
	} else {
		c.stream.Abort() // a filter wanted no more of it
	}
	c.stream = nil
	c.ticket.Done(&c.facts, x.Random())
	if fail != nil {
		c.broke(fail)
	}
}

// learnGRPC notes what the end of a gRPC answer says of the attempt: its grpc-status is in the trailers.
func (c *Call) learnGRPC() {
	if t := c.x.Trailers; c.grpc && t != nil && t.Has("grpc-status") {
		c.facts.LateFailure = grpcwire.HTTPStatus(grpcwire.Status(t.Get("grpc-status"))) >= 500
	}
}

// broke notes that an answer did not come to its end. A client that has its beginning finds out by the connection's end.
func (c *Call) broke(f *mesh.Failure) {
	if !c.x.Stream.Started() {
		c.fail(f)
		return
	}
	o := &c.x.Outcome
	o.Failure, o.Side = f.Kind, f.Side
	if o.Details = brokenDetails(f.Kind); f.Kind == mesh.MaxDuration && f.Side == mesh.SideDownstream {
		o.Details = "max_duration_timeout"
	} else {
		o.Flags |= f.Kind.Info().Flag
	}
	o.TransportFailure = f.Detail
	c.x.Stream.Abort(c.cancelled)
}

// brokenDetails are Envoy's response code details of an answer that broke off.
func brokenDetails(k mesh.FailureKind) string {
	switch k {
	case mesh.DownstreamClosed:
		return "downstream_remote_disconnect"
	case mesh.UpstreamProtocolError:
		return "upstream_reset_after_response_started{protocol_error}"
	case mesh.UpstreamClosed:
		return "upstream_reset_after_response_started{connection_termination}"
	case mesh.UpstreamReset:
		return "upstream_reset_after_response_started{remote_reset}"
	}
	return k.Info().Details
}

// openTunnel lets bytes flow both ways once the upstream has switched protocols. The client's half may end before the
// other.
func (c *Call) openTunnel() {
	x := c.x
	x.IgnoreClient()
	x.ClearDeadline(exchange.RequestDeadline)
	x.SetTimeout(0)
}

// startTunnel begins to send what the client says, after it was told of the switch.
func (c *Call) startTunnel() {
	c.body.ended, c.body.kept = false, nil
	c.body.lost.Store(true)
	c.up.tunnel = true
	c.up.start(c.x.Worker, c.stream, &c.body, c.x)
}
