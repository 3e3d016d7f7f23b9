// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
)

// redirect answers with the route's Location.
func (c *Call) redirect(d *mesh.Redirect) {
	c.r.numbers.Inc(c.x.Worker.Shard, metrics.RqRedirect)
	c.location(d.Status)
}

// requireTLS answers a plain request to a virtual host that wants https.
func (c *Call) requireTLS() { c.location(301) }

func (c *Call) location(status int) {
	x := c.x
	c.scratch = x.Match.Location(c.scratch[:0], &x.Request)
	x.Answer(status, "direct_response", nil)
	x.Response.Header.Add("location", c.scratch)
	c.decorate()
	c.sendLocal(nil)
}

// direct answers with the route's own response.
func (c *Call) direct(d *mesh.DirectResponse) {
	c.r.numbers.Inc(c.x.Worker.Shard, metrics.RqDirectResponse)
	c.static(d, nil, "direct_response")
}

// static answers with a configured response.
func (c *Call) static(d *mesh.DirectResponse, add []mesh.HeaderAdd, details string) {
	x := c.x
	body := d.Body
	if d.Format != nil {
		body = c.r.env.Append(nil, d.Format, &x.Outcome, format.LogOmitEmpty)
	}
	x.Answer(d.Status, details, body)
	c.decorate()
	c.add(&x.Response.Header, add)
	c.sendLocal(body)
}

// sendLocal sends an answer of our own.
func (c *Call) sendLocal(body []byte) {
	x := c.x
	if err := x.SendLocal(body); err != nil {
		f := clientFailure(err)
		x.Outcome.Failure, x.Outcome.Side = f.Kind, f.Side
		x.Outcome.Flags |= f.Kind.Info().Flag
	}
}

// fail answers for a request that has none from upstream.
func (c *Call) fail(f *mesh.Failure) { c.failWith(f, 0) }

// failWith is fail with a status in place of the failure's own, where it is not 0.
func (c *Call) failWith(f *mesh.Failure, status int) {
	x := c.x
	i := f.Kind.Info()
	if f.Kind == mesh.MaxDuration && f.Side == mesh.SideDownstream {
		i.Flag, i.Details = 0, "max_duration_timeout"
	}
	if f.Reply != nil {
		i.Flag, i.Status, i.Details = 0, f.Reply.Status, f.Reply.Details
	}
	o := &x.Outcome
	o.Failure, o.Side, o.Details = f.Kind, f.Side, i.Details
	o.Flags |= i.Flag
	if f.Side == mesh.SideUpstream || f.Kind == mesh.Overflow {
		o.TransportFailure = f.Detail
	}
	if status == 0 {
		status = i.Status
	}
	late := f.Kind == mesh.StreamIdleTimeout || f.Kind == mesh.MaxDuration
	switch {
	case late && f.Side == mesh.SideDownstream && o.RequestEnd < 0:
		status = 408 // it was the client that did not go on
	case status == 0 || x.Stream.Started():
		x.Stream.CloseAfter()
		return
	}
	body := c.words(f)
	x.Answer(status, i.Details, []byte(body))
	if f.Kind == mesh.Overflow || f.Kind == mesh.CircuitOpen || f.Kind == mesh.Maintenance {
		x.Response.Header.AddString(hdrOverloaded, "true")
	}
	if f.Kind != mesh.NoRoute {
		c.decorate()
	}
	c.sendLocal([]byte(body))
}

// words returns what a client reads of a failure, in Envoy's words where it has some; never an address.
func (c *Call) words(f *mesh.Failure) string {
	if f.Reply != nil {
		return f.Reply.Body
	}
	if f.Kind == mesh.MaxDuration && f.Side == mesh.SideDownstream {
		return "downstream duration timeout"
	}
	if reset, ok := resets[f.Kind]; ok {
		if c.x.Outcome.Attempts > 1 {
			return beforeHeaders + "retried and the latest reset reason: " + reset
		}
		return beforeHeaders + "reset reason: " + reset
	}
	return bodies[f.Kind]
}

