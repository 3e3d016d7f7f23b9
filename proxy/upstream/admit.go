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

// Ticket is an admitted attempt. Done or Drop ends it; what comes after that does nothing.
type Ticket struct {
	c       *Cluster
	h       *Host // nil before Pick and after the end
	permit  circuit.Permit
	started int64
	// State is the circuit's state as the attempt met it.
	State mesh.CircuitState
}

// Admit asks the cluster's circuit for an attempt that starts now. The failure is CircuitOpen. The limits of connections and
// requests are the pool's to ask, where the attempt comes to them.
func (c *Cluster) Admit(shard uint32, now int64) (Ticket, *mesh.Failure) {
	t := Ticket{c: c, started: now}
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
		h := c.original(ch.Destination)
		if h == nil {
			return nil, noHost("no original destination")
		}
		fail := t.use(h)
		if fail != nil {
			c.numbers.circuit.Inc(shard, metrics.CircuitRefused)
		}
		return h, fail
	}
	st := c.now.Load()
	for n := 0; ; n++ {
		i, panicked := st.pick(&ch.Request)
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
		switch fail := t.use(h); {
		case fail == nil:
			return h, nil
		case n >= ch.Avoid+1:
			// Its own circuit refuses, as did that of another pick: look at each.
			return t.any(st, shard)
		}
	}
}

// any finds a host whose circuit admits, in order.
func (t *Ticket) any(st *state, shard uint32) (*Host, *mesh.Failure) {
	for _, h := range st.hosts {
		if h.Health() != lb.Unhealthy && t.use(h) == nil {
			return h, nil
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
func (t *Ticket) use(h *Host) *mesh.Failure {
	if h.breaker != nil {
		v := h.breaker.Admit(t.started)
		t.c.transition(v.Transition, h)
		t.State = v.State
		if !v.Admitted {
			return circuitOpen()
		}
		t.permit = v.Permit
	}
	t.h = h
	h.lbHost.Active.Add(1)
	h.numbers.total.Add(1)
	return nil
}

// Answered tells the circuit that the head of an answer came now: what it goes by, so that a stream that lasts for hours
// does not hold it up.
func (t *Ticket) Answered(status int, now int64) {
	t.conclude(now, t.fails(status))
}

// Connected tells what a connection that was made says of the host, where that is all there is to go by: how long it
// lasts, and how it ends, is between its ends. Drop ends the ticket then.
func (t *Ticket) Connected(rnd uint64) {
	now := mono.Now()
	t.conclude(now, false)
	t.learn(now, &circuit.Attempt{}, false, rnd)
}

// Done ends the attempt with what came of it: the circuit, outlier detection and the host's numbers learn from it.
// rnd is random.
func (t *Ticket) Done(a *circuit.Attempt, rnd uint64) {
	if t.h == nil {
		t.Drop()
		return
	}
	now := mono.Now()
	failed := tells(a) && a.Failure.Kind != mesh.NoFailure
	if tells(a) {
		t.conclude(now, failed || t.fails(a.Judged()))
	}
	if tells(a) || a.Status != 0 {
		t.learn(now, a, failed || a.Judged() >= 500 || a.LateFailure, rnd)
	}
	t.Drop()
}

// conclude tells the circuit; it does nothing where that has been done.
func (t *Ticket) conclude(now int64, failed bool) {
	t.c.transition(t.permit.Done(now, circuit.Result{Failure: failed, Took: now - t.started}), t.perHost())
	t.permit = circuit.Permit{}
}

// learn tells the host's numbers and outlier detection of an attempt.
func (t *Ticket) learn(now int64, a *circuit.Attempt, failed bool, rnd uint64) {
	if failed {
		t.h.numbers.errors.Add(1)
	} else {
		t.h.numbers.success.Add(1)
	}
	if o := t.c.outlier; o != nil {
		t.c.detected(t.h, o.Report(now, t.h.outlier, a, rnd))
	}
}

// Drop ends an attempt that says nothing, such as one that never got a host.
func (t *Ticket) Drop() {
	t.permit.Drop()
	t.permit = circuit.Permit{}
	if t.h != nil {
		t.h.lbHost.Active.Add(-1)
		t.h = nil
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
