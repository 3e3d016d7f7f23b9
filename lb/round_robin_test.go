// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshtap/meshtap/lb"
)

func TestRoundRobinEqualWeights(t *testing.T) {
	t.Parallel()
	p := lb.BuildRoundRobin(lb.DefaultRoundRobin(), equal(5), 1, nil)
	var r lb.Request
	first := p.Pick(&r)
	for k := 1; k < 20; k++ {
		if got, want := p.Pick(&r), (first+k)%5; got != want {
			t.Fatalf("pick %d after host %d = %d, want %d", k, first, got, want)
		}
	}
}

func TestRoundRobinStartsAnywhere(t *testing.T) {
	t.Parallel()
	starts := make([]int, 8)
	for seed := range uint64(800) {
		starts[lb.BuildRoundRobin(nil, equal(8), seed, nil).Pick(&lb.Request{})]++
	}
	for i, n := range starts {
		if n < 60 || n > 140 {
			t.Errorf("%d of 800 proxies start with host %d, want about 100", n, i)
		}
	}
}

func TestRoundRobinConcurrentlyExact(t *testing.T) {
	t.Parallel()
	const goroutines, cycles = 16, 10
	tests := map[string][]uint32{
		"equal weights":   {1, 1, 1, 1, 1, 1, 1},
		"two weights":     {1, 2},
		"common factor":   {100, 200, 700},
		"one heavy":       {1, 1, 1, 1, 996},
		"all different":   {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"zero counts one": {0, 3, 1},
	}
	for name, weights := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Each goroutine picks as often as the weights sum up to: so many whole cycles in all.
			sum := 0
			for _, w := range weights {
				sum += int(max(w, 1))
			}
			p := lb.BuildRoundRobin(nil, hostsOf(weights...), 7, nil)
			got := countsTogether(p, len(weights), goroutines, cycles*sum)
			for i, w := range weights {
				if want := goroutines * cycles * int(max(w, 1)); got[i] != want {
					t.Errorf("host %d of weight %d picked %d times, want exactly %d", i, w, got[i], want)
				}
			}
		})
	}
}

// TestScheduleProperties checks on random weights that every cycle is exact from whatever turn it starts, that each
// host waits at most three different times, and that no host is ever far from its due.
func TestScheduleProperties(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for range 300 {
		weights := randomWeights(r, 40, []uint32{2, 5, 30, 200}[r.IntN(4)])
		s := lb.NewSchedule(hostsOf(weights...))
		n := s.Total()
		start := r.Uint64()
		seen := make([][]uint64, len(weights))
		for k := range n {
			i := s.Host(start + k)
			seen[i] = append(seen[i], k)
		}
		factor := uint64(0) // weights share a factor where it is not 1
		for i, turns := range seen {
			factor = max(factor, uint64(weights[i])/uint64(len(turns)))
			if uint64(len(turns))*factor != uint64(weights[i]) {
				t.Fatalf("weights %v: host %d has %d of %d turns", weights, i, len(turns), n)
			}
			waits := map[uint64]bool{}
			for j := range turns {
				waits[(turns[(j+1)%len(turns)]+n-turns[j]-1)%n] = true
			}
			if len(waits) > 3 {
				t.Errorf("weights %v: host %d waits %d different times, want at most 3", weights, i, len(waits))
			}
			worst = max(worst, deviation(turns, n))
		}
	}
	// The furthest that the number of turns in any window was from the share of the weight. Deadline scheduling, which
	// needs a lock, has about 2.
	const bound = 6
	if worst > bound {
		t.Errorf("a host was %.2f turns from its due in some window, want at most %d", worst, bound)
	}
	t.Logf("furthest from due in any window: %.2f turns", worst)
}

// deviation returns the furthest that the number of turns in a window of a cycle of length n is from the window's share.
func deviation(turns []uint64, n uint64) float64 {
	share := float64(len(turns)) / float64(n)
	low, high := 0.0, 0.0
	for j, k := range turns {
		low = min(low, float64(j)-share*float64(k))
		high = max(high, float64(j+1)-share*float64(k+1))
	}
	return high - low
}

func TestScheduleFindsOwner(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		s := lb.NewSchedule(hostsOf(randomWeights(r, 200, 1<<20)...))
		for range 200 {
			k := r.Uint64()
			x := s.Point(k)
			want := slices.IndexFunc(s.Ends(), func(end uint64) bool { return x < end })
			if got := s.Host(k); got != want {
				t.Fatalf("turn %d of %d is host %d's, want %d", k, s.Total(), got, want)
			}
		}
	}
}

// TestScheduleOfLargeWeights takes weights whose sum is far beyond what a table of turns could hold.
func TestScheduleOfLargeWeights(t *testing.T) {
	t.Parallel()
	weights := make([]uint32, 1000)
	r := rand.New(rand.NewPCG(5, 6))
	sum := 0.0
	for i := range weights {
		weights[i] = math.MaxUint32 - r.Uint32N(1<<31)
		sum += float64(weights[i])
	}
	const picks = 1_000_000
	p := lb.BuildRoundRobin(nil, hostsOf(weights...), 8, nil)
	for i, n := range counts(t, p, len(weights), picks, 0) {
		if want := picks * float64(weights[i]) / sum; math.Abs(float64(n)-want) > 6 {
			t.Errorf("host %d picked %d times, want %.1f within 6", i, n, want)
		}
	}
}

func TestRoundRobinGoesOn(t *testing.T) {
	t.Parallel()
	var r lb.Request
	first := lb.BuildRoundRobin(nil, equal(4), 1, nil)
	at := first.Pick(&r)
	second := lb.BuildRoundRobin(nil, equal(4), 99, first)
	if got, want := second.Pick(&r), (at+1)%4; got != want {
		t.Errorf("the new picker starts with %d, want %d", got, want)
	}
	// A request that still has the old picker takes a turn from the new one, so neither repeats one.
	if got, want := first.Pick(&r), (at+2)%4; got != want {
		t.Errorf("the old picker goes on with %d, want %d", got, want)
	}
	if got, want := second.Pick(&r), (at+3)%4; got != want {
		t.Errorf("the new picker goes on with %d, want %d", got, want)
	}
}

func TestTrivialPickers(t *testing.T) {
	t.Parallel()
	for _, row := range lb.Rows() {
		parsed, err := row.Parse(row.TypeURLs[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := row.Build(parsed.Config, nil, 1, nil).Pick(&lb.Request{}); got != -1 {
			t.Errorf("%s over no host picks %d, want -1", row.Name, got)
		}
		want := 0
		if row.TypeURLs[0] == lb.ClusterProvidedType {
			want = -1
		}
		if got := row.Build(parsed.Config, equal(1), 1, nil).Pick(&lb.Request{}); got != want {
			t.Errorf("%s over one host picks %d, want %d", row.Name, got, want)
		}
	}
}
