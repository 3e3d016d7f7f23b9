// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// fast opens on two failures in a row, for 100 ms, and closes after two of two probes.
func fast() mesh.Breaker {
	c := circuit.DefaultBreaker()
	c.ConsecutiveFailures = 2
	c.OpenFor = 100 * time.Millisecond
	c.Probes, c.ProbeSuccesses = 2, 2
	return c
}

// fail admits and reports one failure.
func fail(t *testing.T, b *circuit.Breaker, now int64) *mesh.CircuitNotice {
	t.Helper()
	v := b.Admit(now)
	if !v.Admitted {
		t.Fatalf("refused at %d", now)
	}
	return v.Permit.Done(now, circuit.Result{Failure: true})
}

// halfOpen returns a circuit that has just become half open at 200 ms, with one probe in flight.
func halfOpen(t *testing.T, c mesh.Breaker) (*circuit.Breaker, circuit.Permit) {
	t.Helper()
	b := circuit.NewBreaker(c, 0)
	for b.State() == mesh.CircuitClosed {
		fail(t, b, 0)
	}
	v := b.Admit(200 * ms)
	if !v.Admitted || v.State != mesh.CircuitHalfOpen || v.Transition == nil {
		t.Fatalf("no probe: %+v", v)
	}
	return b, v.Permit
}

// TestBreakerStalePermits reports on requests of earlier periods: they change nothing.
func TestBreakerStalePermits(t *testing.T) {
	t.Parallel()
	b := circuit.NewBreaker(fast(), 0)
	closed := make([]circuit.Permit, 10)
	for i := range closed {
		closed[i] = b.Admit(0).Permit
	}
	fail(t, b, 0)
	fail(t, b, 0)

	closed[0].Done(0, circuit.Result{})
	closed[1].Done(0, circuit.Result{Failure: true})
	if b.State() != mesh.CircuitIsOpen {
		t.Fatal("a late report moved an open circuit")
	}
	first, second := b.Admit(200*ms), b.Admit(200*ms)
	if first.State != mesh.CircuitHalfOpen || !second.Admitted {
		t.Fatalf("no two probes: %+v, %+v", first, second)
	}
	closed[2].Done(200*ms, circuit.Result{Failure: true})
	closed[3].Done(200*ms, circuit.Result{})
	closed[4].Drop()
	if v := b.View(200 * ms); v.State != mesh.CircuitHalfOpen || v.Probing != 2 || v.Succeeded != 0 {
		t.Fatalf("late reports moved a half open circuit: %+v", v)
	}
	if b.Admit(200 * ms).Admitted {
		t.Fatal("a late report made room for a third probe")
	}
	first.Permit.Done(200*ms, circuit.Result{})
	if n := second.Permit.Done(200*ms, circuit.Result{}); n == nil || n.To != mesh.CircuitClosed {
		t.Fatalf("two good probes gave %+v", n)
	}
	closed[5].Done(200*ms, circuit.Result{Failure: true})
	if v := b.View(200 * ms); v.State != mesh.CircuitClosed || v.Requests != 0 || v.Consecutive != 0 {
		t.Fatalf("late reports count in the new period: %+v", v)
	}
}

func TestBreakerDroppedProbeMakesRoom(t *testing.T) {
	t.Parallel()
	b, first := halfOpen(t, fast())
	for range 100 {
		second := b.Admit(200 * ms)
		if !second.Admitted || b.Admit(200*ms).Admitted {
			t.Fatal("want room for exactly one more probe")
		}
		second.Permit.Drop()
	}
	first.Drop()
	if v := b.View(200 * ms); v.Probing != 0 || v.State != mesh.CircuitHalfOpen {
		t.Errorf("after all probes were dropped: %+v", v)
	}
}

func TestBreakerZeroPermit(t *testing.T) {
	t.Parallel()
	var p circuit.Permit
	p.Drop()
	if n := p.Done(0, circuit.Result{Failure: true}); n != nil {
		t.Errorf("the zero permit gave %+v", n)
	}
}

