// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/lb"
)

// roundRobin are the options of a set with Envoy's defaults.
func roundRobin() lb.Options {
	return lb.Options{Build: lb.BuildRoundRobin, Config: lb.DefaultRoundRobin(), PanicThreshold: 50, Seed: 1}
}

// pickAll picks often and returns the sorted indices that came up, and whether any pick was in a panic.
func pickAll(s *lb.Set) (hosts []int, panicked bool) {
	r := lb.Request{Rand: 1}
	for range 2000 {
		i, p := s.Pick(&r)
		panicked = panicked || p
		if !slices.Contains(hosts, i) {
			hosts = append(hosts, i)
		}
	}
	slices.Sort(hosts)
	return hosts, panicked
}

func TestSetPicksByHealth(t *testing.T) {
	t.Parallel()
	const h, d, u = lb.Healthy, lb.Degraded, lb.Unhealthy
	tests := map[string]struct {
		health     []lb.Health
		priority   []uint32
		threshold  float64
		want       []int
		wantPanics bool
	}{
		"no hosts":                           {threshold: 50, want: []int{-1}},
		"all healthy":                        {[]lb.Health{h, h, h}, []uint32{0, 0, 0}, 50, []int{0, 1, 2}, false},
		"unhealthy ones are left out":        {[]lb.Health{h, u, h, h}, []uint32{0, 0, 0, 0}, 50, []int{0, 2, 3}, false},
		"degraded ones wait":                 {[]lb.Health{h, d, h, h}, []uint32{0, 0, 0, 0}, 50, []int{0, 2, 3}, false},
		"degraded ones help":                 {[]lb.Health{h, d, d, u}, []uint32{0, 0, 0, 0}, 50, []int{0, 1, 2}, false},
		"too few make a panic":               {[]lb.Health{h, u, u, u}, []uint32{0, 0, 0, 0}, 50, []int{0, 1, 2, 3}, true},
		"threshold 0 makes none":             {[]lb.Health{h, u, u, u}, []uint32{0, 0, 0, 0}, 0, []int{0}, false},
		"threshold 0, all down":              {[]lb.Health{u, u}, []uint32{0, 0}, 0, []int{-1}, false},
		"all down":                           {[]lb.Health{u, u}, []uint32{0, 1}, 50, []int{0, 1}, true},
		"the next priority waits":            {[]lb.Health{h, h}, []uint32{0, 1}, 50, []int{0}, false},
		"the next priority takes over":       {[]lb.Health{u, h}, []uint32{0, 1}, 50, []int{1}, false},
		"both priorities share":              {[]lb.Health{h, u, h}, []uint32{0, 0, 1}, 50, []int{0, 2}, false},
		"hosts in any order":                 {[]lb.Health{h, h, u, h}, []uint32{7, 0, 0, 7}, 50, []int{0, 1, 3}, false},
		"a panic of one priority alone":      {[]lb.Health{u, u, u, d, h, u, u}, []uint32{0, 0, 0, 0, 1, 1, 1}, 30, []int{0, 1, 2, 3, 4}, true},
		"part of a percent does not count":   {[]lb.Health{h, u}, []uint32{0, 0}, 50.9, []int{0}, false},
		"a threshold over 100 is one of 100": {[]lb.Health{h, u}, []uint32{0, 0}, 1000, []int{0, 1}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts := make([]*lb.Host, len(test.health))
			for i := range hosts {
				hosts[i] = &lb.Host{Health: test.health[i], Priority: test.priority[i]}
			}
			o := roundRobin()
			o.PanicThreshold = test.threshold
			got, panicked := pickAll(lb.NewSet(hosts, o, nil))
			if !slices.Equal(got, test.want) || panicked != test.wantPanics {
				t.Errorf("picks %v, panic %v; want %v, panic %v", got, panicked, test.want, test.wantPanics)
			}
		})
	}
}

func TestSetSharesByLoad(t *testing.T) {
	t.Parallel()
	hosts := equal(20)
	for i, h := range hosts {
		if i >= 10 {
			h.Priority = 1
		} else if i >= 5 {
			h.Health = lb.Unhealthy
		}
	}
	s := lb.NewSet(hosts, roundRobin(), nil)
	first := 0
	const picks = 100_000
	r := lb.Request{Rand: 4}
	for range picks {
		if i, _ := s.Pick(&r); i < 5 {
			first++
		}
	}
	checkShares(t, []int{first, picks - first}, []uint32{70, 30})
	if l := s.Levels(); l[0].HealthyLoad != 70 || l[1].HealthyLoad != 30 || l[0].Healthy != 5 || l[0].Hosts != 10 {
		t.Errorf("Levels() = %+v", l)
	}
}

