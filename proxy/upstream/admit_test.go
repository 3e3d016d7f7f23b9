// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
)

func breaker(b mesh.Breaker) func(*mesh.Cluster) {
	return func(c *mesh.Cluster) { c.Breaker = &b }
}

// TestBreakerOpens: each of the three reasons, and none below the volume.
func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	ok, bad, slow := 200, 503, -1
	repeat := func(n int, of ...int) (out []int) {
		for range n {
			out = append(out, of...)
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		breaker  mesh.Breaker
		statuses []int
		reason   string // "" where it stays closed
	}{
		{"failures in a row", mesh.Breaker{ConsecutiveFailures: 3}, []int{ok, bad, bad, bad}, "consecutive_failures"},
		{"a row that is broken", mesh.Breaker{ConsecutiveFailures: 3}, []int{bad, bad, ok, bad, bad}, ""},
		{"error rate", mesh.Breaker{ErrorRate: 0.5, MinVolume: 10}, repeat(5, ok, bad), "error_rate"},
		{"error rate below the volume", mesh.Breaker{ErrorRate: 0.5, MinVolume: 10}, repeat(9, bad), ""},
		{"error rate not reached", mesh.Breaker{ErrorRate: 0.5, MinVolume: 10}, repeat(10, ok, ok, bad), ""},
		{"slow rate", mesh.Breaker{SlowRate: 0.5, SlowAfter: time.Minute, MinVolume: 10}, repeat(5, ok, slow), "slow_rate"},
		{"slow rate below the volume", mesh.Breaker{SlowRate: 0.5, SlowAfter: time.Minute, MinVolume: 10}, repeat(9, slow), ""},
		{"slow does not count", mesh.Breaker{ErrorRate: 0.5, MinVolume: 10}, repeat(20, slow), ""},
		{"404 is no failure", mesh.Breaker{ConsecutiveFailures: 1}, repeat(5, 404), ""},
		{"404 is where it is said", mesh.Breaker{ConsecutiveFailures: 1, FailureStatus: []mesh.StatusRange{{Start: 404, End: 405}}}, []int{503, 404}, "consecutive_failures"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			tc.breaker.OpenFor = time.Hour
			c := r.cluster(config(breaker(tc.breaker)), a)
			for i, status := range tc.statuses {
				k, _, fail := pick(t, c)
				if fail != nil {
					t.Fatalf("attempt %d: %v", i, fail)
				}
				if status == slow {
					k.started -= int64(time.Hour)
					status = ok
				}
				k.Answered(status, mono.Now())
				k.Done(&circuit.Attempt{Status: status}, 0) // says the same once more, which must not count
			}
			if tc.reason == "" {
				r.wantTold()
				if c.Breaker().State() != mesh.CircuitClosed || r.number("meshtap_circuit_state") != int64(mesh.CircuitClosed) {
					t.Error("the circuit is not closed")
				}
				return
			}
			r.wantTold("cluster closed>open " + tc.reason)
			if got := attempt(t, c, 200); got != "circuit_open" {
				t.Errorf("an open circuit gave %s", got)
			}
			for name, want := range map[string]int64{
				"meshtap_circuit_state": int64(mesh.CircuitIsOpen), "meshtap_circuit_opened_total": 1, "meshtap_circuit_refused_total": 1,
			} {
				if got := r.number(name); got != want {
					t.Errorf("%s is %d, want %d", name, got, want)
				}
			}
		})
	}
}

// TestBreakerHalfOpen: an open circuit whose time is over lets a limited number of probes in, closes when enough of them
// succeeded, and opens again on the first that fails.
func TestBreakerHalfOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(breaker(mesh.Breaker{ConsecutiveFailures: 1, OpenFor: 1, Probes: 2, ProbeSuccesses: 3})), a)
	attempt(t, c, 500)
	var probes []Ticket
	for range 2 {
		k, _, fail := pick(t, c)
		if fail != nil || k.State != mesh.CircuitHalfOpen {
			t.Fatalf("a probe in state %s: %v", k.State, fail)
		}
		probes = append(probes, k)
	}
	if _, _, fail := pick(t, c); fail == nil || fail.Kind != mesh.CircuitOpen {
		t.Errorf("a third probe: %v", fail)
	}
	probes[0].Drop() // its client left: it says nothing, and its place is free
	k, _, fail := pick(t, c)
	if fail != nil {
		t.Fatal(fail)
	}
	probes[0] = k
	probes[0].Done(&circuit.Attempt{Status: 200}, 0)
	probes[1].Done(&circuit.Attempt{Failure: mesh.Failure{Kind: mesh.UpstreamReset, Side: mesh.SideUpstream}}, 0)
	for range 3 {
		if got := attempt(t, c, 200); got != a {
			t.Fatal(got)
		}
	}
	r.wantTold(
		"cluster closed>open consecutive_failures", "cluster open>half_open open_expired", "cluster half_open>open probe_failed",
		"cluster open>half_open open_expired", "cluster half_open>closed probes_succeeded")
	if got := r.number("meshtap_circuit_opened_total"); got != 2 {
		t.Errorf("opened %d times", got)
	}
}

