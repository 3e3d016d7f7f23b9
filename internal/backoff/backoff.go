// SPDX-License-Identifier: Apache-2.0

// Package backoff says how long to wait before the next try: exponential growth with full jitter, so that many proxies
// that lost the same peer do not return at the same moment. It is pure: it neither sleeps nor reads a clock, and the
// random source is the caller's.
package backoff

import "time"

// Backoff is the state of one series of tries. The zero value waits for nothing; set Base and Max. It is not safe for
// concurrent use.
type Backoff struct {
	// Base bounds the first wait; each further one doubles the bound, up to Max.
	Base, Max time.Duration
	// Floor is the least wait; the jitter is between it and the bound.
	Floor time.Duration
	tries int
}

// Next returns how long to wait before the next try: at least Floor, and below min(Max, Base * 2^n) after n failures.
// random returns a number in [0, 1), such as rand.Float64.
func (b *Backoff) Next(random func() float64) time.Duration {
	bound := b.bound()
	b.tries++
	if bound <= b.Floor {
		return b.Floor
	}
	return b.Floor + time.Duration(random()*float64(bound-b.Floor))
}

// Reset starts a new series: the peer answered.
func (b *Backoff) Reset() { b.tries = 0 }

// Tries returns how often Next was called since the last Reset.
func (b *Backoff) Tries() int { return b.tries }

func (b *Backoff) bound() time.Duration {
	bound := b.Base
	for range b.tries {
		if bound >= b.Max/2 {
			return b.Max
		}
		bound *= 2
	}
	return min(bound, b.Max)
}