func TestBreakerSlowProbe(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0, 0.5} {
		c := fast()
		c.SlowAfter, c.SlowRate = time.Second, rate
		b, probe := halfOpen(t, c)
		n := probe.Done(300*ms, circuit.Result{Took: int64(time.Second)})
		if failed := n != nil && n.Reason == circuit.ReasonProbeFailed; failed != (rate > 0) {
			t.Errorf("slow rate %v: a slow probe gave %+v and %v", rate, n, b.State())
		}
	}
}

func TestBreakerFails(t *testing.T) {
	t.Parallel()
	c := circuit.DefaultBreaker()
	b := circuit.NewBreaker(c, 0)
	c.FailureStatus = []mesh.StatusRange{{Start: 429, End: 430}, {Start: 502, End: 505}}
	own := circuit.NewBreaker(c, 0)
	for status, want := range map[int][2]bool{
		0: {false, false}, 200: {false, false}, 429: {false, true}, 430: {false, false}, 499: {false, false},
		500: {true, false}, 502: {true, true}, 504: {true, true}, 505: {true, false}, 599: {true, false}, 600: {false, false},
	} {
		if got := [2]bool{b.Fails(status), own.Fails(status)}; got != want {
			t.Errorf("status %d fails: %v, want %v", status, got, want)
		}
	}
}

func TestNewBreakerFillsIn(t *testing.T) {
	t.Parallel()
	b := circuit.NewBreaker(mesh.Breaker{ConsecutiveFailures: 1}, 0)
	fail(t, b, 0)
	if v := b.View(0); v.State != mesh.CircuitIsOpen || v.Until != int64(circuit.DefaultBreaker().OpenFor) {
		t.Errorf("opens as %+v, want until the default", v)
	}
	if !b.Admit(int64(time.Minute)).Admitted || !b.Fails(500) {
		t.Error("no probe, or no failure status, by default")
	}
}

// TestBreakerOneTransition lets many goroutines meet each change of state at once: exactly one of them has it.
func TestBreakerOneTransition(t *testing.T) {
	t.Parallel()
	const goroutines = 32
	for range 50 {
		c := fast()
		c.Probes, c.ProbeSuccesses = goroutines, goroutines
		b := circuit.NewBreaker(c, 0)
		tell := func(notices *atomic.Int64, n *mesh.CircuitNotice, from, to mesh.CircuitState) {
			if n == nil {
				return
			}
			notices.Add(1)
			if n.From != from || n.To != to {
				t.Errorf("from %v to %v, want from %v to %v", n.From, n.To, from, to)
			}
		}
		var opened, probing, closed atomic.Int64
		together(goroutines, func(int) {
			for range 3 {
				n := b.Admit(0).Permit.Done(0, circuit.Result{Failure: true})
				tell(&opened, n, mesh.CircuitClosed, mesh.CircuitIsOpen)
			}
		})
		permits := make([]circuit.Permit, goroutines)
		together(goroutines, func(g int) {
			v := b.Admit(200 * ms)
			tell(&probing, v.Transition, mesh.CircuitIsOpen, mesh.CircuitHalfOpen)
			if !v.Admitted {
				t.Error("a probe was refused although there was room for all")
			}
			permits[g] = v.Permit
		})
		together(goroutines, func(g int) {
			n := permits[g].Done(200*ms, circuit.Result{})
			tell(&closed, n, mesh.CircuitHalfOpen, mesh.CircuitClosed)
		})
		if opened.Load() != 1 || probing.Load() != 1 || closed.Load() != 1 {
			t.Fatalf("%d opened, %d became half open, %d closed; want one each",
				opened.Load(), probing.Load(), closed.Load())
		}
	}
}