// TestProbesAreExact: of many that come at once to a circuit whose time is over, as many as there are places get in.
func TestProbesAreExact(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(breaker(mesh.Breaker{ConsecutiveFailures: 1, OpenFor: 1, Probes: 4, ProbeSuccesses: 100})), a)
	attempt(t, c, 500)
	var wg sync.WaitGroup
	var in atomic.Int64
	for range 64 {
		wg.Go(func() {
			if _, _, fail := pick(t, c); fail == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 4 || r.number("meshtap_circuit_refused_total") != 60 {
		t.Errorf("%d probes", in.Load())
	}
	r.wantTold("cluster closed>open consecutive_failures", "cluster open>half_open open_expired")
}

// TestBreakerPerHost: the host whose circuit is open is passed over, and only where all are open is there nobody.
func TestBreakerPerHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(breaker(mesh.Breaker{ConsecutiveFailures: 1, OpenFor: time.Hour, PerHost: true})), a, b)
	first := attempt(t, c, 500)
	second := map[string]string{a: b, b: a}[first]
	for range 10 {
		if got := attempt(t, c, 200); got != second {
			t.Fatalf("picked %s, want %s", got, second)
		}
	}
	attempt(t, c, 500)
	if got := attempt(t, c, 200); got != "circuit_open" {
		t.Errorf("with all open: %s", got)
	}
	r.wantTold(first+" closed>open consecutive_failures", second+" closed>open consecutive_failures")
	if n := r.number("meshtap_circuit_refused_total"); n != 1 {
		t.Errorf("%d refused", n)
	}
	for _, h := range c.Hosts() {
		if v := h.View(mono.Now()); v.Circuit == nil || v.Circuit.State != mesh.CircuitIsOpen || v.Active != 0 {
			t.Errorf("%+v", v)
		}
	}
}

// TestBreakerPerOriginalHost: a refusal counts there, too.
func TestBreakerPerOriginalHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(original(breaker(mesh.Breaker{ConsecutiveFailures: 1, OpenFor: time.Hour, PerHost: true})))
	k, _, fail := pick(t, c, toward(a))
	if fail != nil {
		t.Fatal(fail)
	}
	k.Done(&circuit.Attempt{Status: 500}, 0)
	if _, _, fail := pick(t, c, toward(a)); fail == nil || fail.Kind != mesh.CircuitOpen {
		t.Errorf("got %v", fail)
	}
	k, _, fail = pick(t, c, toward(b))
	if fail != nil {
		t.Error(fail)
	}
	k.Drop()
	if n := r.number("meshtap_circuit_refused_total"); n != 1 {
		t.Errorf("%d refused", n)
	}
}

