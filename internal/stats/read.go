// SPDX-License-Identifier: Apache-2.0

package stats

import (
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
	item   *item
	groups []*Group
}

// Families returns the families of all groups, sorted by name. They list the groups that were there at the call.
func (r *Registry) Families() []Family {
	v := r.view()
	byName := map[string]*Family{}
	for c, groups := range v.bySchema {
		for i := range c.items {
			it := &c.items[i]
			f := byName[it.prom]
			if f == nil {
				f = &Family{Name: it.prom, Kind: it.kind}
				byName[it.prom] = f
			}
			f.sources = append(f.sources, source{it, groups})
		}
	}
	out := make([]Family, 0, len(byName))
	for _, f := range byName {
		slices.SortFunc(f.sources, func(a, b source) int {
			return strings.Compare(a.groups[0].schema.Name+a.item.name, b.groups[0].schema.Name+b.item.name)
		})
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Each calls yield for each metric of the family.
func (f *Family) Each(yield func(*Metric) bool) {
	var m Metric
	for _, s := range f.sources {
		for _, g := range s.groups {
			if !g.each(s.item, &m, yield) {
				return
			}
		}
	}
}

// each yields the metrics of one item, in m.
func (g *Group) each(it *item, m *Metric, yield func(*Metric) bool) bool {
	*m = Metric{Kind: it.kind, group: g, item: it, name: it.name, extra: it.tags}
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
	prefix := g.schema.Codes[m.item.index].Prefix
	first := m.item.class*100 - minCode
	if _, used := g.codeSum(m.item.index, first, first+100); !used {
		return true
	}
	for i := first; i < first+100; i++ {
		m.Value, m.Used = g.codeSum(m.item.index, i, i+1)
		if !m.Used {
			continue
		}
		c := i + minCode
		digits := string([]byte{byte('0' + c/100), byte('0' + c/10%10), byte('0' + c%10)})
		m.name, m.code[0] = prefix+digits, Tag{codeTag, digits}
		m.extra = m.code[:]
		if !yield(m) {
			return false
		}
	}
	return true
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
