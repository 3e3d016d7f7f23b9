// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshtap/meshtap/lb"
)

// TestPriorityLevelTables holds the worked tables of Envoy's documentation: percentages of healthy (and degraded) hosts
// by priority, and the load that each gets. In two rows the documentation rounds where Envoy gives what rounding leaves
// to the first priority (load_balancer_impl.cc, recalculatePerPriorityState); there the table has what Envoy does.
func TestPriorityLevelTables(t *testing.T) {
	t.Parallel()
	type row struct {
		healthy, degraded []int
		load, fallback    []uint32 // to healthy and to degraded hosts; nil is all 0
		panics            []bool
	}
	no, yes := []bool{false, false}, []bool{true, true}
	tables := map[string][]row{
		"priority levels, two, the second healthy": {
			{healthy: []int{100, 100}, load: []uint32{100, 0}},
			{healthy: []int{72, 100}, load: []uint32{100, 0}},
			{healthy: []int{71, 100}, load: []uint32{99, 1}},
			{healthy: []int{50, 100}, load: []uint32{70, 30}},
			{healthy: []int{25, 100}, load: []uint32{35, 65}},
			{healthy: []int{0, 100}, load: []uint32{0, 100}},
		},
		"priority levels, two": {
			{healthy: []int{100, 100}, load: []uint32{100, 0}},
			{healthy: []int{72, 72}, load: []uint32{100, 0}},
			{healthy: []int{71, 71}, load: []uint32{99, 1}},
			{healthy: []int{50, 50}, load: []uint32{70, 30}},
			{healthy: []int{25, 100}, load: []uint32{35, 65}},
			{healthy: []int{25, 25}, load: []uint32{50, 50}, panics: yes},
		},
		"priority levels, three": {
			{healthy: []int{100, 100, 100}, load: []uint32{100, 0, 0}},
			{healthy: []int{72, 72, 100}, load: []uint32{100, 0, 0}},
			{healthy: []int{71, 71, 100}, load: []uint32{99, 1, 0}},
			{healthy: []int{50, 50, 100}, load: []uint32{70, 30, 0}},
			{healthy: []int{25, 100, 100}, load: []uint32{35, 65, 0}},
			{healthy: []int{25, 25, 100}, load: []uint32{35, 35, 30}},
		},
		"degraded endpoints": {
			{healthy: []int{100}, degraded: []int{0}, load: []uint32{100}},
			{healthy: []int{71}, degraded: []int{0}, load: []uint32{100}},
			{healthy: []int{71}, degraded: []int{29}, load: []uint32{99}, fallback: []uint32{1}},
			{healthy: []int{25}, degraded: []int{65}, load: []uint32{35}, fallback: []uint32{65}},
			{healthy: []int{5}, degraded: []int{0}, load: []uint32{100}, panics: []bool{true}},
		},
		"panic threshold, the second healthy": {
			{healthy: []int{72, 100}, load: []uint32{100, 0}, panics: no},
			{healthy: []int{71, 100}, load: []uint32{99, 1}, panics: no},
			{healthy: []int{50, 100}, load: []uint32{70, 30}, panics: no},
			{healthy: []int{25, 100}, load: []uint32{35, 65}, panics: no},
			{healthy: []int{0, 100}, load: []uint32{0, 100}, panics: no},
		},
		"panic threshold": {
			{healthy: []int{72, 72}, load: []uint32{100, 0}, panics: no},
			{healthy: []int{71, 71}, load: []uint32{99, 1}, panics: no},
			{healthy: []int{50, 60}, load: []uint32{70, 30}, panics: no},
			{healthy: []int{25, 100}, load: []uint32{35, 65}, panics: no},
			{healthy: []int{25, 25}, load: []uint32{50, 50}, panics: yes},
			// Documented as 7 and 93.
			{healthy: []int{5, 65}, load: []uint32{8, 92}, panics: []bool{true, false}},
		},
	}
	for name, rows := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range rows {
				levels := make([]lb.Level, len(r.healthy))
				for i := range levels {
					levels[i] = lb.Level{Priority: uint32(i), Hosts: 100, Healthy: r.healthy[i]}
					if r.degraded != nil {
						levels[i].Degraded = r.degraded[i]
					}
				}
				lb.ShareLoad(levels, 140, 50)
				for i, l := range levels {
					if l.HealthyLoad != r.load[i] || r.fallback != nil && l.DegradedLoad != r.fallback[i] {
						t.Errorf("healthy %v, degraded %v: priority %d gets %d+%d, want %v+%v",
							r.healthy, r.degraded, i, l.HealthyLoad, l.DegradedLoad, r.load, r.fallback)
					}
					if r.panics != nil && l.Panic != r.panics[i] {
						t.Errorf("healthy %v: panic of priority %d is %v, want %v", r.healthy, i, l.Panic, r.panics)
					}
				}
			}
		})
	}
}