// TestBreakerUnderLoad runs random requests on many goroutines and one clock: every change is told once, so the notices
// join up to one path from closed to the last state, and no probe leaks.
func TestBreakerUnderLoad(t *testing.T) {
	t.Parallel()
	c := fast()
	c.OpenFor = 50 * time.Microsecond
	c.Window, c.MinVolume, c.ErrorRate = time.Millisecond, 20, 0.5
	b := circuit.NewBreaker(c, 0)
	var clock atomic.Int64
	var mu sync.Mutex
	ways := map[string]int{}
	tell := func(n *mesh.CircuitNotice) {
		if n != nil {
			mu.Lock()
			ways[n.From.String()+" to "+n.To.String()]++
			mu.Unlock()
		}
	}
	together(16, func(g int) {
		r := rand.New(rand.NewPCG(1, uint64(g)))
		for range 4000 {
			v := b.Admit(clock.Add(1000))
			tell(v.Transition)
			if !v.Admitted {
				continue
			}
			end := r.IntN(10)
			if end == 0 {
				v.Permit.Drop()
				continue
			}
			tell(v.Permit.Done(clock.Add(1000), circuit.Result{Failure: end < 4}))
		}
	})
	opened := ways["closed to open"] + ways["half_open to open"]
	left := map[string]int{
		"closed":    1 + ways["half_open to closed"] - ways["closed to open"],
		"open":      opened - ways["open to half_open"],
		"half_open": ways["open to half_open"] - ways["half_open to open"] - ways["half_open to closed"],
	}
	for state, n := range left {
		want := 0
		if state == b.State().String() {
			want = 1
		}
		if n != want {
			t.Errorf("%s was entered %d times more than left, want %d; ways %v", state, n, want, ways)
		}
	}
	if len(ways) != 4 {
		t.Errorf("want all four ways to be taken, have %v", ways)
	}
	if v := b.View(clock.Load()); v.Probing != 0 {
		t.Errorf("%d probes leaked", v.Probing)
	}
}

// TestBreakerProbesAtATime holds probes while others ask: never more than Probes hold a permit of one period.
func TestBreakerProbesAtATime(t *testing.T) {
	t.Parallel()
	c := fast()
	c.Probes, c.ProbeSuccesses = 3, 1000
	b, first := halfOpen(t, c)
	first.Drop()
	var held, over atomic.Int64
	together(16, func(int) {
		for range 2000 {
			v := b.Admit(200 * ms)
			if !v.Admitted {
				continue
			}
			if held.Add(1) > 3 {
				over.Add(1)
			}
			held.Add(-1)
			v.Permit.Drop()
		}
	})
	if over.Load() != 0 || b.View(0).Probing != 0 {
		t.Errorf("more than 3 probes at a time %d times, %d leaked", over.Load(), b.View(0).Probing)
	}
}

// model is the breaker done the slow way: it remembers every result.
type model struct {
	c       mesh.Breaker
	state   mesh.CircuitState
	period  int
	until   int64
	results []modelResult // of this period
	probing uint32
	good    uint32
}

type modelResult struct {
	at           int64
	failed, slow bool
}

type modelPermit struct{ period int }

func (m *model) enter(s mesh.CircuitState, now int64) {
	m.state, m.until = s, now+int64(m.c.OpenFor)
	m.period++
	m.results, m.probing, m.good = nil, 0, 0
}

func (m *model) admit(now int64) (modelPermit, bool) {
	if m.state == mesh.CircuitIsOpen && now >= m.until {
		m.enter(mesh.CircuitHalfOpen, now)
	}
	switch {
	case m.state == mesh.CircuitIsOpen, m.state == mesh.CircuitHalfOpen && m.probing == m.c.Probes:
		return modelPermit{}, false
	case m.state == mesh.CircuitHalfOpen:
		m.probing++
	}
	return modelPermit{m.period}, true
}

func (m *model) drop(p modelPermit) {
	if p.period == m.period && m.state == mesh.CircuitHalfOpen {
		m.probing--
	}
}

func (m *model) done(p modelPermit, now int64, failed bool, took int64) {
	if p.period != m.period {
		return
	}
	slow := m.c.SlowAfter > 0 && took >= int64(m.c.SlowAfter)
	if m.state == mesh.CircuitHalfOpen {
		m.probing--
		if failed || slow && m.c.SlowRate > 0 {
			m.enter(mesh.CircuitIsOpen, now)
		} else if m.good++; m.good == m.c.ProbeSuccesses {
			m.enter(mesh.CircuitClosed, now)
		}
		return
	}
	m.results = append(m.results, modelResult{now, failed, slow})
	row := uint32(0)
	for i := len(m.results) - 1; i >= 0 && m.results[i].failed; i-- {
		row++
	}
	// The window has ten steps; what happened in the current one or the nine before counts.
	step := int64(m.c.Window) / 10
	var all, failures, slows float64
	for _, r := range m.results {
		if r.at/step > now/step-10 {
			all++
			if r.failed {
				failures++
			}
			if r.slow {
				slows++
			}
		}
	}
	enough := all >= float64(m.c.MinVolume)
	if m.c.ConsecutiveFailures > 0 && row >= m.c.ConsecutiveFailures ||
		enough && m.c.ErrorRate > 0 && failures/all >= m.c.ErrorRate ||
		enough && m.c.SlowRate > 0 && slows/all >= m.c.SlowRate {
		m.enter(mesh.CircuitIsOpen, now)
	}
}

