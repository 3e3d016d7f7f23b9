// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what a number is.
type Kind uint8

// The kinds.
const (
	// Counter only grows, until it is reset.
	Counter Kind = iota
	// Gauge goes up and down. A gauge is either counted (Add, Inc, Dec), set (Set), or computed (SetFunc), never two of
	// them.
	Gauge
	// Text is a string.
	Text
	// Histogram is a distribution. It is the Kind of a Metric, never of a Def.
	Histogram
)

// Tag is a label whose value is part of a stat's name, such as envoy.cluster_name.
type Tag struct{ Name, Value string }

// Schema is what all groups of one sort count, such as all clusters. It must not change after its first use.
type Schema struct {
	// Name is the part of the stat's name that is left when the tags are taken out: "cluster", "http", "".
	Name string
	// Defs are the numbers; the index in Defs is the i of Group's methods. There are at most 128. The first 16 share two
	// cache lines, as do the next 16, and so on: those that move with every request come first.
	Defs []Def
	// Codes are families of counters by status code; the index is the family of Group.Code.
	Codes []CodeFamily
	// Histograms are distributions; the index is the h of Group.Observe. Codes and Histograms are at most 8 together.
	Histograms []HistDef
	// Own says that the names are Meshtap's own: Prometheus gets them without "envoy_" in front.
	Own bool
}

// Def is one number of a Schema.
type Def struct {
	Name string
	Kind Kind
	// Sum makes a counter that is not counted itself: it is the sum of these others of the same schema, added up when it
	// is read.
	Sum []int
	// Lazy hides a number until it is first written.
	Lazy bool
	// Prom and Tags are the name and the labels in Prometheus where they differ: downstream_rq_2xx is downstream_rq_xx
	// with the tag envoy.response_code_class.
	Prom string
	Tags []Tag
}

// HistDef is one distribution of a Schema.
type HistDef struct {
	Name string
	// Lazy hides a distribution until it first observes a value.
	Lazy bool
}

// CodeFamily is the counters of one prefix by status code. For the prefix "upstream_rq_" they are upstream_rq_503,
// upstream_rq_5xx, which is the sum of its class, and upstream_rq_completed, the sum of all. A counter is listed once it
// was used.
type CodeFamily struct {
	Prefix string
	// Sum makes a family that is not counted itself: it is the sum of these other families.
	Sum []int
}

// The limits of a schema, and the codes that are told apart. A status outside of them counts as completed only.
const (
	pageSize  = 16
	maxPages  = 8
	maxTables = 8

	minCode   = 100
	codes     = 500
	otherCode = codes
)

// The tags of status codes, as Envoy names them.
const (
	codeTag  = "envoy.response_code"
	classTag = "envoy.response_code_class"
)

// compiled is a schema with what reading it needs.
type compiled struct {
	*Schema
	items []item // sorted by name
}

// item is a line, or several of them, of a group: the unit of reading.
type item struct {
	what itemKind
	// index is that of the Def, the family or the histogram; class is 1 ... 5 for codeRange and codeClass.
	index, class int
	kind         Kind
	name         string
	// prom is the whole Prometheus name; tags are added to those of the group.
	prom string
	tags []Tag
	// at is its place among all items.
	at int
}

type itemKind uint8

const (
	itemDef itemKind = iota
	itemHist
	itemCodeRange // one line for each code of the class that was used
	itemCodeClass
	itemCompleted
)

// compile prepares a schema. A schema that breaks the limits is a programming error and panics.
func compile(s *Schema) *compiled {
	if len(s.Defs) > maxPages*pageSize || len(s.Codes)+len(s.Histograms) > maxTables {
		panic(fmt.Sprintf("stats: schema %q has more than %d numbers, or more than %d families and histograms",
			s.Name, maxPages*pageSize, maxTables))
	}
	c := &compiled{Schema: s}
	for i, d := range s.Defs {
		prom := d.Prom
		if prom == "" {
			prom = d.Name
		}
		c.items = append(c.items, item{what: itemDef, index: i, kind: d.Kind, name: d.Name, prom: c.promName(prom), tags: d.Tags})
	}
	for i, h := range s.Histograms {
		c.items = append(c.items, item{what: itemHist, index: i, kind: Histogram, name: h.Name, prom: c.promName(h.Name)})
	}
	for i, f := range s.Codes {
		c.addFamily(i, f.Prefix)
	}
	slices.SortStableFunc(c.items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	for i := range c.items {
		c.items[i].at = i
	}
	for i := 1; i < len(c.items); i++ {
		if c.items[i].name == c.items[i-1].name {
			panic(fmt.Sprintf("stats: schema %q names %q twice", s.Name, c.items[i].name))
		}
	}
	return c
}

func (c *compiled) addFamily(i int, prefix string) {
	bare := strings.TrimSuffix(prefix, "_")
	for class := 1; class <= 5; class++ {
		digit := string(rune('0' + class))
		c.items = append(c.items,
			item{what: itemCodeRange, index: i, class: class, name: prefix + digit + "00", prom: c.promName(bare)},
			item{what: itemCodeClass, index: i, class: class, name: prefix + digit + "xx", prom: c.promName(bare + "_xx"),
				tags: []Tag{{classTag, digit}}})
	}
	c.items = append(c.items, item{what: itemCompleted, index: i, name: prefix + "completed", prom: c.promName(prefix + "completed")})
}

// promName maps a stat's name to Prometheus.
func (c *compiled) promName(name string) string {
	if c.Name != "" {
		name = c.Name + "." + name
	}
	return c.promOf(name)
}

// codeName returns the name of a code of a family, and its tag.
func (c *compiled) codeName(family, code int) (string, []Tag) {
	digits := string([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)})
	return c.Codes[family].Prefix + digits, []Tag{{codeTag, digits}}
}

// promOf maps a whole name to Prometheus as Envoy does: "envoy_" in front, and "_" for what is not allowed.
func (c *compiled) promOf(name string) string {
	if !c.Own {
		name = "envoy_" + name
	}
	return PromSanitize(name)
}

// PromSanitize replaces each byte that may not be in the name of a Prometheus metric or label with "_".
func PromSanitize(s string) string {
	ok := func(c byte) bool {
		return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	for i := range len(s) {
		if !ok(s[i]) {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if !ok(b[j]) {
					b[j] = '_'
				}
			}
			return string(b)
		}
	}
	return s
}
