// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// The reasons of a mesh.CircuitNotice.
const (
	ReasonConsecutive     = "consecutive_failures"
	ReasonErrorRate       = "error_rate"
	ReasonSlowRate        = "slow_rate"
	ReasonOpenExpired     = "open_expired"
	ReasonProbeFailed     = "probe_failed"
	ReasonProbesSucceeded = "probes_succeeded"
)

// DefaultBreaker returns what a circuit breaker is where its configuration says nothing. Nothing opens it: the
// configuration has to say what does.
func DefaultBreaker() mesh.Breaker {
	return mesh.Breaker{
		Window:         10 * time.Second,
		MinVolume:      20,
		OpenFor:        5 * time.Second,
		Probes:         1,
		ProbeSuccesses: 1,
		FailureStatus:  []mesh.StatusRange{{Start: 500, End: 600}},
	}
}

// Breaker is Meshtap's circuit breaker, of a cluster or of a host: the fast break.
//
//	closed     admits. Failures in a row, the share of failures, or the share of slow requests open it at once.
//	open       refuses, until OpenFor has passed and the next request comes.
//	half_open  admits Probes at a time and refuses the rest. ProbeSuccesses in a row close it; one failure opens it again.
//
// Each stay in a state is a period with its own counters, and a change of state swaps the pointer to the period, so
// exactly one caller makes each change, and what is still reported about requests of an earlier period goes to that
// period, where nobody looks any more. Admit in a closed circuit is one load.
type Breaker struct {
	config mesh.Breaker
	cur    atomic.Pointer[period]
}

// period is one stay in a state.
type period struct {
	state mesh.CircuitState
	// since is when the period began, and reason why; "" for the first.
	since  int64
	reason string
	// until is when an open circuit admits a probe.
	until int64
	// window counts while closed.
	window window
	// probing are the probes in flight while half open, succeeded those that ended well.
	probing, succeeded atomic.Uint32
}

// NewBreaker returns a closed circuit. now is the time of the caller's monotonic clock in nanoseconds, as everywhere in
// this package. Where 0 has no meaning of its own (Window, OpenFor, Probes, ProbeSuccesses, FailureStatus), it stands for
// the default.
func NewBreaker(config mesh.Breaker, now int64) *Breaker {
	d := DefaultBreaker()
	if config.Window <= 0 {
		config.Window = d.Window
	}
	if config.OpenFor <= 0 {
		config.OpenFor = d.OpenFor
	}
	config.Probes = max(config.Probes, 1)
	config.ProbeSuccesses = max(config.ProbeSuccesses, 1)
	if len(config.FailureStatus) == 0 {
		config.FailureStatus = d.FailureStatus
	}
	b := &Breaker{config: config}
	b.cur.Store(b.period(mesh.CircuitClosed, "", now))
	return b
}

// period returns a new stay in a state.
func (b *Breaker) period(state mesh.CircuitState, reason string, now int64) *period {
	p := &period{state: state, since: now, reason: reason}
	switch state {
	case mesh.CircuitClosed:
		p.window.init(int64(b.config.Window), now)
	case mesh.CircuitIsOpen:
		p.until = now + int64(b.config.OpenFor)
	}
	return p
}

// Verdict is what a circuit says to a request.
type Verdict struct {
	Admitted bool
	// State is the circuit's state for this request; a refused one is open or half open.
	State mesh.CircuitState
	// Permit must be ended with Done or Drop, once, where the request was admitted. Otherwise it does nothing.
	Permit Permit
	// Transition is not nil where this request changed the state; the caller tells it.
	Transition *mesh.CircuitNotice
}

// Admit asks for a request.
func (b *Breaker) Admit(now int64) Verdict {
	var transition *mesh.CircuitNotice
	for {
		p := b.cur.Load()
		switch p.state {
		case mesh.CircuitClosed:
			return Verdict{Admitted: true, State: p.state, Permit: Permit{b, p}, Transition: transition}
		case mesh.CircuitHalfOpen:
			if !p.startProbe(b.config.Probes) {
				return Verdict{State: p.state, Transition: transition}
			}
			return Verdict{Admitted: true, State: p.state, Permit: Permit{b, p}, Transition: transition}
		}
		if now < p.until {
			return Verdict{State: p.state, Transition: transition}
		}
		// Whoever swaps has the notice; all go round once more and are probes like any other.
		if t := b.swap(p, mesh.CircuitHalfOpen, ReasonOpenExpired, now, counts{}); t != nil {
			transition = t
		}
	}
}

