// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// TestLimiterExactly lets many acquire without releasing: exactly the limit succeed.
func TestLimiterExactly(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{0, 1, 3, 1024} {
		var l circuit.Limiter
		var got atomic.Uint64
		together(16, func(int) {
			for range 200 {
				if l.Acquire(limit) {
					got.Add(1)
				}
			}
		})
		if want := min(limit, 16*200); got.Load() != want || l.InUse() != want {
			t.Errorf("limit %d: %d acquired, %d in use, want exactly %d", limit, got.Load(), l.InUse(), want)
		}
	}
}

// TestLimiterNeverOver acquires and releases from many goroutines: what they hold together is never over the limit, and
// nothing is left in the end.
func TestLimiterNeverOver(t *testing.T) {
	t.Parallel()
	const limit = 1
	var l circuit.Limiter
	var held, over atomic.Int64
	together(4, func(int) {
		for range 200_000 {
			if !l.Acquire(limit) {
				continue
			}
			if held.Add(1) > limit {
				over.Add(1)
			}
			held.Add(-1)
			l.Release()
		}
	})
	if over.Load() != 0 || l.InUse() != 0 {
		t.Errorf("over the limit %d times, %d left in use; want 0 and 0", over.Load(), l.InUse())
	}
}

// TestLimiterRefusesNobodyWithRoom has one user of the one place there is, among many who are refused in any case: a
// counter that is raised first and lowered again on a refusal would refuse the user too.
func TestLimiterRefusesNobodyWithRoom(t *testing.T) {
	t.Parallel()
	var l circuit.Limiter
	var refused atomic.Int64
	together(4, func(g int) {
		for range 100_000 {
			switch {
			case g > 0:
				if l.Acquire(0) {
					t.Error("admitted over a limit of 0")
					l.Release()
				}
			case l.Acquire(1):
				l.Release()
			default:
				refused.Add(1)
			}
		}
	})
	if refused.Load() != 0 {
		t.Errorf("%d refused although there was always room", refused.Load())
	}
}

func TestLimiterWithoutLimit(t *testing.T) {
	t.Parallel()
	var l circuit.Limiter
	for range 3 {
		if !l.Acquire(circuit.NoLimit) {
			t.Fatal("refused without a limit")
		}
	}
	if l.Acquire(3) || l.InUse() != 3 {
		t.Errorf("a limit that comes later must count all %d in use", l.InUse())
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	limits := mesh.Limits{Connections: 1, Pending: 2, Requests: 3, Retries: 4}
	r := circuit.NewResources(&limits)
	names := map[circuit.Resource]string{
		circuit.Connections: "cx", circuit.Pending: "rq_pending", circuit.Requests: "rq", circuit.Retries: "rq_retry",
	}
	for k, want := range []uint64{1, 2, 3, 4} {
		k := circuit.Resource(k)
		t.Run(k.String(), func(t *testing.T) {
			if k.String() != names[k] {
				t.Errorf("is called %q, want %q", k, names[k])
			}
			for n := range want {
				if r.Open(k) || r.Remaining(k) != want-n {
					t.Errorf("with %d in use: open %v, %d remaining, want %d", n, r.Open(k), r.Remaining(k), want-n)
				}
				if !r.Acquire(k) {
					t.Fatalf("refused with %d in use", n)
				}
			}
			if r.Acquire(k) || !r.Open(k) || r.Remaining(k) != 0 || r.InUse(k) != want {
				t.Errorf("full with %d in use: open %v, %d remaining", r.InUse(k), r.Open(k), r.Remaining(k))
			}
			r.Release(k)
			if r.Open(k) || !r.Acquire(k) {
				t.Error("refused after a release")
			}
		})
	}
}

func TestResourcesSetLimits(t *testing.T) {
	t.Parallel()
	r := circuit.NewResources(&mesh.Limits{Requests: 10})
	for range 4 {
		r.Acquire(circuit.Requests)
	}
	r.SetLimits(&mesh.Limits{Requests: 2})
	if !r.Open(circuit.Requests) || r.Remaining(circuit.Requests) != 0 || r.Acquire(circuit.Requests) {
		t.Error("a lower limit must refuse while more is in use")
	}
	for range 3 {
		r.Release(circuit.Requests)
	}
	if !r.Acquire(circuit.Requests) || r.Acquire(circuit.Requests) {
		t.Error("must admit one again, and no more")
	}
	r.SetLimits(&mesh.Limits{Requests: uint32(circuit.NoLimit)})
	if r.Open(circuit.Requests) || !r.Acquire(circuit.Requests) {
		t.Error("no limit must admit")
	}
}

func TestResourcesForce(t *testing.T) {
	t.Parallel()
	r := circuit.NewResources(&mesh.Limits{Connections: 1})
	for range 3 {
		r.Force(circuit.Connections)
	}
	if r.InUse(circuit.Connections) != 3 || !r.Open(circuit.Connections) || r.Remaining(circuit.Connections) != 0 {
		t.Errorf("%d in use, want 3 over a threshold of 1", r.InUse(circuit.Connections))
	}
	for range 2 {
		r.Release(circuit.Connections)
		if r.Acquire(circuit.Connections) {
			t.Error("admitted while the threshold is used up by what was forced")
		}
	}
	if r.Release(circuit.Connections); !r.Acquire(circuit.Connections) {
		t.Error("refused with nothing in use")
	}
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		budget            mesh.RetryBudget
		requests, pending int
		want              uint64
	}{
		"nothing in flight":         {circuit.DefaultRetryBudget(), 0, 0, 3},
		"below the minimum":         {circuit.DefaultRetryBudget(), 10, 4, 3},
		"a share of the requests":   {circuit.DefaultRetryBudget(), 100, 0, 20},
		"pending ones count":        {circuit.DefaultRetryBudget(), 90, 10, 20},
		"rounded down":              {circuit.DefaultRetryBudget(), 24, 0, 4},
		"a quarter":                 {mesh.RetryBudget{Percent: 25, MinConcurrency: 0}, 100, 0, 25},
		"none at all":               {mesh.RetryBudget{}, 100, 100, 0},
		"as many again":             {mesh.RetryBudget{Percent: 100, MinConcurrency: 1}, 7, 0, 7},
		"a part of a percent":       {mesh.RetryBudget{Percent: 0.5, MinConcurrency: 0}, 400, 0, 2},
		"the minimum has no limits": {mesh.RetryBudget{MinConcurrency: uint32(circuit.NoLimit)}, 0, 0, circuit.NoLimit - 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Retries is not looked at where there is a budget.
			r := circuit.NewResources(&mesh.Limits{Requests: 1000, Pending: 1000, Retries: 1, Budget: &test.budget})
			for range test.requests {
				r.Acquire(circuit.Requests)
			}
			for range test.pending {
				r.Acquire(circuit.Pending)
			}
			if got := r.Max(circuit.Retries); got != test.want {
				t.Fatalf("budget of %d retries, want %d", got, test.want)
			}
			for range min(test.want, 100) {
				if !r.Acquire(circuit.Retries) {
					t.Fatalf("refused within the budget, with %d in use", r.InUse(circuit.Retries))
				}
			}
			if test.want <= 100 && r.Acquire(circuit.Retries) {
				t.Errorf("admitted %d retries, want %d", r.InUse(circuit.Retries), test.want)
			}
		})
	}
}
