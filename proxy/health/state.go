// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// verdict is what one check found.
type verdict uint8

const (
	// passed: the host is well. degraded: it is, but asks for less work.
	passed verdict = iota
	degraded
	// refused: the host itself says that it is not well. It is believed at once.
	refused
	// retriable: the host says so in a way that counts towards the threshold.
	retriable
	// unreachable: there was no answer, or none that can be understood. It counts towards the threshold.
	unreachable
)

// ok reports whether the check succeeded.
func (v verdict) ok() bool { return v <= degraded }

// The bounds of a wait. minWait keeps a check with tiny intervals from spinning, as in Envoy; maxWait bounds each part of
// a wait, so that their sum is in range whatever the configuration says.
const (
	minWait = time.Millisecond
	maxWait = 365 * 24 * time.Hour
)

// state is the health of one host as its checks see it. It is pure: it knows neither sockets nor time.
type state struct {
	cfg *mesh.HealthCheck
	// healthy is false until a check has passed. degraded is what the last check that passed said.
	healthy, degraded bool
	// checked says that there was a verdict; last is that verdict.
	checked bool
	last    verdict
	// against counts the verdicts in a row that speak against healthy, and are too few to turn it.
	against uint32
}

// take brings a verdict in. changed says that healthy or degraded is not what it was, first that there was none before.
//
// Health turns once a threshold's number of verdicts in a row speak against it. Two turn it at once: the first verdict of
// all, if it is good, so that a start is quick; and a refusal. A threshold of 0 is taken as 1.
func (s *state) take(v verdict) (changed, first bool) {
	first, s.checked, s.last = !s.checked, true, v
	if v.ok() == s.healthy {
		s.against = 0
	} else if s.against++; s.turns(v, first) {
		s.healthy, s.against, changed = v.ok(), 0, true
	}
	if v.ok() && s.degraded != (v == degraded) {
		s.degraded = v == degraded
		// While the host is on its way to healthy, degraded alone is no news.
		changed = changed || s.healthy
	}
	return changed, first
}

// turns reports whether v, which speaks against healthy, turns it.
func (s *state) turns(v verdict, first bool) bool {
	if v.ok() {
		return first || s.against >= s.cfg.HealthyThreshold
	}
	return v == refused || s.against >= s.cfg.UnhealthyThreshold
}

// interval returns the time until the next check, before jitter. The edge intervals are for a host that is about to
// turn: Envoy's documentation puts them after the turn, its program between the verdicts that lead to it.
func (s *state) interval(traffic bool) time.Duration {
	c, edge := s.cfg, s.against > 0
	switch {
	case !traffic:
		return cmp.Or(c.NoTrafficInterval, c.Interval)
	case !s.last.ok() && edge:
		return cmp.Or(c.UnhealthyEdgeInterval, c.UnhealthyInterval, c.Interval)
	case !s.last.ok():
		return cmp.Or(c.UnhealthyInterval, c.Interval)
	case edge:
		return cmp.Or(c.HealthyEdgeInterval, c.Interval)
	}
	return c.Interval
}

// wait returns the time until the next check. traffic says whether the cluster was ever used; random are two random
// numbers.
func (s *state) wait(traffic bool, random [2]uint64) time.Duration {
	d := min(s.interval(traffic), maxWait)
	share := time.Duration(min(float64(d)*float64(s.cfg.IntervalJitterPct)/100, float64(maxWait)))
	return max(d+below(share, random[0])+below(min(s.cfg.IntervalJitter, maxWait), random[1]), minWait)
}

// firstWait returns the time until the first check.
func firstWait(c *mesh.HealthCheck, random uint64) time.Duration {
	if c.InitialJitter <= 0 {
		return 0
	}
	return max(below(c.InitialJitter, random), minWait)
}

// below brings a random number below limit. It is 0 where there is no limit.
func below(limit time.Duration, random uint64) time.Duration {
	if limit <= 0 {
		return 0
	}
	return time.Duration(random % uint64(limit))
}
