// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"regexp"
	"slices"
	"strings"
)

// Naming is what Envoy's stats_config says: which metrics are shown, which parts of their names are tags, and which buckets
// histograms have. It counts for who reads; counting costs the same with it and without. Names are taken apart when a metric
// is first read, and remembered.
type Naming struct {
	// NoDefaults leaves out the tags that metrics have by themselves; they stay in the names.
	NoDefaults bool
	// Fixed are tags of all metrics. Tags are taken out of whole names, the first rule of a name that matches.
	Fixed []Tag
	Tags  []TagRule
	// Keep says by its whole name whether a metric is shown; nil shows all.
	Keep func(name string) bool
	// Buckets are the bounds of histograms by their whole names, the first that match; others have Buckets.
	Buckets []BucketRule
}

// TagRule takes a tag out of names: the first group of Regex is removed, and the second one, or the first where there is no
// second, is the value.
type TagRule struct {
	Name  string
	Regex *regexp.Regexp
}

// BucketRule gives histograms their bounds, in ascending order.
type BucketRule struct {
	Match  func(name string) bool
	Bounds []float64
}

// shown is how a metric is shown under a Naming. It does not change.
type shown struct {
	prom   string
	tags   []Tag
	bounds []float64
}

// hidden is a metric that is not shown.
var hidden = &shown{}

// shown returns how a metric is shown; nil where there is no Naming. code is that of a status, or 0.
func (g *Group) shown(it *item, code int) *shown {
	n := g.reg.naming
	if n == nil {
		return nil
	}
	k := shownKey{it, code}
	g.mu.Lock()
	defer g.mu.Unlock()
	if code > 0 {
		if g.seenCodes[k] == nil {
			if g.seenCodes == nil {
				g.seenCodes = map[shownKey]*shown{}
			}
			g.seenCodes[k] = n.show(g, it, code)
		}
		return g.seenCodes[k]
	}
	if g.seen == nil {
		g.seen = make([]*shown, len(g.schema.items))
	}
	if g.seen[it.at] == nil {
		s := n.show(g, it, 0)
		if s != hidden && !slices.Equal(g.tags0, s.tags) {
			g.tags0 = s.tags
		} else if s != hidden {
			s.tags = g.tags0 // most metrics of a group have the same
		}
		g.seen[it.at] = s
	}
	return g.seen[it.at]
}

type shownKey struct {
	item *item
	code int
}

// show takes a name apart.
func (n *Naming) show(g *Group, it *item, code int) *shown {
	name, extra := it.name, it.tags
	if code > 0 {
		name, extra = g.schema.codeName(it.index, code)
	}
	full := strings.TrimPrefix(g.prefix+"."+name, ".")
	if n.Keep != nil && !n.Keep(full) {
		return hidden
	}
	s := &shown{prom: it.prom, tags: slices.Clone(n.Fixed)}
	if !n.NoDefaults {
		for _, t := range slices.Concat(g.tags, extra) {
			s.add(t.Name, t.Value)
		}
	}
	var cut [][2]int
	for _, r := range n.Tags {
		m := r.Regex.FindStringSubmatchIndex(full)
		if len(m) < 4 || m[2] < 0 || s.has(r.Name) {
			continue
		}
		value := full[m[2]:m[3]]
		if len(m) >= 6 {
			value = ""
			if m[4] >= 0 {
				value = full[m[4]:m[5]]
			}
		}
		s.add(r.Name, value)
		cut = append(cut, [2]int{m[2], m[3]})
	}
	if n.NoDefaults {
		s.prom = g.schema.promOf(without(full, cut))
	} else {
		for _, c := range cut { // what a tag of its own has not taken out already
			s.prom = strings.Replace(s.prom, PromSanitize(full[c[0]:c[1]]), "", 1)
		}
	}
	for _, b := range n.Buckets {
		if it.kind == Histogram && b.Match(full) {
			s.bounds = b.Bounds
			break
		}
	}
	return s
}

// has reports whether there is a tag that Prometheus gets under the same name.
func (s *shown) has(name string) bool {
	name = PromSanitize(name)
	return slices.ContainsFunc(s.tags, func(t Tag) bool { return PromSanitize(t.Name) == name })
}

func (s *shown) add(name, value string) {
	if !s.has(name) {
		s.tags = append(s.tags, Tag{name, value})
	}
}

// without removes parts of a text, which may overlap.
func without(s string, parts [][2]int) string {
	var b strings.Builder
	for i := range len(s) {
		if !slices.ContainsFunc(parts, func(p [2]int) bool { return p[0] <= i && i < p[1] }) {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
