// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// relay passes the answer on, whose head is in x.Response, and ends the attempt.
func (c *Call) relay() {
	x := c.x
	if x.Response.Switched {
		c.openTunnel()
	}
	x.Outcome.Details = "via_upstream"
	c.decorate()
	body := c.stream.Body()
	p, end, err := body.Buffered()
	var fail *mesh.Failure
	if err != nil {
		fail = failureOf(err, c.stream)
	} else if err = c.pass(p, end, true); err == nil && x.Response.Switched {
		c.startTunnel()
	}
	for err == nil && !end {
		if p, end, err = body.Next(x.Worker); err != nil {
			fail = failureOf(err, c.stream)
			break
		}
		x.Touch()
		c.touchTry()
		x.Outcome.BytesSent += int64(p.Len())
		err = c.pass(p, end, false)
	}
	if err != nil && fail == nil {
		fail = clientFailure(err)
	}
	c.finish(fail)
}

// pass sends one piece downstream, the first together with the head. Trailers go behind the last where the client may
// have them.
func (c *Call) pass(p bytebuf.Piece, end, head bool) error {
	x := c.x
	trailers := x.Trailers
	if end {
		trailers = c.stream.Body().Trailers()
		x.Trailers = trailers
		x.Outcome.UpstreamEnd = x.Since()
	}
	last := end && (trailers == nil || !x.Manager.EnableTrailers)
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
	if fail != nil {
		c.facts.Failure = *fail
		c.conn.Failed(fail.Kind)
		if c.up.tunnel {
			c.conn.Peer.Reset() // the upstream must not take what it has for all either
		}
		c.stream.Abort()
	} else {
		c.stream.Release()
	}
	c.stream = nil
	c.ticket.Done(&c.facts, x.Random())
	if fail != nil {
		c.broke(fail)
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
	c.x.Stream.Abort()
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
