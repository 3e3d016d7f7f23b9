// SPDX-License-Identifier: Apache-2.0

package whatif

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// Model says what a host answers, and after how long. Whether it fails is always drawn from what it did at that time.
type Model struct {
	// Window is how far from the moment the host's recorded attempts may be that one is drawn from; 0 is DefaultWindow.
	Window time.Duration
	// P50 and P99, where they are not 0, replace the recorded times of answers by a log-normal distribution with these
	// percentiles; the same for both is that time always.
	P50, P99 time.Duration
}

// DefaultWindow is the window in which attempts are drawn.
const DefaultWindow = 10 * time.Second

// nearest is how many attempts are drawn from where the window has fewer.
const nearest = 32

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// hang is how long an attempt takes that was cut off when it was recorded.
const hang = math.MaxInt64 / 4

// sampler is what the model knows of one host: its attempts in their order.
type sampler struct {
	tries  []try
	lo, hi int // those in the window
}

// informative tells whether an attempt says anything of its host.
func informative(k mesh.FailureKind) bool {
	switch k {
	case mesh.DownstreamClosed, mesh.DownstreamProtocolError, mesh.RequestReadTimeout, mesh.Overflow, mesh.NoHealthyHost, mesh.CircuitOpen,
		mesh.Overloaded, mesh.InternalError:
		return false
	}
	return true
}

// samplers returns what is known of each host, and in the last place of all together, for hosts of which nothing is.
func (r *Recording) samplers() []sampler {
	out := make([]sampler, len(r.Hosts)+1)
	for _, t := range r.tries {
		if !informative(t.failure) {
			continue
		}
		out[t.host].tries = append(out[t.host].tries, t)
		out[len(r.Hosts)].tries = append(out[len(r.Hosts)].tries, t)
	}
	for i := range out {
		slices.SortStableFunc(out[i].tries, func(a, b try) int { return cmp.Compare(a.at, b.at) })
	}
	return out
}

// draw returns an attempt as the host made them about now. now never goes back. ok is false where nothing is known.
func (s *sampler) draw(now, window int64, rnd *rand.Rand) (t try, ok bool) {
	if len(s.tries) == 0 {
		return try{}, false
	}
	for s.lo < len(s.tries) && s.tries[s.lo].at < now-window {
		s.lo++
	}
	for s.hi < len(s.tries) && s.tries[s.hi].at <= now+window {
		s.hi++
	}
	lo, hi := s.lo, s.hi
	if hi-lo < nearest {
		lo = max(min(lo, len(s.tries))-(nearest-(hi-lo))/2, 0)
		hi = min(lo+nearest, len(s.tries))
		lo = max(hi-nearest, 0)
	}
	return s.tries[lo+rnd.IntN(hi-lo)], true
}

// answer draws what a host answers now.
func (m *Model) answer(s, all *sampler, now int64, rnd *rand.Rand) try {
	window := int64(cmp.Or(m.Window, DefaultWindow))
	t, ok := s.draw(now, window, rnd)
	if !ok {
		t, _ = all.draw(now, window, rnd)
	}
	switch {
	case t.failure == mesh.RequestTimeout || t.failure == mesh.PerTryTimeout || t.failure == mesh.StreamIdleTimeout || t.failure == mesh.MaxDuration:
		t.took = hang
	case m.P50 > 0 && t.failure == mesh.NoFailure:
		sigma := math.Log(float64(max(m.P99, m.P50))/float64(m.P50)) / z99
		t.took = int64(float64(m.P50) * math.Exp(sigma*rnd.NormFloat64()))
	}
	return t
}