func TestShareLoadCases(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		levels    []lb.Level
		factor    uint32
		threshold uint32
		want      []lb.Level // of which HealthyLoad, DegradedLoad and Panic count
	}{
		"documented as 36, 36, 28": {
			levels: []lb.Level{{Hosts: 100, Healthy: 25}, {Hosts: 100, Healthy: 25}, {Hosts: 100, Healthy: 20}},
			factor: 140,
			want:   []lb.Level{{HealthyLoad: 37}, {HealthyLoad: 35}, {HealthyLoad: 28}},
		},
		"total panic goes by hosts": {
			levels: []lb.Level{{Hosts: 2}, {Hosts: 8}}, factor: 140, threshold: 50,
			want: []lb.Level{{HealthyLoad: 20, Panic: true}, {HealthyLoad: 80, Panic: true}},
		},
		"total panic gives the rest to the first": {
			levels: []lb.Level{{Hosts: 1}, {Hosts: 1}, {Hosts: 1}}, factor: 140, threshold: 50,
			want: []lb.Level{{HealthyLoad: 34, Panic: true}, {HealthyLoad: 33, Panic: true}, {HealthyLoad: 33, Panic: true}},
		},
		"all down and no panic": {
			levels: []lb.Level{{Hosts: 2}, {Hosts: 8}}, factor: 140,
			want: []lb.Level{{HealthyLoad: 100}, {}},
		},
		"degraded hosts count against a panic": {
			levels: []lb.Level{{Hosts: 10, Healthy: 2, Degraded: 3}}, factor: 140, threshold: 50,
			want: []lb.Level{{HealthyLoad: 40, DegradedLoad: 60}},
		},
		"degraded only, and the rest of rounding": {
			levels: []lb.Level{{Hosts: 7, Degraded: 1}, {Hosts: 7, Degraded: 2}}, factor: 100,
			want: []lb.Level{{DegradedLoad: 34}, {DegradedLoad: 66}},
		},
		"healthy hosts of later priorities before degraded ones": {
			levels: []lb.Level{{Hosts: 10, Healthy: 5, Degraded: 5}, {Hosts: 10, Healthy: 10}}, factor: 100, threshold: 50,
			want: []lb.Level{{HealthyLoad: 50}, {HealthyLoad: 50}},
		},
		"no overprovisioning": {
			levels: []lb.Level{{Hosts: 10, Healthy: 9}, {Hosts: 10, Healthy: 10}}, factor: 100, threshold: 50,
			want: []lb.Level{{HealthyLoad: 90}, {HealthyLoad: 10}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lb.ShareLoad(test.levels, test.factor, test.threshold)
			for i, l := range test.levels {
				w := test.want[i]
				if l.HealthyLoad != w.HealthyLoad || l.DegradedLoad != w.DegradedLoad || l.Panic != w.Panic {
					t.Errorf("level %d: %d+%d panic %v, want %d+%d panic %v", i,
						l.HealthyLoad, l.DegradedLoad, l.Panic, w.HealthyLoad, w.DegradedLoad, w.Panic)
				}
			}
		})
	}
}

// TestShareLoadAgainstModel compares random levels with Envoy's pseudo code written down as it stands.
func TestShareLoadAgainstModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		levels := make([]lb.Level, 1+r.IntN(5))
		for i := range levels {
			hosts := 1 + r.IntN(12)
			healthy := r.IntN(hosts + 1)
			if r.IntN(3) == 0 {
				healthy = 0
			}
			levels[i] = lb.Level{Hosts: hosts, Healthy: healthy, Degraded: r.IntN(hosts - healthy + 1)}
		}
		factor, threshold := 100+r.Uint32N(100), []uint32{0, 10, 50, 100}[r.IntN(4)]
		healthy, degraded, panics := modelOf(levels, int(factor), int(threshold))
		lb.ShareLoad(levels, factor, threshold)
		sum := uint32(0)
		for i, l := range levels {
			sum += l.HealthyLoad + l.DegradedLoad
			if int(l.HealthyLoad) != healthy[i] || int(l.DegradedLoad) != degraded[i] || l.Panic != panics[i] {
				t.Fatalf("level %d of %+v with factor %d, threshold %d: want %d+%d, panic %v",
					i, levels, factor, threshold, healthy[i], degraded[i], panics[i])
			}
		}
		if sum != 100 {
			t.Fatalf("loads of %+v add up to %d", levels, sum)
		}
	}
}

// modelOf is the slow way to Envoy's result: each load is worked out from the definition, with the loads before it.
func modelOf(levels []lb.Level, factor, threshold int) (healthy, degraded []int, panics []bool) {
	n := len(levels)
	score := make([]int, 2*n) // healthy levels, then degraded ones
	sum := 0
	for i, l := range levels {
		score[i] = min(100, factor*l.Healthy/l.Hosts)
		score[n+i] = min(100, factor*l.Degraded/l.Hosts)
		sum += score[i] + score[n+i]
	}
	normalized := min(100, sum)
	load := make([]int, 2*n)
	panics = make([]bool, n)
	total := func() (t int) {
		for _, l := range load {
			t += l
		}
		return t
	}
	for i := range load {
		if normalized > 0 {
			load[i] = min(100-total(), score[i]*100/normalized)
		}
	}
	if first := slices.IndexFunc(score, func(s int) bool { return s > 0 }); first >= 0 {
		load[first] += 100 - total()
	}
	if normalized < 100 {
		for i, l := range levels {
			panics[i] = float64(100*(l.Healthy+l.Degraded))/float64(l.Hosts) < float64(threshold)
		}
		if !slices.Contains(panics, false) {
			hosts := 0
			for _, l := range levels {
				hosts += l.Hosts
			}
			clear(load)
			for i, l := range levels {
				load[i] = 100 * l.Hosts / hosts
			}
			load[0] += 100 - total()
		}
	}
	if total() == 0 {
		load[0] = 100
	}
	return load[:n], load[n:], panics
}
