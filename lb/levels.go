// SPDX-License-Identifier: Apache-2.0

package lb

// Level is one priority of a Set: its hosts by health, and what it gets of the load.
type Level struct {
	Priority uint32
	// Hosts counts all hosts of the priority; Healthy and Degraded those of them that are.
	Hosts, Healthy, Degraded int
	// HealthyLoad and DegradedLoad are the percentages of all requests that go to the healthy and to the degraded hosts
	// of this priority. Over all levels they add up to 100.
	HealthyLoad, DegradedLoad uint32
	// Panic says that both loads go to all hosts of the priority, because too few of them are available.
	Panic bool

	// health and degraded are the availability scores, 0 ... 100.
	health, degraded uint32
}

// load returns what a class of the level's hosts gets.
func (l *Level) load(c class) uint32 {
	if c == classDegraded {
		return l.DegradedLoad
	}
	return l.HealthyLoad
}

// shareLoad sets the loads and the panic of levels, which are in the order of priorities, from their numbers of hosts.
// It is Envoy's algorithm in whole percents ("Priority levels", "Degraded endpoints", "Panic threshold"):
//
//   - A level's score is its share of healthy hosts times the overprovisioning factor, at most 100; likewise for its
//     degraded hosts. The sum of all scores, at most 100, is the total availability.
//   - Healthy hosts take load in proportion to their score over the total, first priorities first, until 100 are given
//     away; degraded hosts take what remains by the same rule. What rounding leaves goes to the first level that can
//     take any.
//   - Below a total of 100, a level whose share of available hosts is under the threshold panics. Where all do, load
//     goes to levels by their numbers of hosts.
//
// factor is in percent, 140 for Envoy's default. threshold is in percent; 0 never panics, and then a cluster without
// available hosts has its load at the first level, where there is no one to take it.
func shareLoad(levels []Level, factor, threshold uint32) {
	if len(levels) == 0 {
		return
	}
	total := uint32(0)
	for i := range levels {
		l := &levels[i]
		l.health = score(l.Healthy, l.Hosts, factor)
		l.degraded = score(l.Degraded, l.Hosts, factor)
		total = min(100, total+l.health+l.degraded)
	}
	if total > 0 {
		shareByScore(levels, total)
	}
	if total == 100 {
		return
	}
	allPanic := true
	for i := range levels {
		l := &levels[i]
		l.Panic = 100*(l.Healthy+l.Degraded) < int(threshold)*l.Hosts
		allPanic = allPanic && l.Panic
	}
	switch {
	case allPanic:
		shareByHosts(levels)
	case total == 0:
		levels[0].HealthyLoad = 100
	}
}

// score is the availability of n of all hosts.
func score(n, all int, factor uint32) uint32 {
	return uint32(min(100, uint64(factor)*uint64(n)/uint64(all)))
}

// shareByScore gives load to levels by their scores, of which total is the capped sum.
func shareByScore(levels []Level, total uint32) {
	left := uint32(100)
	for i := range levels {
		levels[i].HealthyLoad = min(left, levels[i].health*100/total)
		left -= levels[i].HealthyLoad
	}
	for i := range levels {
		levels[i].DegradedLoad = min(left, levels[i].degraded*100/total)
		left -= levels[i].DegradedLoad
	}
	for i := range levels {
		if levels[i].health > 0 {
			levels[i].HealthyLoad += left
			return
		}
	}
	for i := range levels {
		if levels[i].degraded > 0 {
			levels[i].DegradedLoad += left
			return
		}
	}
}

// shareByHosts gives load to levels by their numbers of hosts, whatever their health.
func shareByHosts(levels []Level) {
	all := 0
	for i := range levels {
		all += levels[i].Hosts
	}
	left := uint32(100)
	for i := range levels {
		levels[i].HealthyLoad = uint32(100 * levels[i].Hosts / all)
		levels[i].DegradedLoad = 0
		left -= levels[i].HealthyLoad
	}
	levels[0].HealthyLoad += left
}