// replay runs a script of bytes on a breaker and its model and fails where they differ. Each byte is an operation and
// a step of time.
func replay(c mesh.Breaker, script []byte) error {
	b, m := circuit.NewBreaker(c, 0), &model{c: c, state: mesh.CircuitClosed}
	type pair struct {
		p circuit.Permit
		m modelPermit
	}
	var open []pair
	now := int64(0)
	state := mesh.CircuitClosed
	for i, op := range script {
		now += int64(op>>3) * int64(op>>3) * ms
		var notices []*mesh.CircuitNotice
		switch op & 7 {
		case 0, 1, 2:
			v := b.Admit(now)
			p, ok := m.admit(now)
			if v.Admitted != ok {
				return fmt.Errorf("operation %d at %v: admitted %v, want %v", i, time.Duration(now), v.Admitted, ok)
			}
			if ok {
				open = append(open, pair{v.Permit, p})
			}
			notices = append(notices, v.Transition)
		default:
			if len(open) == 0 {
				continue
			}
			// Requests end in any order.
			j := int(op>>3) % len(open)
			p := open[j]
			open[j] = open[len(open)-1]
			open = open[:len(open)-1]
			if op&7 == 3 {
				p.p.Drop()
				m.drop(p.m)
				continue
			}
			failed, took := op&7 <= 5, int64(op&1)*20*ms
			notices = append(notices, p.p.Done(now, circuit.Result{Failure: failed, Took: took}))
			m.done(p.m, now, failed, took)
		}
		for _, n := range notices {
			if n == nil {
				continue
			}
			if n.From != state {
				return fmt.Errorf("operation %d: notice from %v, but the state was %v", i, n.From, state)
			}
			state = n.To
		}
		if got := b.State(); got != m.state || got != state {
			return fmt.Errorf("operation %d at %v: %v, want %v, told %v", i, time.Duration(now), got, m.state, state)
		}
	}
	return nil
}

// configOf makes a configuration out of a number.
func configOf(seed uint64) mesh.Breaker {
	r := rand.New(rand.NewPCG(seed, 0))
	c := circuit.DefaultBreaker()
	c.Window = time.Duration(1+r.IntN(20)) * 100 * time.Millisecond
	c.OpenFor = time.Duration(1+r.IntN(10)) * 100 * time.Millisecond
	c.MinVolume = r.Uint32N(12)
	c.ConsecutiveFailures = r.Uint32N(6)
	c.ErrorRate = []float64{0, 0.1, 0.5, 1}[r.IntN(4)]
	c.SlowAfter = []time.Duration{0, 10 * time.Millisecond}[r.IntN(2)]
	c.SlowRate = []float64{0, 0.3, 0.9}[r.IntN(3)]
	c.Probes, c.ProbeSuccesses = 1+r.Uint32N(3), 1+r.Uint32N(4)
	return c
}

func TestBreakerAgainstModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		seed := r.Uint64()
		script := make([]byte, 200)
		for i := range script {
			// Mostly small steps of time, so that windows fill.
			script[i] = byte(r.Uint32N(8)) | byte(r.Uint32N(4)*r.Uint32N(8)<<3)
		}
		if err := replay(configOf(seed), script); err != nil {
			t.Fatalf("config %d %+v: %v", seed, configOf(seed), err)
		}
	}
}

func FuzzBreaker(f *testing.F) {
	f.Add(uint64(1), []byte{0, 4, 0, 4, 0, 4, 0xf8, 6})
	f.Add(uint64(2), []byte{0, 0, 0, 4, 5, 6, 0x80, 3, 7})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		if len(script) > 2000 {
			t.Skip()
		}
		if err := replay(configOf(seed), script); err != nil {
			t.Fatalf("config %+v: %v", configOf(seed), err)
		}
	})
}
