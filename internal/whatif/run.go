// SPDX-License-Identifier: Apache-2.0

package whatif

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

// Policy is what requests are decided by.
type Policy struct {
	Cluster *mesh.Cluster
	// Build makes the pickers of the cluster's load balancing policy.
	Build lb.Builder
	// Routes are the timeouts and retries by the names of routes; Default is for the others.
	Routes  map[string]Route
	Default Route
}

// Route is what a route says of its requests. A Timeout of 0 is none.
type Route struct {
	Timeout time.Duration
	Retry   *mesh.RetryPolicy
}

// Run returns what would have come of a recording's requests.
func Run(rec *Recording, p Policy, m Model, seed uint64) Result {
	s := newSim(rec, p, m, seed)
	for s.next < len(rec.requests) || len(s.queue) > 0 {
		s.step()
	}
	for _, h := range s.hosts {
		s.res.Hosts[h.name] = h.load
	}
	s.res.finish()
	return s.res
}

// sim is one run.
type sim struct {
	rec   *Recording
	p     Policy
	model Model
	rnd   *rand.Rand
	now   int64
	next  int // the request that comes next
	queue queue
	order uint64 // breaks ties
	free  []*call
	res   Result

	hosts     []*host
	lbHosts   []*lb.Host
	states    []*circuit.HostState
	all       sampler
	set       *lb.Set
	breaker   *circuit.Breaker
	outlier   *circuit.Outlier
	tickAt    int64
	resources *circuit.Resources
	routes    []Route // by the recording's number
}

type host struct {
	lb.Host
	state   circuit.HostState
	breaker *circuit.Breaker
	sampler sampler
	name    string
	load    Load
}

func newSim(rec *Recording, p Policy, m Model, seed uint64) *sim {
	rec.sort()
	s := &sim{rec: rec, p: p, model: m, rnd: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), res: Result{Hosts: map[string]Load{}},
		resources: circuit.NewResources(&p.Cluster.Limits[0])}
	if len(rec.requests) > 0 {
		s.now = rec.requests[0].arrive
	}
	for _, name := range rec.names {
		r, ok := p.Routes[name]
		if !ok {
			r = p.Default
		}
		s.routes = append(s.routes, r)
	}
	if b := p.Cluster.Breaker; b != nil && !b.PerHost {
		s.breaker = circuit.NewBreaker(*b, s.now)
	}
	if o := p.Cluster.Outlier; o != nil {
		s.outlier, s.tickAt = circuit.NewOutlier(*o), s.now+int64(o.Interval)
	}
	s.addHosts()
	s.build()
	return s
}

// addHosts takes the hosts of the policy, where it names them, or those that were recorded.
func (s *sim) addHosts() {
	known := s.rec.samplers()
	s.all = known[len(known)-1]
	add := func(name string, weight, priority uint32) {
		h := &host{name: name, Host: lb.Host{Weight: weight, Priority: priority}}
		if i, ok := s.rec.index[name]; ok {
			h.sampler = known[i]
		}
		if b := s.p.Cluster.Breaker; b != nil && b.PerHost {
			h.breaker = circuit.NewBreaker(*b, s.now)
		}
		if s.outlier != nil {
			s.outlier.Add(&h.state)
		}
		s.hosts, s.lbHosts, s.states = append(s.hosts, h), append(s.lbHosts, &h.Host), append(s.states, &h.state)
	}
	if set := s.p.Cluster.Endpoints; set != nil && s.p.Cluster.Discovery == mesh.Static {
		for _, l := range set.Localities {
			for _, e := range l.Endpoints {
				add(e.Address.String(), e.Weight, l.Priority)
			}
		}
	}
	if len(s.hosts) == 0 {
		for _, name := range s.rec.Hosts {
			add(name, 1, 0)
		}
	}
}

