// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/lb"
)

// hostsOf returns healthy hosts of priority 0 with these weights.
func hostsOf(weights ...uint32) []*lb.Host {
	hosts := make([]*lb.Host, len(weights))
	for i, w := range weights {
		hosts[i] = &lb.Host{Weight: w}
	}
	return hosts
}

// equal returns n hosts of weight 1.
func equal(n int) []*lb.Host {
	hosts := make([]*lb.Host, n)
	for i := range hosts {
		hosts[i] = &lb.Host{Weight: 1}
	}
	return hosts
}

// randomWeights returns 2 to maxHosts weights of 1 to maxWeight.
func randomWeights(r *rand.Rand, maxHosts int, maxWeight uint32) []uint32 {
	w := make([]uint32, 2+r.IntN(maxHosts-1))
	for i := range w {
		w[i] = 1 + r.Uint32N(maxWeight)
	}
	return w
}

// counts picks n times and returns how often each host was picked.
func counts(t *testing.T, p lb.Picker, hosts, n int, seed uint64) []int {
	t.Helper()
	c := make([]int, hosts)
	r := lb.Request{Rand: seed}
	for range n {
		i := p.Pick(&r)
		if i < 0 || i >= hosts {
			t.Fatalf("Pick() = %d with %d hosts", i, hosts)
		}
		c[i]++
	}
	return c
}

// countsTogether picks n times from each of several goroutines and returns how often each host was picked.
func countsTogether(p lb.Picker, hosts, goroutines, n int) []int {
	each := make([][]int, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		each[g] = make([]int, hosts)
		wg.Go(func() {
			r := lb.Request{Rand: uint64(g)}
			for range n {
				each[g][p.Pick(&r)]++
			}
		})
	}
	wg.Wait()
	sum := make([]int, hosts)
	for _, c := range each {
		for i, n := range c {
			sum[i] += n
		}
	}
	return sum
}

// noAllocs fails the test if f allocates.
func noAllocs(t *testing.T, f func()) {
	t.Helper()
	if invariant.On {
		t.Skip("allocations are counted in release builds only")
	}
	if n := testing.AllocsPerRun(1000, f); n != 0 {
		t.Errorf("%v allocations per run, want 0", n)
	}
}