const beforeHeaders = "upstream connect error or disconnect/reset before headers. "

var resets = map[mesh.FailureKind]string{
	mesh.Overflow:              "overflow",
	mesh.ConnectFailure:        "remote connection failure",
	mesh.ConnectTimeout:        "connection timeout",
	mesh.UpstreamReset:         "remote reset",
	mesh.UpstreamClosed:        "connection termination",
	mesh.UpstreamProtocolError: "protocol error",
}

var bodies = map[mesh.FailureKind]string{
	mesh.NoHealthyHost:           "no healthy upstream",
	mesh.CircuitOpen:             "circuit open",
	mesh.Maintenance:             "maintenance mode",
	mesh.RequestTimeout:          "upstream request timeout",
	mesh.PerTryTimeout:           "upstream request timeout",
	mesh.StreamIdleTimeout:       "stream timeout",
	mesh.RequestReadTimeout:      "request timeout",
	mesh.MaxDuration:             "upstream max stream duration reached",
	mesh.DownstreamProtocolError: "bad request",
	mesh.Overloaded:              "envoy overloaded",
	mesh.InternalError:           "internal error",
}

// fallBack lets the route's fallback answer a failure, once. It reports whether it took over: with another cluster to try
// (c.cluster), or with an answer that is out (c.cluster is nil then).
func (c *Call) fallBack(f *mesh.Failure) bool {
	x := c.x
	fb := x.Match.Route.Fallback
	if fb == nil || c.fellBack || fb.On&reasonFor(f.Kind) == 0 || x.Stream.Started() || !c.body.replayable() {
		return false
	}
	c.fellBack = true
	if fb.Response != nil {
		x.Outcome.Fallback = true
		x.Outcome.Failure, x.Outcome.Side = f.Kind, f.Side
		x.Outcome.Flags |= f.Kind.Info().Flag
		c.cluster = nil
		c.static(fb.Response, fb.Headers, "fallback")
		return true
	}
	next := c.clusters.Cluster(fb.Cluster)
	if next == nil {
		return false
	}
	x.Outcome.Fallback = true
	c.note()
	c.plan.Close()
	c.use(fb.Cluster)
	c.choice.Tried = nil
	c.plan = circuit.NewPlan(c.policy, c.cluster.Resources(c.action.Priority))
	return true
}

func reasonFor(kind mesh.FailureKind) mesh.FallbackOn {
	switch kind {
	case mesh.CircuitOpen:
		return mesh.FallbackOnOpenCircuit
	case mesh.NoHealthyHost:
		return mesh.FallbackOnNoHealthyHost
	case mesh.Overflow:
		return mesh.FallbackOnOverflow
	case mesh.ConnectFailure, mesh.ConnectTimeout:
		return mesh.FallbackOnConnectFailure
	}
	return 0
}

// heads lets the retry policy look at the answer's headers.
type heads struct{ x *exchange.Exchange }

// Matches implements circuit.Answer.
func (h heads) Matches(m *mesh.HeaderMatch) bool {
	return route.MatchFields(m, &h.x.Response.Header) == route.Yes
}

// startTryTimers begins the deadlines of one attempt.
func (c *Call) startTryTimers() {
	c.x.SetTryTimeout(c.timeouts.try)
	c.x.After(exchange.TryIdleDeadline, c.timeouts.tryIdle)
	c.x.After(exchange.TryMaxDeadline, c.cluster.Config.HTTP.MaxStreamDuration)
}

func (c *Call) stopTryTimers() {
	c.x.SetTryTimeout(0)
	c.x.ClearDeadline(exchange.TryIdleDeadline)
	c.x.ClearDeadline(exchange.TryMaxDeadline)
}

// touchTry begins the idle deadline of the attempt anew.
func (c *Call) touchTry() {
	if c.timeouts.tryIdle > 0 {
		c.x.After(exchange.TryIdleDeadline, c.timeouts.tryIdle)
	}
}
