// SPDX-License-Identifier: Apache-2.0

package circuit

import "github.com/meshtap/meshtap/mesh"

// DefaultRetryBudget returns a retry budget with Envoy's defaults (CircuitBreakers.Thresholds.RetryBudget).
func DefaultRetryBudget() mesh.RetryBudget {
	return mesh.RetryBudget{Percent: 20, MinConcurrency: 3}
}

// budget returns how many retries may be in flight together with so many requests, active and pending: a share of them,
// but never less than the minimum. It bounds how much retries add to the load of an upstream that fails, which a number
// per request cannot (gRFC A6 throttles for the same reason, by a token count). The share is rounded down, as in Envoy.
func budget(b *mesh.RetryBudget, requests uint64) uint64 {
	share := uint64(b.Percent / 100 * float64(requests))
	return min(max(share, uint64(b.MinConcurrency)), NoLimit-1)
}