// TestSetPanicKeepsTurns has a priority in a panic that gets load both for its healthy and for its degraded hosts: all of
// it goes round all hosts as one.
func TestSetPanicKeepsTurns(t *testing.T) {
	t.Parallel()
	hosts := equal(20)
	for i, h := range hosts {
		h.Health = lb.Unhealthy
		if i >= 10 {
			h.Priority = 1
		}
		if i == 0 || i >= 15 {
			h.Health = lb.Healthy
		}
	}
	hosts[1].Health = lb.Degraded
	s := lb.NewSet(hosts, roundRobin(), nil)
	if l := s.Levels()[0]; !l.Panic || l.HealthyLoad == 0 || l.DegradedLoad == 0 {
		t.Fatalf("the first priority is %+v, want a panic with both loads", l)
	}
	last := -1
	r := lb.Request{Rand: 3}
	for range 1000 {
		i, panicked := s.Pick(&r)
		if !panicked {
			continue
		}
		if last >= 0 && i != (last+1)%10 {
			t.Fatalf("host %d after %d", i, last)
		}
		last = i
	}
}

func TestSetByHash(t *testing.T) {
	t.Parallel()
	hosts := equal(4)
	hosts[1].Health = lb.Unhealthy
	hosts[2].Priority, hosts[3].Priority = 1, 1
	s := lb.NewSet(hosts, roundRobin(), nil)
	// 70 percent go to priority 0: the hashes that end in 00 ... 69.
	for hash := range uint64(1000) {
		i, _ := s.Pick(&lb.Request{Hash: hash, HasHash: true})
		if wantFirst := hash%100 < 70; (i == 0) != wantFirst {
			t.Fatalf("hash %d goes to host %d", hash, i)
		}
	}
}

// TestSetGoesOn flips the health of one host every few picks: the others must still get turn after turn, where starting
// anew each time would leave it to chance.
func TestSetGoesOn(t *testing.T) {
	t.Parallel()
	hosts := equal(10)
	var r lb.Request
	var s *lb.Set
	counts := make([]int, len(hosts))
	const rounds, picks = 150, 7
	for k := range rounds {
		hosts[9].Health = lb.Health(k % 2 * int(lb.Unhealthy))
		s = lb.NewSet(hosts, roundRobin(), s)
		for range picks {
			i, _ := s.Pick(&r)
			counts[i]++
		}
	}
	const due = rounds * picks / 10
	for i, n := range counts[:9] {
		if n < due-5 || n > due+15 {
			t.Errorf("host %d picked %d times, want %d or, for its part of host 9, a little more: %v", i, n, due, counts)
		}
	}
}

// TestSetUnderChurn picks from many goroutines while the set is rebuilt: every request in flight is counted down, no
// pick is out of range, and the race detector has a look.
func TestSetUnderChurn(t *testing.T) {
	t.Parallel()
	for _, row := range lb.Rows() {
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			parsed, err := row.Parse(row.TypeURLs[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			hosts := hostsOf(1, 2, 3, 4, 5, 6)
			o := lb.Options{Build: row.Build, Config: parsed.Config, PanicThreshold: 50}
			var cur atomic.Pointer[lb.Set]
			cur.Store(lb.NewSet(hosts, o, nil))
			var wg sync.WaitGroup
			for g := range 8 {
				wg.Go(func() {
					r := lb.Request{Rand: uint64(g)}
					for range 5000 {
						i, _ := cur.Load().Pick(&r)
						if i < -1 || i >= len(hosts) {
							t.Errorf("Pick() = %d", i)
						}
						if i >= 0 {
							hosts[i].Active.Add(1)
							hosts[i].Active.Add(-1)
						}
					}
				})
			}
			for k := range 500 {
				hosts[k%6].Health = lb.Health(k / 6 % 3)
				hosts[k%6].Weight = uint32(k%3 + 1)
				cur.Store(lb.NewSet(hosts, o, cur.Load()))
			}
			wg.Wait()
			for i, h := range hosts {
				if n := h.Active.Load(); n != 0 {
					t.Errorf("host %d has %d requests in flight at the end", i, n)
				}
			}
		})
	}
}