// TestWhatTells: only what the upstream did counts against it.
func TestWhatTells(t *testing.T) {
	t.Parallel()
	up, down, own := mesh.SideUpstream, mesh.SideDownstream, mesh.SideInternal
	for _, tc := range []struct {
		kind mesh.FailureKind
		side mesh.Side
		want bool
	}{
		{mesh.ConnectFailure, up, true},
		{mesh.ConnectTimeout, up, true},
		{mesh.UpstreamReset, up, true},
		{mesh.UpstreamClosed, up, true},
		{mesh.UpstreamProtocolError, up, true},
		{mesh.RequestTimeout, up, true},
		{mesh.PerTryTimeout, up, true},
		{mesh.StreamIdleTimeout, up, true},
		{mesh.StreamIdleTimeout, down, false},
		{mesh.MaxDuration, up, true},
		{mesh.MaxDuration, down, false},
		{mesh.DownstreamClosed, down, false},
		{mesh.DownstreamProtocolError, down, false},
		{mesh.RequestReadTimeout, down, false},
		{mesh.Overflow, own, false},
		{mesh.InternalError, own, false},
	} {
		t.Run(tc.kind.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c := r.cluster(config(breaker(mesh.Breaker{ConsecutiveFailures: 1, OpenFor: time.Hour})), a)
			k, h, fail := pick(t, c)
			if fail != nil {
				t.Fatal(fail)
			}
			k.Done(&circuit.Attempt{Failure: mesh.Failure{Kind: tc.kind, Side: tc.side}}, 0)
			if opened := c.Breaker().State() == mesh.CircuitIsOpen; opened != tc.want {
				t.Errorf("opened: %v", opened)
			}
			if v := h.View(0); (v.Errors == 1) != tc.want || v.Total != 1 || v.Active != 0 {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestEjection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(func(c *mesh.Cluster) {
		c.Outlier = &mesh.Outlier{
			Consecutive5xx: 2, Enforcing5xx: 100, Interval: time.Second, BaseEjection: 10 * time.Second, MaxEjection: 25 * time.Second,
			MaxEjectionPercent: 40,
		}
	}), a, b, d)
	turn := func(h string, times int) { // fails a host, whoever is next
		for times > 0 {
			k, got, fail := pick(t, c)
			if fail != nil {
				t.Fatal(fail)
			}
			status := 200
			if got.Address == address(h) {
				status, times = 500, times-1
			}
			k.Done(&circuit.Attempt{Status: status}, 0)
		}
	}
	turn(a, 1)
	r.wantTold()
	turn(a, 1)
	r.wantTold(a + " ejected=true consecutive_5xx times=1 for=10s")
	if seen := spread(t, c, 20); seen[a] != 0 || seen[b] != 10 {
		t.Errorf("picked %v", seen)
	}
	turn(b, 2)
	r.wantTold() // a second of three would be more than 40 %
	if seen := spread(t, c, 20); seen[b] != 10 {
		t.Errorf("picked %v", seen)
	}
	for name, want := range map[string]int64{
		"outlier_detection.ejections_active": 1, "outlier_detection.ejections_overflow": 1,
		"outlier_detection.ejections_enforced_consecutive_5xx": 1, "membership_healthy": 2,
	} {
		if got := r.number(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	start := mono.Now()
	c.Tick(start + int64(9*time.Second))
	r.wantTold()
	c.Tick(start + int64(11*time.Second))
	if got := r.told(); len(got) != 1 {
		t.Errorf("told %v", got)
	}
	if seen := spread(t, c, 30); seen[a] != 10 || r.number("outlier_detection.ejections_active") != 0 {
		t.Errorf("picked %v", seen)
	}
	turn(a, 2)
	r.wantTold(a + " ejected=true consecutive_5xx times=2 for=20s")
	c.Tick(start + int64(time.Hour))
	r.told()
	turn(a, 2)
	r.wantTold(a + " ejected=true consecutive_5xx times=3 for=25s")
}

// TestEjectionIsForgottenWithItsHost: a host that leaves and comes back is a new one, and no ejected host is counted twice.
func TestEjectionIsForgottenWithItsHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(func(c *mesh.Cluster) {
		c.Outlier = &mesh.Outlier{Consecutive5xx: 1, Enforcing5xx: 100, Interval: time.Second, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100}
	}), a, b)
	bad := attempt(t, c, 500)
	good := map[string]string{a: b, b: a}[bad]
	c.SetEndpoints(set("2", good))
	if n := r.number("outlier_detection.ejections_active"); n != 0 {
		t.Errorf("%d ejected", n)
	}
	c.SetEndpoints(set("3", a, b))
	if seen := spread(t, c, 20); seen[bad] != 10 {
		t.Errorf("picked %v", seen)
	}
}

// TestLimitNumbers: each limit has its own gauges.
func TestLimitNumbers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(func(c *mesh.Cluster) {
		c.Limits[mesh.PriorityDefault] = mesh.Limits{Connections: 2, Pending: 3, Requests: 4, Retries: 5, TrackRemaining: true}
	}), a)
	for i, k := range []circuit.Resource{circuit.Connections, circuit.Pending, circuit.Requests, circuit.Retries} {
		left := []string{"cx", "pending", "rq", "retries"}[i]
		open := "circuit_breakers.default." + k.String() + "_open"
		remaining := "circuit_breakers.default.remaining_" + left
		res := c.Resources(mesh.PriorityDefault)
		for n := i + 2; n > 0; n-- {
			if r.number(open) != 0 || r.number(remaining) != int64(n) {
				t.Errorf("%s: open %d, remaining %d, want %d", k, r.number(open), r.number(remaining), n)
			}
			if !res.Acquire(k) {
				t.Errorf("%s is refused with %d left", k, n)
			}
		}
		if r.number(open) != 1 || r.number(remaining) != 0 || res.Acquire(k) {
			t.Errorf("%s: open %d, remaining %d at the limit", k, r.number(open), r.number(remaining))
		}
		for range i + 2 {
			res.Release(k)
		}
	}
}
