// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"slices"
)

// Set is all hosts of a cluster, shared out by priority and health. It is immutable; its owner builds a new one on every
// change and swaps a pointer.
type Set struct {
	levels []Level
	parts  []part
	// share maps each percent of the load to the index of a part.
	share [100]uint8
}

// part is hosts that share load: the healthy ones, the degraded ones or, in a panic, all of one priority.
type part struct {
	priority uint32
	class    class
	picker   Picker
	// members are the indices of the picker's hosts in the set; nil where they are all of the set's, in its order.
	members []uint32
}

type class uint8

const (
	classHealthy class = iota
	classDegraded
	classAll
)

// has reports whether a host of this health is of the class.
func (c class) has(h Health) bool {
	return c == classAll || c == classHealthy && h == Healthy || c == classDegraded && h == Degraded
}

// Options are what a Set is built with. Build and Config belong to the cluster's policy.
type Options struct {
	Build  Builder
	Config any
	// Overprovisioning multiplies health when priorities share load, in percent; 0 means 140.
	Overprovisioning uint32
	// PanicThreshold is the percentage of available hosts below which health is ignored. 0 turns that off. Like Envoy,
	// only its whole part counts.
	PanicThreshold float64
	// Seed decides where pickers start; see Builder.
	Seed uint64
}

// NewSet returns the set of hosts. prev is the set before, nil for the first: where the policy has a position, each part
// of the new set goes on from there.
//
// Building takes linear time (and a sort where hosts do not come in the order of their priorities), and pickers are
// built only for the parts that get load. The set keeps hosts; neither it nor anyone else may change the slice.
func NewSet(hosts []*Host, o Options, prev *Set) *Set {
	order := byPriority(hosts)
	s := &Set{levels: countLevels(hosts, order)}
	if o.Overprovisioning == 0 {
		o.Overprovisioning = 140
	}
	shareLoad(s.levels, o.Overprovisioning, uint32(min(max(o.PanicThreshold, 0), 100)))

	// Healthy hosts come before degraded ones over all priorities, as in Envoy, so that a hash finds the same part.
	percent := 0
	for _, c := range [...]class{classHealthy, classDegraded} {
		rest := order
		for i := range s.levels {
			l := &s.levels[i]
			load := l.load(c)
			if load > 0 {
				n := s.addPart(hosts, rest[:l.Hosts], l, c, &o, prev)
				for range load {
					s.share[percent] = n
					percent++
				}
			}
			rest = rest[l.Hosts:]
		}
	}
	return s
}

// Pick chooses a host and returns its index in the hosts of NewSet, or -1 where there is none to take the request.
// panicked says that it was chosen without regard to health, which Envoy counts as lb_healthy_panic.
func (s *Set) Pick(r *Request) (index int, panicked bool) {
	var p *part
	switch {
	case len(s.parts) == 1:
		p = &s.parts[0]
	case len(s.parts) == 0:
		return -1, false
	case r.HasHash:
		p = &s.parts[s.share[r.Hash%100]]
	default:
		p = &s.parts[s.share[r.next()%100]]
	}
	i := p.picker.Pick(r)
	if i >= 0 && p.members != nil {
		i = int(p.members[i])
	}
	return i, p.class == classAll
}

// Levels returns the priorities in their order, with what each gets of the load. The caller must not change them.
func (s *Set) Levels() []Level { return s.levels }

// byPriority returns the indices of hosts in the order of their priorities.
func byPriority(hosts []*Host) []uint32 {
	order := make([]uint32, len(hosts))
	for i := range order {
		order[i] = uint32(i)
	}
	compare := func(a, b uint32) int { return cmp.Compare(hosts[a].Priority, hosts[b].Priority) }
	if !slices.IsSortedFunc(order, compare) {
		slices.SortStableFunc(order, compare)
	}
	return order
}

// countLevels counts the hosts of each priority that has any.
func countLevels(hosts []*Host, order []uint32) []Level {
	var levels []Level
	for _, i := range order {
		h := hosts[i]
		if n := len(levels); n == 0 || levels[n-1].Priority != h.Priority {
			levels = append(levels, Level{Priority: h.Priority})
		}
		l := &levels[len(levels)-1]
		l.Hosts++
		switch h.Health {
		case Healthy:
			l.Healthy++
		case Degraded:
			l.Degraded++
		}
	}
	return levels
}

// addPart adds the part of one class, unless it is there already, and returns its index. order holds the indices of all
// hosts of the level.
func (s *Set) addPart(hosts []*Host, order []uint32, l *Level, c class, o *Options, prev *Set) uint8 {
	if l.Panic {
		c = classAll
	}
	if i := s.find(l.Priority, c); i >= 0 {
		return uint8(i)
	}
	p := part{priority: l.Priority, class: c}
	members := make([]uint32, 0, len(order))
	mine := make([]*Host, 0, len(order))
	for _, i := range order {
		if h := hosts[i]; c.has(h.Health) {
			members = append(members, i)
			mine = append(mine, h)
		}
	}
	if len(mine) < len(hosts) {
		p.members = members
	}
	var before Picker
	if i := prev.find(l.Priority, c); i >= 0 {
		before = prev.parts[i].picker
	}
	seed := mix(o.Seed + uint64(l.Priority)<<2 + uint64(c))
	p.picker = o.Build(o.Config, mine, seed, before)
	s.parts = append(s.parts, p)
	return uint8(len(s.parts) - 1)
}

// find returns the index of a part, or -1 where the set, or the part, is not there.
func (s *Set) find(priority uint32, c class) int {
	if s == nil {
		return -1
	}
	return slices.IndexFunc(s.parts, func(p part) bool { return p.priority == priority && p.class == c })
}