// build makes the set anew, after a host's health has changed.
func (s *sim) build() {
	for _, h := range s.hosts {
		h.Health = lb.Healthy
		if h.state.Ejected() {
			h.Health = lb.Unhealthy
		}
	}
	o := lb.Options{Build: s.p.Build, Config: s.p.Cluster.Policy.Config, PanicThreshold: s.p.Cluster.PanicThreshold, Seed: s.rnd.Uint64()}
	if e := s.p.Cluster.Endpoints; e != nil {
		o.Overprovisioning = e.Overprovisioning
	}
	s.set = lb.NewSet(s.lbHosts, o, s.set)
}

// call is a request on its way.
type call struct {
	q        *request
	route    Route
	deadline int64 // 0 is none
	plan     circuit.Plan
	pick     lb.Request
	tried    []*host
	attempts int

	// The attempt that is being made; host is nil where it waits for one.
	host    *host
	permit  circuit.Permit
	started int64
	facts   circuit.Attempt
	due     int64
	order   uint64
}

// step goes on to what happens next: a request comes, an attempt ends or begins, or hosts are let back.
func (s *sim) step() {
	at, arrival := int64(0), false
	if s.next < len(s.rec.requests) {
		at, arrival = s.rec.requests[s.next].arrive, true
	}
	if len(s.queue) > 0 && (!arrival || s.queue[0].due <= at) {
		at, arrival = s.queue[0].due, false
	}
	if s.outlier != nil && s.outlier.Active() == 0 && at-s.tickAt > int64(time.Hour) {
		s.tickAt = at // nothing can come of ticks in a long silence but one
	}
	for s.outlier != nil && s.tickAt <= at {
		if s.now = s.tickAt; len(s.outlier.Tick(s.now, s.states)) > 0 {
			s.build()
		}
		s.tickAt += int64(max(s.p.Cluster.Outlier.Interval, time.Millisecond))
	}
	s.now = at
	if arrival {
		s.next++
		s.arrive(&s.rec.requests[s.next-1])
		return
	}
	c := heap.Pop(&s.queue).(*call)
	if c.host == nil {
		s.attempt(c)
		return
	}
	s.ended(c)
}

func (s *sim) arrive(q *request) {
	var c *call
	if n := len(s.free); n > 0 {
		c, s.free = s.free[n-1], s.free[:n-1]
	} else {
		c = &call{}
	}
	*c = call{q: q, route: s.routes[q.route], tried: c.tried[:0], pick: lb.Request{Rand: s.rnd.Uint64()}}
	if c.route.Timeout > 0 {
		c.deadline = s.now + int64(c.route.Timeout)
	}
	c.plan = circuit.NewPlan(c.route.Retry, s.resources)
	s.attempt(c)
}

// attempt begins an attempt at a host, or fails where none may be made.
func (s *sim) attempt(c *call) {
	c.started = s.now
	c.facts = circuit.Attempt{Replayable: true, Idempotent: c.q.idempotent}
	if failure := s.admit(c); failure != mesh.NoFailure {
		c.permit.Drop()
		c.permit, c.host = circuit.Permit{}, nil
		c.facts.Failure = mesh.Failure{Kind: failure, Side: mesh.SideInternal, Retry: mesh.RetryAlways}
		s.decide(c)
		return
	}
	h := c.host
	h.Active.Add(1)
	if c.attempts++; c.attempts > 1 {
		s.res.Retries++
	}
	s.res.Attempts++
	c.tried = append(c.tried, h)
	t := s.model.answer(&h.sampler, &s.all, s.now, s.rnd)
	c.facts.Status, c.facts.Sent = int(t.status), t.failure != mesh.ConnectFailure && t.failure != mesh.ConnectTimeout
	c.facts.Failure = mesh.Failure{Kind: t.failure, Side: mesh.SideUpstream}
	if r := c.route.Retry; r != nil && r.PerTryTimeout > 0 && t.took > int64(r.PerTryTimeout) {
		t.took = int64(r.PerTryTimeout)
		c.cut(mesh.PerTryTimeout)
	}
	if c.deadline > 0 && s.now+t.took > c.deadline {
		t.took = c.deadline - s.now
		c.cut(mesh.RequestTimeout)
	}
	if t.took >= hang { // nothing ends it here; what ended it then does
		t.took = c.q.took
	}
	s.push(c, t.took)
}

