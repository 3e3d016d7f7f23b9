// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"slices"
	"strings"
)

// Metric is one line of a listing. It is valid until the call that it was passed to returns.
type Metric struct {
	Kind Kind
	// Value is that of a counter or a gauge.
	Value int64
	// Text is that of a text.
	Text string
	// Used says that the number was ever written.
	Used bool

	group *Group
	item  *item
	name  string
	extra []Tag // beside the group's
	code  [1]Tag
	shown *shown // nil where the registry has no Naming
}

// AppendName appends the whole name as /stats prints it, such as "cluster.echo.upstream_rq_200".
func (m *Metric) AppendName(dst []byte) []byte {
	dst = append(dst, m.group.prefix...)
	if m.group.prefix != "" {
		dst = append(dst, '.')
	}
	return append(dst, m.name...)
}

// Tags calls yield for each tag, those of the group first.
func (m *Metric) Tags(yield func(Tag) bool) {
	if m.shown != nil {
		for _, t := range m.shown.tags {
			if !yield(t) {
				return
			}
		}
		return
	}
	for _, t := range m.group.tags {
		if !yield(t) {
			return
		}
	}
	for _, t := range m.extra {
		if !yield(t) {
			return
		}
	}
}

// Bounds are the upper bounds of the buckets of a histogram.
func (m *Metric) Bounds() []float64 {
	if m.shown != nil && m.shown.bounds != nil {
		return m.shown.bounds
	}
	return Buckets[:]
}

// Snapshot returns the distribution of a histogram, or what it observed in the last interval alone.
func (m *Metric) Snapshot(interval bool) *Snapshot {
	if interval {
		return m.group.Interval(m.item.index)
	}
	return m.group.Snapshot(m.item.index)
}

// Each calls yield for each metric for whose kind want returns true, in the order of the groups' prefixes and then of the
// names. Metrics that appear with their first use are left out before it.
func (r *Registry) Each(want func(Kind) bool, yield func(*Metric) bool) {
	var m Metric
	for _, g := range r.view().groups {
		for i := range g.schema.items {
			if it := &g.schema.items[i]; want(it.kind) && !g.each(it, &m, yield) {
				return
			}
		}
	}
}

// Family is all metrics of one name in Prometheus.
type Family struct {
	Name string
	Kind Kind

	sources []source
}

type source struct {
	item *item
	// code is the one of the item that belongs to the family; 0 is all of them.
	code   int
	groups []*Group
}

// Families returns the families of all groups, sorted by name. They list the groups that were there at the call.
func (r *Registry) Families() []Family {
	byName := map[familyKey]*Family{}
	if r.naming == nil {
		r.familiesOfSchemas(byName)
	} else {
		r.familiesOfNames(byName)
	}
	out := make([]Family, 0, len(byName))
	for _, f := range byName {
		slices.SortFunc(f.sources, func(a, b source) int {
			return cmp.Or(strings.Compare(a.groups[0].schema.Name+a.item.name, b.groups[0].schema.Name+b.item.name), a.code-b.code)
		})
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Family) int { return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind)) })
	return out
}

// familyKey tells families apart: where a tag is all that differs in the names of a counter and a gauge, there are two of
// one name, as in Envoy.
type familyKey struct {
	name string
	kind Kind
}

func familyOf(byName map[familyKey]*Family, name string, it *item) *Family {
	k := familyKey{name, it.kind}
	f := byName[k]
	if f == nil {
		f = &Family{Name: name, Kind: it.kind}
		byName[k] = f
	}
	return f
}

// familiesOfSchemas: all groups of a schema are in the same families.
func (r *Registry) familiesOfSchemas(byName map[familyKey]*Family) {
	for c, groups := range r.view().bySchema {
		for i := range c.items {
			it := &c.items[i]
			f := familyOf(byName, it.prom, it)
			f.sources = append(f.sources, source{item: it, groups: groups})
		}
	}
}

