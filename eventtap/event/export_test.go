// SPDX-License-Identifier: Apache-2.0

package event

import "math/rand/v2"

// Random makes an event of any kind from a seed.
func Random(seed uint64) *Event {
	r := rand.New(rand.NewPCG(seed, 7))
	return random(r, Request+Kind(seed)%(NumKinds-Request))
}

// Equal compares two events.
func Equal(a, b *Event) error { return equal(a, b) }