// cut ends the attempt without an answer.
func (c *call) cut(k mesh.FailureKind) {
	c.facts.Status, c.facts.Failure = 0, mesh.Failure{Kind: k, Side: mesh.SideUpstream}
}

// admit asks circuit, balancer and limits, in the order of the proxy.
func (s *sim) admit(c *call) mesh.FailureKind {
	if s.breaker != nil {
		v := s.breaker.Admit(s.now)
		s.opened(v.Transition)
		if !v.Admitted {
			return mesh.CircuitOpen
		}
		c.permit = v.Permit
	}
	avoid := 0
	if r := c.route.Retry; r != nil && r.SkipPreviousHosts {
		avoid = max(r.HostSelectionTries, 1)
	}
	for n := 0; ; n++ {
		i, _ := s.set.Pick(&c.pick)
		if i < 0 {
			return mesh.NoHealthyHost
		}
		h := s.hosts[i]
		if n < avoid && wasTried(c.tried, h) {
			continue
		}
		if h.breaker != nil {
			v := h.breaker.Admit(s.now)
			s.opened(v.Transition)
			if !v.Admitted {
				if n > avoid {
					return mesh.CircuitOpen
				}
				continue
			}
			c.permit = v.Permit
		}
		if !s.resources.Acquire(circuit.Requests) {
			return mesh.Overflow
		}
		c.host = h
		return mesh.NoFailure
	}
}

func wasTried(tried []*host, h *host) bool {
	for _, t := range tried {
		if t == h {
			return true
		}
	}
	return false
}

func (s *sim) opened(n *mesh.CircuitNotice) {
	if n != nil && n.To == mesh.CircuitIsOpen {
		s.res.Openings++
	}
}

// ended takes the end of an attempt.
func (s *sim) ended(c *call) {
	h, a := c.host, &c.facts
	h.Active.Add(-1)
	s.resources.Release(circuit.Requests)
	failed := failedTry(uint16(a.Status), a.Failure.Kind)
	h.load.Attempts++
	if failed {
		h.load.Failed++
	}
	b := s.breaker
	if h.breaker != nil {
		b = h.breaker
	}
	if b != nil {
		bad := a.Failure.Kind != mesh.NoFailure || b.Fails(a.Status)
		s.opened(c.permit.Done(s.now, circuit.Result{Failure: bad, Took: s.now - c.started}))
	}
	if s.outlier != nil {
		for _, d := range s.outlier.Report(s.now, &h.state, a, s.rnd.Uint64()) {
			if !d.Overflow && d.Notice.Ejected && d.Notice.Enforced {
				s.res.Ejections++
				s.build()
			}
		}
	}
	c.host, c.permit = nil, circuit.Permit{}
	s.decide(c)
}

// decide goes on after an attempt: with another one, or to the end.
func (s *sim) decide(c *call) {
	a, end := &c.facts, s.now
	if a.Failure.Kind != mesh.RequestTimeout && (a.Failure.Kind != mesh.NoFailure || a.Status != 0) {
		d := c.plan.Next(a, s.rnd.Uint64())
		switch {
		case d.Retry && c.deadline > 0 && s.now+int64(d.Wait) >= c.deadline:
			end = c.deadline
			c.cut(mesh.RequestTimeout)
		case d.Retry:
			s.push(c, int64(d.Wait))
			return
		}
	}
	c.plan.Close()
	s.res.add(end-c.q.arrive+c.q.overhead, failedTry(uint16(a.Status), a.Failure.Kind), a.Failure.Kind)
	s.free = append(s.free, c)
}

func (s *sim) push(c *call, after int64) {
	s.order++
	c.due, c.order = s.now+max(after, 0), s.order
	heap.Push(&s.queue, c)
}

// queue is what is to come, the soonest first.
type queue []*call

// Len implements heap.Interface.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].order < q[j].order
}

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*call)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}
