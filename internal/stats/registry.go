// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/meshtap/meshtap/internal/invariant"
)

// DefaultMaxGroups is the limit of groups per schema. All names come from the configuration, never from traffic, so the
// limit is there for runaway control planes: it leaves room for the 10,000 clusters that a mesh can well have.
const DefaultMaxGroups = 16 << 10

// Options configure a Registry. The zero value is what a proxy wants.
type Options struct {
	// Shards is rounded up to a power of two, at most 64; 0 means one for each processor that Go uses.
	Shards int
	// MaxGroups bounds the groups of each schema; 0 means DefaultMaxGroups.
	MaxGroups int
	// Naming is how metrics are shown; nil shows them as the schemas say.
	Naming *Naming
}

// Registry lists all groups of a proxy.
type Registry struct {
	// Immutable.
	shards    uint32
	maxGroups int
	naming    *Naming
	own       *Group

	mu sync.Mutex
	// Guarded by mu.
	schemas map[*Schema]*compiled
	groups  map[groupKey]*Group
	counts  map[*Schema]int
	seen    *view // nil after a change

	cutMu   sync.Mutex
	scratch Snapshot // guarded by cutMu
}

type groupKey struct {
	schema *Schema
	prefix string
}

// view is the groups in order; it does not change.
type view struct {
	groups   []*Group
	bySchema map[*compiled][]*Group
}

// NewRegistry returns a registry that lists nothing but its own counter, meshtap_stats_folded_total.
func NewRegistry(o Options) *Registry {
	n := o.Shards
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	r := &Registry{
		shards:    uint32(1) << bits.Len(uint(min(max(n, 1), 64)-1)),
		maxGroups: o.MaxGroups,
		naming:    o.Naming,
		schemas:   map[*Schema]*compiled{},
		groups:    map[groupKey]*Group{},
		counts:    map[*Schema]int{},
	}
	if r.maxGroups == 0 {
		r.maxGroups = DefaultMaxGroups
	}
	r.own = r.Group(&Schema{Own: true, Defs: []Def{{Name: "meshtap_stats_folded_total"}}}, "")
	return r
}

// Group returns the group of a schema under a prefix, such as "cluster.echo": the one that is there already, or a new
// one. Tags are the values that Prometheus gets as labels; their names are the same for all groups of a schema. Whoever
// calls Group calls Release once.
//
// Beyond the limit, groups are folded into one whose prefix ends in "other" and whose tags are "other"; it counts, but
// what is set there has no effect. meshtap_stats_folded_total counts how often that happened.
func (r *Registry) Group(s *Schema, prefix string, tags ...Tag) *Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := groupKey{s, prefix}
	if g := r.groups[k]; g != nil {
		g.refs++
		return g
	}
	folded := r.counts[s] >= r.maxGroups
	if folded {
		r.own.Inc(0, 0)
		k.prefix, tags = otherOf(s, tags)
		if g := r.groups[k]; g != nil {
			g.refs++
			return g
		}
	}
	c := r.schemas[s]
	if c == nil {
		c = compile(s)
		r.schemas[s] = c
	}
	g := newGroup(r, c, k.prefix, slices.Clone(tags))
	g.folded, g.refs = folded, 1
	r.groups[k] = g
	if !folded {
		r.counts[s]++
	}
	r.seen = nil
	return g
}

// otherOf names the group that stands for all beyond the limit.
func otherOf(s *Schema, tags []Tag) (string, []Tag) {
	out := slices.Clone(tags)
	for i := range out {
		out[i].Value = "other"
	}
	return strings.TrimPrefix(s.Name+".other", "."), out
}

func (r *Registry) release(g *Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.refs--; g.refs > 0 {
		return
	}
	invariant.Check(g.refs == 0, "stats: %q was released more often than it was asked for", g.prefix)
	k := groupKey{g.schema.Schema, g.prefix}
	if r.groups[k] != g {
		return
	}
	delete(r.groups, k)
	if !g.folded {
		r.counts[g.schema.Schema]--
	}
	r.seen = nil
}

// view returns the groups in order.
func (r *Registry) view() *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen != nil {
		return r.seen
	}
	v := &view{bySchema: map[*compiled][]*Group{}}
	for _, g := range r.groups {
		v.groups = append(v.groups, g)
	}
	slices.SortFunc(v.groups, func(a, b *Group) int {
		if c := strings.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		if c := strings.Compare(a.schema.Name, b.schema.Name); c != 0 {
			return c
		}
		return strings.Compare(a.schema.items[0].name, b.schema.items[0].name)
	})
	for _, g := range v.groups {
		v.bySchema[g.schema] = append(v.bySchema[g.schema], g)
	}
	r.seen = v
	return v
}

// ResetCounters makes all counters count from 0 again. Gauges, texts and histograms stay, as in Envoy.
func (r *Registry) ResetCounters() {
	for _, g := range r.view().groups {
		g.reset()
	}
}

// Cut ends an interval of all histograms and begins the next. Envoy does that every 5 seconds.
func (r *Registry) Cut() {
	r.cutMu.Lock()
	defer r.cutMu.Unlock()
	for _, g := range r.view().groups {
		for h := range g.schema.Histograms {
			g.cutHist(h, &r.scratch)
		}
	}
}
