// SPDX-License-Identifier: Apache-2.0

// Package forward is the terminal HTTP filter, Envoy's router: it does what the route says. It answers redirects and
// direct responses itself; otherwise it makes attempts at the cluster until one gives an answer that is passed on, or
// there is no sense in another. It is the only loop in a request's way (steps 9 to 13).
//
//	Serve     route -> redirect | direct response | forward
//	forward   attempt, decide, perhaps wait, attempt again ...; then relay the answer, or say why there is none
//	attempt   admit, pick, connect, send, read the head of an answer
//	relay     the answer's body, and what is left of the request's
//
// Everything runs on the exchange's worker. One other worker helps where a request's body is still coming: it sends the
// body while this one waits for the answer (upload.go).
package forward

import (
	"net/netip"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// Clusters is the state that a request is pinned to.
type Clusters interface {
	// Cluster returns the cluster with this name, nil where there is none.
	Cluster(name string) *upstream.Cluster
}

// Router is the filter of one connection manager. It is immutable.
type Router struct {
	opts    mesh.Router
	numbers *metrics.HTTP
	env     *format.Env
}

// New returns the router of a connection manager that counts in numbers. Header values may name what env has.
func New(opts mesh.Router, numbers *metrics.HTTP, env *format.Env) *Router {
	return &Router{opts: opts, numbers: numbers, env: env}
}

// Call is one request's way through the router. It is kept with the exchange and reused; the zero value is ready.
type Call struct {
	r        *Router
	x        *exchange.Exchange
	clusters Clusters
	action   *mesh.RouteAction
	policy   *mesh.RetryPolicy     // nil where nothing is repeated
	target   *mesh.WeightedCluster // nil where the route takes the cluster from a header
	timeouts timeouts

	cluster *upstream.Cluster
	plan    circuit.Plan
	choice  upstream.Choice
	tried   [4]*upstream.Host
	body    requestBody
	up      upload

	// The attempt under way.
	ticket upstream.Ticket
	host   *upstream.Host
	stream pool.Stream
	facts  circuit.Attempt
	begun  int64 // since Start
	fresh  bool

	fellBack bool
	grpc     bool // the request is gRPC
	scratch  []byte

	// The answer that is passed on: whether it was read to its end, whether it is gRPC, and its messages.
	whole, grpcAnswer bool
	messages          grpcwire.Counter
	cancelled         bool // see cut
}

// Serve answers the request that x holds and has matched.
func (r *Router) Serve(c *Call, x *exchange.Exchange, clusters Clusters) {
	c.begin(r, x, clusters)
	defer c.end()
	r.numbers.Inc(x.Worker.Shard, metrics.RqTotal)
	matched := x.Match.Route
	switch {
	case x.Match.RequireTLS:
		c.requireTLS()
	case matched == nil:
		c.fail(&mesh.Failure{Kind: mesh.NoRoute, Side: mesh.SideInternal})
	case matched.Redirect != nil:
		c.redirect(matched.Redirect)
	case matched.Direct != nil:
		c.direct(matched.Direct)
	default:
		c.forward(matched.Forward)
	}
}

func (c *Call) begin(r *Router, x *exchange.Exchange, clusters Clusters) {
	c.r, c.x, c.clusters = r, x, clusters
	c.timeouts = timeouts{}
	c.choice = upstream.Choice{}
	c.choice.Rand = x.Random()
	c.fresh, c.fellBack, c.cancelled = false, false, false
	c.up.tunnel, c.up.failure = false, nil
	c.grpc, c.grpcAnswer = route.IsGRPC(&x.Request), false
	c.messages = grpcwire.Counter{}
	c.body.begin(x, c.grpc)
	// Also where it is not forwarded: a connection whose request was read whole can go on.
	if _, whole := c.body.whole(); whole {
		x.RequestRead()
	}
}

// end drops what must not outlive the request. An attempt is still under way only after a panic.
func (c *Call) end() {
	c.up.stop()
	if c.stream != nil {
		c.stream.Abort()
	}
	c.ticket.Drop()
	c.plan.Close()
	o := &c.x.Outcome
	o.BytesReceived, o.RequestMessages, o.ResponseMessages = c.body.size, c.body.messages.Messages, c.messages.Messages
	o.GRPC = o.GRPC || c.grpc
	c.r, c.x, c.clusters, c.action, c.policy, c.target, c.cluster = nil, nil, nil, nil, nil, nil, nil
	c.host, c.stream = nil, nil
	c.plan, c.ticket, c.facts = circuit.Plan{}, upstream.Ticket{}, circuit.Attempt{}
	c.tried, c.choice.Tried = [4]*upstream.Host{}, nil
}

// forward makes attempts until there is an answer to pass on, or none to hope for.
func (c *Call) forward(a *mesh.RouteAction) {
	x := c.x
	c.action = a
	if c.body.err != nil {
		c.fail(clientFailure(c.body.err))
		return
	}
	if !c.choose() {
		f := &mesh.Failure{Kind: mesh.NoCluster, Side: mesh.SideInternal}
		c.failWith(f, a.NotFoundStatus)
		return
	}
	if c.cluster.Maintenance(x.Random()) {
		c.fail(&mesh.Failure{Kind: mesh.Maintenance, Side: mesh.SideInternal})
		return
	}
	c.policy = c.prepare()
	c.plan = circuit.NewPlan(c.policy, c.cluster.Resources(a.Priority))
	if c.policy != nil && c.policy.SkipPreviousHosts {
		c.choice.Avoid = max(c.policy.HostSelectionTries, 1)
	}
	c.body.replay = c.policy != nil || x.Match.Route.Fallback != nil
	x.WatchClient()
	if x.Request.Protocol == mesh.HTTP2 {
		// Many streams are reset before their turn comes, in an attack. They are to cost the upstream nothing.
		if err := x.Interrupted(); err != nil {
			c.fail(failureOf(err, nil))
			return
		}
	}
	for {
		x.Outcome.Attempts++
		again, fail := c.decide(c.attempt())
		switch {
		case again:
		case fail == nil:
			c.relay()
			return
		case !c.fallBack(fail):
			c.fail(fail)
			return
		case c.cluster == nil:
			return // a static fallback has answered
		}
	}
}

// choose finds the cluster of the route.
func (c *Call) choose() bool {
	x := c.x
	name := ""
	if h := c.action.ClusterHeader; h != "" {
		name = string(x.Request.Header.Get(h))
	} else {
		c.target = x.Match.WeightedCluster(x.RouteRandom)
		name = c.target.Name
	}
	c.use(name)
	return c.cluster != nil
}

// use makes the named cluster the one to try.
func (c *Call) use(name string) {
	c.cluster = c.clusters.Cluster(name)
	if c.cluster == nil {
		return
	}
	c.x.Outcome.Cluster, c.x.Outcome.ClusterStat = c.cluster.Config.Name, c.cluster.Config.StatName
	c.x.Cluster = c.cluster.Stats
	c.choice.Destination = netip.AddrPort{}
	if c.x.Info.Redirected() {
		// Without a redirection the connection was for us, and would come back to us for ever.
		c.choice.Destination = c.x.Info.Local
	}
	if o := c.cluster.Config.OriginalDst; o != nil && o.HTTPHeader != "" {
		if v := c.x.Request.Header.Get(o.HTTPHeader); v != nil {
			c.choice.Destination, _ = netip.ParseAddrPort(string(v)) // none, where it says nothing that can be read
		}
	}
}

// attempt makes one attempt and reads the head of an answer into x.Response. Without a failure, the stream is open.
func (c *Call) attempt() *mesh.Failure {
	x := c.x
	shard := x.Worker.Shard
	c.facts = circuit.Attempt{Replayable: c.body.replayable(), Idempotent: c.body.idempotent, IsGRPC: c.grpc}
	c.begun, c.host, c.stream = x.Since(), nil, nil
	var fail *mesh.Failure
	c.ticket, fail = c.cluster.Admit(shard, x.Start+c.begun)
	x.Outcome.Circuit = c.ticket.State
	if fail != nil {
		c.facts.Failure = *fail
		return fail
	}
	if c.host, fail = c.ticket.Pick(&c.choice, shard); fail != nil {
		x.Outcome.Circuit = c.ticket.State
		c.ticket.Drop()
		c.facts.Failure = *fail
		return fail
	}
	x.Outcome.Circuit = c.ticket.State
	c.remember(c.host)
	if err := c.open(); err != nil {
		return c.failed(err)
	}
	if err := c.send(); err != nil {
		return c.failed(err)
	}
	if err := c.lost(); err != nil {
		x.Response.Reset()
		return c.failed(err)
	}
	c.answered()
	return nil
}

// remember notes who was tried.
func (c *Call) remember(h *upstream.Host) {
	n := min(len(c.choice.Tried), len(c.tried)-1)
	c.tried[n] = h
	c.choice.Tried = c.tried[:n+1]
	o := &c.x.Outcome
	o.Upstream, o.UpstreamHostname, o.UpstreamLocality = h.Address, h.Endpoint().Hostname, h.Group().Locality
	o.UpstreamFirst, o.UpstreamTook = -1, -1
	o.EndpointVersion = c.cluster.EndpointVersion()
}

// open gets a stream to the host.
func (c *Call) open() (err error) {
	x := c.x
	res := c.cluster.Resources(c.action.Priority)
	c.cluster.Expect(x.Request.Protocol, res, &c.choice.Request)
	c.stream, err = c.host.HTTP(x.Request.Protocol).Stream(x.Worker, res, c.fresh)
	c.fresh = false
	if err != nil {
		c.stream = nil
		return err
	}
	x.Outcome.UpstreamStart = x.Since()
	x.Outcome.UpstreamLocal = c.stream.LocalAddr()
	x.Outcome.UpstreamProtocol = c.stream.Protocol()
	c.perAttempt()
	return nil
}

// send sends the request, or begins to, and waits for the head of the final answer.
func (c *Call) send() error {
	x := c.x
	w, q, r := x.Worker, &x.Request, &x.Response
	c.startTryTimers()
	var err error
	body, whole := c.body.whole()
	if whole && x.Outcome.RequestEnd < 0 {
		x.RequestRead() // in HTTP/2 the rest may have come since begin looked
	}
	if whole && c.body.trailers() == nil {
		err = c.stream.Call(w, q, body, r)
	} else if err = c.invite(); err != nil {
		return clientFailure(err)
	} else if err = c.stream.Head(w, q); err == nil {
		// HTTP/2 can say that a request was not looked at: it is sent again then, whatever its method.
		c.body.replay = c.body.replay || c.stream.Protocol() == mesh.HTTP2
		c.up.start(w, c.stream, &c.body, x)
		err = c.stream.Answer(w, r)
	}
	for err == nil && r.Status < 200 && !r.Switched {
		if err = c.inform(); err != nil {
			return clientFailure(err)
		}
		err = c.stream.Answer(w, r)
	}
	return err
}

// lost returns why an answer of gRPC broke off behind its head, as far as that is known. A server that is killed while it
// answers breaks off there. As long as the client has nothing of the answer, such a call has failed like one without a head,
// and may be made again; without a policy for that, the client is to have what there is.
func (c *Call) lost() error {
	if !c.grpc || c.policy == nil {
		return nil
	}
	known, err := c.stream.Ended()
	if !known {
		c.x.Worker.Yield() // how it goes on may be there, and have to be read by another worker
		_, err = c.stream.Ended()
	}
	return err
}

// inform passes an interim answer on.
func (c *Call) inform() error {
	x := c.x
	if x.Response.Status == 100 {
		return x.Stream.Continue(x.Worker) // where we have not done so ourselves
	}
	return x.Stream.Inform(x.Worker, x.Response.Status, &x.Response.Header)
}

// invite tells a client that waits for it to send the body, unless that is left to the upstream.
func (c *Call) invite() error {
	x := c.x
	if !x.Manager.Proxy100Continue || !x.Request.Expect {
		return x.Stream.Continue(x.Worker)
	}
	if !x.Request.Header.HasID(header.Expect) {
		x.Request.Header.AddString("expect", "100-continue")
	}
	return nil
}

// answered takes in the head of an answer.
func (c *Call) answered() {
	x := c.x
	x.SetTryTimeout(0)
	x.Outcome.UpstreamFirst = x.Since()
	x.Outcome.UpstreamTook = x.Outcome.UpstreamFirst - c.begun
	c.facts.Status, c.facts.Sent = x.Response.Status, true
	c.facts.Answer = heads{x}
	if v := x.Response.Header.Get("grpc-status"); len(v) > 0 {
		c.facts.HasGRPC, c.facts.GRPC = true, grpcwire.Status(v)
	}
	c.grpcAnswer = c.grpc && x.Response.Status == 200 && grpcwire.IsContentType(x.Response.Header.GetID(header.ContentType))
	c.ticket.Answered(c.facts.Judged(), x.Start+x.Outcome.UpstreamFirst)
}

// failed ends an attempt that gave no answer.
func (c *Call) failed(err error) *mesh.Failure {
	x := c.x
	// Its own failure first: the worker that sends the body stops for this one's sake, too.
	f := failureOf(err, c.stream)
	c.up.stop()
	x.Settle()
	if f.Side != mesh.SideDownstream && c.up.failure != nil {
		f = c.up.failure
	}
	c.stopTryTimers()
	c.facts.Failure, c.facts.Replayable = *f, c.body.replayable()
	if c.stream != nil {
		c.facts.Sent = c.stream.Sent() > 0
		c.account()
		c.stream.Failed(f.Kind)
		c.stream.Abort()
		c.stream = nil
	}
	c.ticket.Done(&c.facts, x.Random())
	return f
}

// account adds what the attempt moved on the upstream's wire.
func (c *Call) account() {
	c.x.Outcome.UpstreamBytesSent += c.stream.Sent()
	c.x.Outcome.UpstreamBytesGotten += c.stream.Received()
}

// decide says whether to make another attempt, and waits for its time. fail is how the last one failed, nil where an
// answer came; what is returned is the failure that there is without another.
func (c *Call) decide(fail *mesh.Failure) (again bool, end *mesh.Failure) {
	x := c.x
	c.facts.Committed, c.facts.Replayable = x.Stream.Started(), c.body.replayable()
	if fail != nil && fail.Side == mesh.SideDownstream {
		return false, fail
	}
	if fail != nil && c.plan.Renew(&c.facts) {
		c.fresh = true
		c.note()
		return true, nil
	}
	d := c.plan.Next(&c.facts, x.Random())
	switch d.Reason {
	case circuit.ReasonRetryLimit:
		x.Outcome.Flags |= mesh.FlagURX
	case circuit.ReasonRetryOverflow:
		x.Outcome.Flags |= mesh.FlagUO
		c.cluster.Stats.Inc(x.Worker.Shard, metrics.UpstreamRqRetryOverflow)
	}
	if !d.Retry {
		return false, fail
	}
	if fail == nil && !c.discard() {
		return false, nil
	}
	c.note()
	if err := x.Pause(d.Wait); err != nil {
		return false, failureOf(err, nil)
	}
	return true, nil
}

// note records the attempt that will be repeated.
func (c *Call) note() {
	o := &c.x.Outcome
	c.x.AddTry(mesh.Try{Upstream: o.Upstream, Failure: c.facts.Failure.Kind, Status: c.facts.Status, Took: c.x.Since() - c.begun})
}

// discard ends an attempt whose answer is not passed on. It reports false, and leaves the answer to be passed on after
// all, where the body's sending had just come so far that it cannot begin again.
func (c *Call) discard() bool {
	c.up.stop()
	c.x.Settle()
	if !c.body.replayable() {
		c.plan.Close()
		return false
	}
	c.stopTryTimers()
	c.account()
	if _, end, err := c.stream.Body().Buffered(); end && err == nil {
		c.stream.Release()
	} else {
		c.stream.Abort()
	}
	c.stream = nil
	c.ticket.Done(&c.facts, c.x.Random())
	c.x.Response.Reset()
	return true
}
