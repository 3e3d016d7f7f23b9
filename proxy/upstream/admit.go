// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// Ticket is an admitted attempt. Done or Drop ends it, exactly once.
type Ticket struct {
	c       *Cluster
	h       *Host
	res     *circuit.Resources
	permit  circuit.Permit
	started int64
	// State is the circuit's state as the attempt met it.
	State mesh.CircuitState
}

// Admit asks the cluster's circuit and its limit of requests. The failure is CircuitOpen or Overflow.
func (c *Cluster) Admit(p mesh.Priority, shard uint32) (Ticket, *mesh.Failure) {
	t := Ticket{c: c, res: c.res[p], started: mono.Now()}
	if !c.used.Load() {
		c.traffic()
	}
	if c.breaker != nil {
		v := c.breaker.Admit(t.started)
		c.transition(v.Transition, nil)
		t.State = v.State
		if !v.Admitted {
			c.numbers.circuit.Inc(shard, metrics.CircuitRefused)
			return t, circuitOpen()
		}
		t.permit = v.Permit
	}
	if !t.res.Acquire(circuit.Requests) {
		t.permit.Drop()
		return t, &mesh.Failure{Kind: mesh.Overflow, Side: mesh.SideInternal, Retry: mesh.RetryAlways, Detail: "too many requests"}
	}
	return t, nil
}

func circuitOpen() *mesh.Failure {
	return &mesh.Failure{Kind: mesh.CircuitOpen, Side: mesh.SideInternal, Retry: mesh.RetryAlways, Detail: "the circuit is open"}
}

// Choice is what a pick may go by, and what it must avoid.
type Choice struct {
	lb.Request
	// Destination is where the connection was going, for an original-destination cluster.
	Destination netip.AddrPort
	// Tried are the hosts that earlier attempts used; Avoid is how often to pick anew to miss them.
	Tried []*Host
	Avoid int
}

// Pick chooses a host for the ticket's attempt. The failure is NoHealthyHost, or CircuitOpen where each host has its own
// circuit and none admits.
func (t *Ticket) Pick(ch *Choice, shard uint32) (*Host, *mesh.Failure) {
	c := t.c
	if c.Config.Discovery == mesh.OriginalDestination {
		return t.use(c.original(ch.Destination), shard)
	}
	st := c.now.Load()
	for n := 0; ; n++ {
		i, panicked := st.set.Pick(&ch.Request)
		if i < 0 {
			return nil, noHost("no healthy upstream")
		}
		if panicked && n == 0 {
			c.Stats.Inc(shard, metrics.LBHealthyPanic)
		}
		h := st.hosts[i]
		if n < ch.Avoid && tried(ch.Tried, h) {
			continue
		}
		host, fail := t.use(h, shard)
		if fail == nil || n >= ch.Avoid+len(st.hosts) {
			return host, fail
		}
		// This host's own circuit refuses: look further, and in the end at each.
		if n >= ch.Avoid+2 {
			return t.any(st, shard)
		}
	}
}

// any finds a host whose circuit admits, in order.
func (t *Ticket) any(st *state, shard uint32) (*Host, *mesh.Failure) {
	for _, h := range st.hosts {
		if h.Health() == lb.Unhealthy {
			continue
		}
		if host, fail := t.use(h, shard); fail == nil {
			return host, nil
		}
	}
	t.c.numbers.circuit.Inc(shard, metrics.CircuitRefused)
	return nil, circuitOpen()
}

func tried(hosts []*Host, h *Host) bool {
	for _, o := range hosts {
		if o == h {
			return true
		}
	}
	return false
}

func noHost(detail string) *mesh.Failure {
	return &mesh.Failure{Kind: mesh.NoHealthyHost, Side: mesh.SideInternal, Retry: mesh.RetryAlways, Detail: detail}
}

// use makes h the ticket's host, if its own circuit admits.
func (t *Ticket) use(h *Host, shard uint32) (*Host, *mesh.Failure) {
	if h == nil {
		return nil, noHost("no original destination")
	}
	if h.breaker != nil {
		v := h.breaker.Admit(t.started)
		t.c.transition(v.Transition, h)
		t.State = v.State
		if !v.Admitted {
			return nil, circuitOpen()
		}
		t.permit = v.Permit
	}
	t.h = h
	h.lbHost.Active.Add(1)
	h.numbers.total.Add(1)
	return h, nil
}

// Answered tells the circuit that the head of an answer came: what it goes by, so that a stream that lasts for hours
// does not hold it up.
func (t *Ticket) Answered(status int) {
	now := mono.Now()
	t.c.transition(t.permit.Done(now, circuit.Result{Failure: t.fails(status), Took: now - t.started}), t.perHost())
	t.permit = circuit.Permit{}
}

// Connected tells the circuit that a connection was made, where that is all there is to go by.
func (t *Ticket) Connected() { t.Answered(0) }

// Done ends the attempt with what came of it: the circuit, outlier detection and the host's numbers learn from it.
// rnd is random.
func (t *Ticket) Done(a *circuit.Attempt, rnd uint64) {
	now := mono.Now()
	t.end()
	h := t.h
	if h == nil {
		t.permit.Drop()
		return
	}
	switch {
	case tells(a):
		failed := a.Failure.Kind != mesh.NoFailure || t.fails(a.Status)
		t.c.transition(t.permit.Done(now, circuit.Result{Failure: failed, Took: now - t.started}), t.perHost())
	default:
		t.permit.Drop()
	}
	if a.Failure.Kind == mesh.NoFailure && a.Status < 500 {
		h.numbers.success.Add(1)
	} else {
		h.numbers.errors.Add(1)
	}
	if o := t.c.outlier; o != nil {
		t.c.detected(h, o.Report(now, h.outlier, a, rnd))
	}
}

// tells reports whether an attempt says anything about the upstream: not where the client left, or where the request was
// never sent because of our own limits.
func tells(a *circuit.Attempt) bool {
	switch a.Failure.Kind {
	case mesh.DownstreamClosed, mesh.DownstreamProtocolError, mesh.RequestReadTimeout, mesh.Overflow, mesh.NoHealthyHost,
		mesh.CircuitOpen, mesh.Overloaded, mesh.InternalError:
		return false
	case mesh.StreamIdleTimeout, mesh.MaxDuration:
		return a.Failure.Side == mesh.SideUpstream
	}
	return true
}

func (t *Ticket) fails(status int) bool {
	switch {
	case t.h.breaker != nil:
		return t.h.breaker.Fails(status)
	case t.c.breaker != nil:
		return t.c.breaker.Fails(status)
	}
	return false
}

func (t *Ticket) perHost() *Host {
	if t.h.breaker != nil {
		return t.h
	}
	return nil
}

// Drop ends an attempt that says nothing, such as one that never got a host.
func (t *Ticket) Drop() {
	t.permit.Drop()
	t.end()
}

func (t *Ticket) end() {
	t.res.Release(circuit.Requests)
	if t.h != nil {
		t.h.lbHost.Active.Add(-1)
	}
}