// startProbe takes one of the places for probes.
func (p *period) startProbe(places uint32) bool {
	for {
		n := p.probing.Load()
		if n >= places {
			return false
		}
		if p.probing.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Permit is what an admitted request holds. The zero Permit does nothing.
type Permit struct {
	b *Breaker
	p *period
}

// Result is how an admitted request ended.
type Result struct {
	Failure bool
	// Took is how long it took, in nanoseconds.
	Took int64
}

// Done reports how the request ended. The notice is not nil where that changed the state; the caller tells it. A report
// about a request of an earlier period changes nothing.
func (p Permit) Done(now int64, r Result) *mesh.CircuitNotice {
	if p.p == nil || p.b.cur.Load() != p.p {
		return nil
	}
	c := &p.b.config
	slow := c.SlowAfter > 0 && r.Took >= int64(c.SlowAfter)
	if p.p.state == mesh.CircuitHalfOpen {
		return p.b.probed(p.p, now, r.Failure, slow)
	}
	total, row := p.p.window.add(now, r.Failure, slow)
	reason := trips(c, total, row)
	switch reason {
	case "":
		return nil
	case ReasonConsecutive:
		// A row may be longer than the window; then it is what the notice tells.
		total.requests, total.failures = max(total.requests, row), max(total.failures, row)
	}
	return p.b.swap(p.p, mesh.CircuitIsOpen, reason, now, total)
}

// Drop ends the permit of a request that says nothing about the upstream, such as one whose client went away. A probe's
// place is free again.
func (p Permit) Drop() {
	if p.p != nil && p.p.state == mesh.CircuitHalfOpen {
		p.p.endProbe()
	}
}

// probed counts the end of a probe. A slow one failed where slow requests open the circuit, which it would do again.
func (b *Breaker) probed(p *period, now int64, failed, slow bool) *mesh.CircuitNotice {
	defer p.endProbe()
	seen := counts{requests: p.succeeded.Load() + 1}
	if slow {
		seen.slow = 1
	}
	if failed || slow && b.config.SlowRate > 0 {
		seen.failures = 1
		return b.swap(p, mesh.CircuitIsOpen, ReasonProbeFailed, now, seen)
	}
	seen.requests = p.succeeded.Add(1)
	if seen.requests < b.config.ProbeSuccesses {
		return nil
	}
	return b.swap(p, mesh.CircuitClosed, ReasonProbesSucceeded, now, seen)
}

// endProbe frees the place of a probe. A caller's mistake must not take the places below zero, where no probe would be
// let in any more.
func (p *period) endProbe() {
	for {
		n := p.probing.Load()
		invariant.Check(n > 0, "circuit: a permit was ended twice")
		if n == 0 || p.probing.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// trips returns why a closed circuit opens, or "".
func trips(c *mesh.Breaker, total counts, row uint32) string {
	if c.ConsecutiveFailures > 0 && row >= c.ConsecutiveFailures {
		return ReasonConsecutive
	}
	if total.requests < max(c.MinVolume, 1) {
		return ""
	}
	// A quotient is the nearest number to its true value, as is a rate that was written in decimal, so 3 of 30 are 0.1.
	all := float64(total.requests)
	if c.ErrorRate > 0 && float64(total.failures)/all >= c.ErrorRate {
		return ReasonErrorRate
	}
	if c.SlowRate > 0 && float64(total.slow)/all >= c.SlowRate {
		return ReasonSlowRate
	}
	return ""
}

// swap ends period p and begins the next. It returns the notice for the one caller who did it, nil for all others.
func (b *Breaker) swap(p *period, to mesh.CircuitState, reason string, now int64, seen counts) *mesh.CircuitNotice {
	if !b.cur.CompareAndSwap(p, b.period(to, reason, now)) {
		return nil
	}
	return &mesh.CircuitNotice{
		From: p.state, To: to, Reason: reason,
		Requests: seen.requests, Failures: seen.failures, Slow: seen.slow,
	}
}

// Fails reports whether an answer with this status is a failure.
func (b *Breaker) Fails(status int) bool {
	for _, r := range b.config.FailureStatus {
		if r.Start <= status && status < r.End {
			return true
		}
	}
	return false
}

// View is what a person can see of a circuit.
type View struct {
	State mesh.CircuitState
	// Since is when the circuit came into its state, and Reason why; "" where it has always been closed.
	Since  int64
	Reason string
	// Until is when an open circuit admits a probe.
	Until int64
	// Requests, Failures, Slow and Consecutive are what the window of a closed circuit holds.
	Requests, Failures, Slow, Consecutive uint32
	// Probing and Succeeded are the probes of a half open circuit that are in flight and that ended well.
	Probing, Succeeded uint32
}

// State returns the circuit's state. It stays open until a request comes after its time, which makes it half open.
func (b *Breaker) State() mesh.CircuitState { return b.cur.Load().state }

// View returns what the circuit looks like.
func (b *Breaker) View(now int64) View {
	p := b.cur.Load()
	v := View{State: p.state, Since: p.since, Reason: p.reason, Until: p.until}
	switch p.state {
	case mesh.CircuitClosed:
		total, row := p.window.sum(now)
		v.Requests, v.Failures, v.Slow, v.Consecutive = total.requests, total.failures, total.slow, row
	case mesh.CircuitHalfOpen:
		v.Probing, v.Succeeded = p.probing.Load(), p.succeeded.Load()
	}
	return v
}
