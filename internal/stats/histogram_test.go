// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
)

// TestStepsCover checks that each value lies in its step, low < v <= high, and that steps are narrow.
func TestStepsCover(t *testing.T) {
	t.Parallel()
	check := func(v int64) {
		t.Helper()
		i := stats.StepOf(v)
		low, high, ms := stats.Lower(i), stats.Lower(i+1), float64(v)/1e6
		if i < 0 || i >= stats.Steps || ms > high || ms <= low && v > 0 {
			t.Fatalf("%d ns is in step %d: %v ... %v ms", v, i, low, high)
		}
		if v > 20_000 && (high-low)/low > 0.0626 {
			t.Fatalf("step %d is too wide: %v ... %v ms", i, low, high)
		}
	}
	for v := range int64(100_000) {
		check(v)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		check(1 + rnd.Int64N(1<<(1+rnd.IntN(49))))
	}
	check(stats.MaxValue)
	for i := range stats.Steps - 1 {
		if stats.Lower(i) >= stats.Lower(i+1) {
			t.Fatalf("step %d does not end above its start", i)
		}
	}
	if last := stats.StepOf(math.MaxInt64); last != stats.Steps-1 {
		t.Errorf("the greatest value is in step %d, want %d", last, stats.Steps-1)
	}
}

// TestBucketsAreExact: 0.5 to 100 ms are bounds of steps, so that these buckets count exactly.
func TestBucketsAreExact(t *testing.T) {
	t.Parallel()
	for i, b := range stats.Buckets {
		if b > 100 {
			break
		}
		r := stats.NewRegistry(stats.Options{})
		g := r.Group(schema(), "cluster.a")
		g.Observe(0, 0, int64(b*1e6))
		g.Observe(0, 0, int64(b*1e6)+1000)
		if below := g.Snapshot(0).Below(stats.Buckets[:]); below[i] != 1 || below[i+1] != 2 {
			t.Errorf("of a value at %v ms and one a little above, %d are in the bucket and %d in the next; want 1 and 2",
				b, below[i], below[i+1])
		}
	}
}

// TestAgainstModel compares quantiles and buckets with a sorted list of all values.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		r := stats.NewRegistry(stats.Options{Shards: 4})
		g := r.Group(schema(), "cluster.a")
		values := make([]float64, 1+rnd.IntN(3000))
		var sum float64
		for i := range values {
			v := int64(math.Exp(rnd.NormFloat64()*2) * 5e6)
			g.Observe(rnd.Uint32(), 0, v)
			values[i] = float64(v) / 1e6
			sum += values[i]
		}
		slices.Sort(values)
		s := g.Snapshot(0)
		if s.Count != int64(len(values)) || math.Abs(s.Sum-sum) > 1e-6*sum {
			t.Fatalf("count %d and sum %v, want %d and %v", s.Count, s.Sum, len(values), sum)
		}
		for _, q := range stats.Quantiles {
			want := values[max(int(math.Ceil(q*float64(len(values)))), 1)-1]
			if got := s.Quantile(q); math.Abs(got-want) > 0.0626*want+0.001 {
				t.Errorf("quantile %v of %d values = %v, want %v", q, len(values), got, want)
			}
		}
		below := s.Below(stats.Buckets[:])
		for i, b := range stats.Buckets {
			lo, _ := slices.BinarySearch(values, b*0.968)
			hi, _ := slices.BinarySearch(values, b*1.032)
			if below[i] < int64(lo) || below[i] > int64(hi) {
				t.Errorf("%d values are below %v ms, want %d to %d", below[i], b, lo, hi)
			}
		}
		if !slices.IsSorted(below[:]) {
			t.Errorf("cumulative buckets fall: %v", below)
		}
	}
}

// TestQuantileSpread: values of one step are taken as spread over it, as Envoy's are.
func TestQuantileSpread(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(schema(), "cluster.a")
	if !math.IsNaN(g.Snapshot(0).Quantile(0.5)) {
		t.Error("the median of nothing is a number")
	}
	for range 3 {
		g.Observe(0, 0, 1_100_000) // in 1.0625 ... 1.125
	}
	s := g.Snapshot(0)
	for q, want := range map[float64]float64{0: 1.078125, 0.5: 1.09375, 1: 1.109375} {
		if got := s.Quantile(q); got != want {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(schema(), "cluster.a")
	for _, n := range []int64{0, 1, 5, 6, 100} {
		g.ObserveCount(0, 0, n)
	}
	s := g.Snapshot(0)
	below := s.Below(stats.Buckets[:])
	// Buckets 0.5, 1, 5, 10, ... 100.
	if s.Sum != 112 || below[0] != 1 || below[1] != 2 || below[2] != 3 || below[3] != 4 || below[6] != 5 {
		t.Errorf("sum %v, below %v", s.Sum, below)
	}
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(schema(), "cluster.a")
	want := func(when string, interval, all int64) {
		t.Helper()
		if i, a := g.Interval(0).Count, g.Snapshot(0).Count; i != interval || a != all {
			t.Errorf("%s: %d in the interval, %d in all; want %d, %d", when, i, a, interval, all)
		}
	}
	g.Observe(0, 0, 5e6)
	want("before the first cut", 0, 1)
	r.Cut()
	want("after it", 1, 1)
	g.Observe(0, 0, 5e6)
	g.Observe(0, 0, 50e6)
	r.Cut()
	want("after the second", 2, 3)
	if m := g.Interval(0); m.Sum != 55 || m.Quantile(1) < 48 {
		t.Errorf("the interval has sum %v and maximum %v", m.Sum, m.Quantile(1))
	}
	r.Cut()
	want("after an empty one", 0, 3)
	g.Observe(0, 0, -1)
	if s := g.Snapshot(0); s.Count != 4 || s.Sum != 60 {
		t.Errorf("a negative value counts as 0: %d, %v", s.Count, s.Sum)
	}
}