// familiesOfNames: a name decides by itself what is left of it without its tags.
func (r *Registry) familiesOfNames(byName map[familyKey]*Family) {
	type place struct {
		family *Family
		shownKey
	}
	at := map[place]int{}
	add := func(g *Group, it *item, code int) {
		s := g.shown(it, code)
		if s == hidden {
			return
		}
		f := familyOf(byName, s.prom, it)
		p := place{f, shownKey{it, code}}
		i, known := at[p]
		if !known {
			i = len(f.sources)
			at[p] = i
			f.sources = append(f.sources, source{item: it, code: code})
		}
		f.sources[i].groups = append(f.sources[i].groups, g)
	}
	for _, g := range r.view().groups {
		for i := range g.schema.items {
			it := &g.schema.items[i]
			if it.what != itemCodeRange {
				add(g, it, 0)
				continue
			}
			for code := range g.codesUsed(it) {
				add(g, it, code)
			}
		}
	}
}

// Each calls yield for each metric of the family.
func (f *Family) Each(yield func(*Metric) bool) {
	var m Metric
	for _, s := range f.sources {
		for _, g := range s.groups {
			if s.code == 0 && !g.each(s.item, &m, yield) {
				return
			}
			if s.code > 0 && !g.oneCode(s.item, s.code, &m, yield) {
				return
			}
		}
	}
}

// each yields the metrics of one item, in m.
func (g *Group) each(it *item, m *Metric, yield func(*Metric) bool) bool {
	*m = Metric{Kind: it.kind, group: g, item: it, name: it.name, extra: it.tags}
	if it.what != itemCodeRange {
		if m.shown = g.shown(it, 0); m.shown == hidden {
			return true
		}
	}
	switch it.what {
	case itemDef:
		m.Used = g.Used(it.index)
		if g.schema.Defs[it.index].Lazy && !m.Used {
			return true
		}
		if it.kind == Text {
			m.Text = g.Text(it.index)
		} else {
			m.Value = g.Value(it.index)
		}
		return yield(m)
	case itemHist:
		m.Used = g.observed(it.index)
		if g.schema.Histograms[it.index].Lazy && !m.Used {
			return true
		}
		return yield(m)
	case itemCodeRange:
		return g.eachCode(m, yield)
	}
	from, to := 0, otherCode+1
	if it.what == itemCodeClass {
		from = it.class*100 - minCode
		to = from + 100
	}
	m.Value, m.Used = g.codeSum(it.index, from, to)
	return !m.Used || yield(m)
}

// eachCode yields the codes of a class that were used.
func (g *Group) eachCode(m *Metric, yield func(*Metric) bool) bool {
	for code := range g.codesUsed(m.item) {
		if !g.oneCode(m.item, code, m, yield) {
			return false
		}
	}
	return true
}

// codesUsed calls yield for each code of a class that was used.
func (g *Group) codesUsed(it *item) func(yield func(code int) bool) {
	return func(yield func(int) bool) {
		first := it.class*100 - minCode
		if _, used := g.codeSum(it.index, first, first+100); !used {
			return
		}
		for i := first; i < first+100; i++ {
			if _, used := g.codeSum(it.index, i, i+1); used && !yield(i+minCode) {
				return
			}
		}
	}
}

// oneCode yields the metric of one code, in m.
func (g *Group) oneCode(it *item, code int, m *Metric, yield func(*Metric) bool) bool {
	*m = Metric{Kind: it.kind, group: g, item: it, shown: g.shown(it, code)}
	if m.shown == hidden {
		return true
	}
	i := code - minCode
	if m.Value, m.Used = g.codeSum(it.index, i, i+1); !m.Used {
		return true
	}
	digits := string([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)})
	m.name, m.code[0] = g.schema.Codes[it.index].Prefix+digits, Tag{codeTag, digits}
	m.extra = m.code[:]
	return yield(m)
}

// observed reports whether histogram h ever observed a value.
func (g *Group) observed(h int) bool {
	for i := range g.blocks {
		if g.blocks[i].Load().peek(len(g.schema.Codes)+h) != nil {
			return true
		}
	}
	return false
}
