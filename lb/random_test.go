// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/meshtap/meshtap/lb"
)

// TestRandomColumns checks the columns of the alias method themselves: no statistics needed.
func TestRandomColumns(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		weights := randomWeights(r, 100, []uint32{3, 1000, math.MaxUint32}[r.IntN(3)])
		sum := 0.0
		for _, w := range weights {
			sum += float64(w)
		}
		for i, got := range lb.Shares(hostsOf(weights...)) {
			if want := float64(weights[i]) / sum; math.Abs(got-want) > 1e-12 {
				t.Fatalf("weights %v: host %d has a share of %v, want %v", weights, i, got, want)
			}
		}
	}
}

func TestRandomFollowsWeights(t *testing.T) {
	t.Parallel()
	tests := map[string][]uint32{
		"equal weights": {1, 1, 1, 1, 1, 1, 1, 1},
		"two hosts":     {1, 1},
		"weights":       {1, 2, 3, 4, 90},
		"large weights": {math.MaxUint32, math.MaxUint32 / 2, 1},
	}
	for name, weights := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := lb.BuildRandom(lb.DefaultRandom(), hostsOf(weights...), 0, nil)
			const picks = 200_000
			checkShares(t, counts(t, p, len(weights), picks, 42), weights)
		})
	}
}

// checkShares fails where the counts are unlikely for the weights: chi-square, beyond four standard deviations of its
// mean. Hosts that are expected less than 5 times are left out.
func checkShares(t *testing.T, got []int, weights []uint32) {
	t.Helper()
	sum, picks := 0.0, 0
	for i, w := range weights {
		sum += float64(w)
		picks += got[i]
	}
	chi, free := 0.0, -1.0
	for i, w := range weights {
		want := float64(picks) * float64(w) / sum
		if want < 5 {
			continue
		}
		chi += (float64(got[i]) - want) * (float64(got[i]) - want) / want
		free++
	}
	if limit := free + 4*math.Sqrt(2*free) + 4; chi > limit {
		t.Errorf("counts %v for weights %v: chi-square is %.1f, want below %.1f", got, weights, chi, limit)
	}
}
