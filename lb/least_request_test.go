// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/lb"
)

func TestLeastRequestOfTwo(t *testing.T) {
	t.Parallel()
	hosts := equal(2)
	p := lb.BuildLeastRequest(lb.DefaultLeastRequest(), hosts, 0, nil)
	r := rand.New(rand.NewPCG(1, 2))
	q := lb.Request{Rand: 3}
	for range 10_000 {
		a, b := r.Int64N(4), r.Int64N(4)
		hosts[0].Active.Store(a)
		hosts[1].Active.Store(b)
		if i := p.Pick(&q); a != b && (i == 1) != (b < a) {
			t.Fatalf("with %d and %d requests in flight, picks host %d", a, b, i)
		}
	}
}

func TestLeastRequestTies(t *testing.T) {
	t.Parallel()
	const hosts = 7
	configs := map[string]lb.LeastRequest{
		"two choices":             {ChoiceCount: 2, ActiveRequestBias: 1},
		"three choices":           {ChoiceCount: 3, ActiveRequestBias: 1},
		"more choices than hosts": {ChoiceCount: 8, ActiveRequestBias: 1},
		"full scan":               {ChoiceCount: 2, ActiveRequestBias: 1, FullScan: true},
	}
	for name, c := range configs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := lb.BuildLeastRequest(c, equal(hosts), 0, nil)
			checkShares(t, counts(t, p, hosts, 100_000, 1), []uint32{1, 1, 1, 1, 1, 1, 1})
		})
	}
}

// TestLeastRequestNeverPicksBusiest is what Envoy promises for choices: the busiest host gets nothing until it is not.
func TestLeastRequestNeverPicksBusiest(t *testing.T) {
	t.Parallel()
	for _, choices := range []uint32{2, 3, 5} {
		hosts := equal(10)
		for i, h := range hosts {
			h.Active.Store(int64(i))
		}
		p := lb.BuildLeastRequest(lb.LeastRequest{ChoiceCount: choices, ActiveRequestBias: 1}, hosts, 0, nil)
		got := counts(t, p, 10, 100_000, 9)
		if got[9] != 0 {
			t.Errorf("%d choices: the busiest host was picked %d times", choices, got[9])
		}
		for i := 1; i < 10; i++ {
			if got[i] > got[i-1] {
				t.Errorf("%d choices: host %d with %d in flight was picked more often (%d) than one with fewer (%d)",
					choices, i, i, got[i], got[i-1])
			}
		}
	}
}

func TestLeastRequestFullScan(t *testing.T) {
	t.Parallel()
	hosts := equal(50)
	for i, h := range hosts {
		h.Active.Store(5)
		if i == 17 || i == 31 {
			h.Active.Store(4)
		}
	}
	p := lb.BuildLeastRequest(lb.LeastRequest{ChoiceCount: 2, FullScan: true}, hosts, 0, nil)
	got := counts(t, p, 50, 20_000, 5)
	checkShares(t, []int{got[17], got[31], 20_000 - got[17] - got[31]}, []uint32{1, 1, 0})
	if got[17]+got[31] != 20_000 {
		t.Errorf("picked others than the two least loaded hosts: %v", got)
	}
}

// TestLeastRequestWeighted holds loads still: then picks must follow weight / (active + 1)^bias.
func TestLeastRequestWeighted(t *testing.T) {
	t.Parallel()
	for _, bias := range []float64{0, 0.5, 1, 1.5, 2} {
		weights := []uint32{1, 2, 3, 10, 7}
		active := []int64{0, 3, 1, 9, 4}
		hosts := hostsOf(weights...)
		sum := 0.0
		share := make([]float64, len(hosts))
		for i, h := range hosts {
			h.Active.Store(active[i])
			share[i] = float64(weights[i]) / math.Pow(float64(active[i]+1), bias)
			sum += share[i]
		}
		const picks = 100_000
		p := lb.BuildLeastRequest(lb.LeastRequest{ChoiceCount: 2, ActiveRequestBias: bias}, hosts, 11, nil)
		for i, n := range counts(t, p, len(hosts), picks, 0) {
			// Deadlines keep each host within one turn of its due; the fixed schedule of bias 0 within a few.
			if want := picks * share[i] / sum; math.Abs(float64(n)-want) > 4 {
				t.Errorf("bias %v: host %d picked %d times, want %.1f within 4", bias, i, n, want)
			}
		}
	}
}

// TestLeastRequestDeadlines runs random loads against a plain search for the earliest deadline.
func TestLeastRequestDeadlines(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		weights := append(randomWeights(r, 60, 50), 51)
		hosts := hostsOf(weights...)
		p := lb.BuildLeastRequest(lb.DefaultLeastRequest(), hosts, r.Uint64(), nil)
		want := lb.DeadlinesOf(p)
		for range 20 * len(hosts) {
			earliest := slices.Min(want)
			i := p.Pick(&lb.Request{})
			if want[i] != earliest {
				t.Fatalf("picked host %d, due at %v; the earliest is due at %v", i, want[i], earliest)
			}
			want[i] += float64(hosts[i].Active.Load()+1) / float64(weights[i])
			hosts[r.IntN(len(hosts))].Active.Store(r.Int64N(20))
		}
		if got := lb.DeadlinesOf(p); !slices.Equal(got, want) {
			t.Fatalf("deadlines are %v, want %v", got, want)
		}
	}
}

// TestLeastRequestWeightedConcurrently holds loads still while many pick: together they get the same shares.
func TestLeastRequestWeightedConcurrently(t *testing.T) {
	t.Parallel()
	weights := []uint32{1, 2, 3, 4}
	p := lb.BuildLeastRequest(lb.DefaultLeastRequest(), hostsOf(weights...), 3, nil)
	const goroutines, picks = 8, 5000
	for i, n := range countsTogether(p, len(weights), goroutines, picks) {
		if want := goroutines * picks * int(weights[i]) / 10; n < want-2 || n > want+2 {
			t.Errorf("host %d picked %d times, want %d within 2", i, n, want)
		}
	}
}

func TestLeastRequestValidate(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config lb.LeastRequest
		path   string
	}{
		"default":        {lb.DefaultLeastRequest(), ""},
		"one choice":     {lb.LeastRequest{ChoiceCount: 1, ActiveRequestBias: 1}, "choice_count"},
		"negative bias":  {lb.LeastRequest{ChoiceCount: 2, ActiveRequestBias: -1}, "active_request_bias.default_value"},
		"no number":      {lb.LeastRequest{ChoiceCount: 2, ActiveRequestBias: math.NaN()}, "active_request_bias.default_value"},
		"infinite bias":  {lb.LeastRequest{ChoiceCount: 2, ActiveRequestBias: math.Inf(1)}, "active_request_bias.default_value"},
		"bias 0 and all": {lb.LeastRequest{ChoiceCount: 2, FullScan: true}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.config.Validate()
			var field *registry.FieldError
			if errors.As(err, &field) != (test.path != "") || field != nil && field.Path != test.path {
				t.Errorf("Validate() = %v, want an error at %q", err, test.path)
			}
		})
	}
}
