// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// host is a virtual host and the index over its routes.
type host struct {
	vh *mesh.VirtualHost
	// index is nil where there are so few routes that looking at each is faster and smaller.
	index *index
}

// few is the number of routes up to which there is no index.
const few = 8

// index yields the routes that may match a path, by their place in the virtual host. All lists ascend.
type index struct {
	exact map[string][]int32
	// tree holds prefixes, and patterns by the text that they begin with; folded holds, in lower case, all that ignores
	// case.
	tree, folded *tree
	connect      []int32
}

func newHost(vh *mesh.VirtualHost) (*host, error) {
	for i, r := range vh.Routes {
		if err := check(r); err != nil {
			return nil, fmt.Errorf("virtual host %q: route %d: %w", vh.Name, i, err)
		}
	}
	h := &host{vh: vh}
	if len(vh.Routes) > few {
		h.index = newIndex(vh.Routes)
	}
	return h, nil
}

// check finds what the decoder must not let through, so that matching need not.
func check(r *mesh.Route) error {
	if r.Match.Kind == mesh.PathRegex && r.Match.Regex == nil {
		return errors.New("matches by a pattern and has none")
	}
	if f := r.Match.Fraction; f != nil && f.Denominator == 0 {
		return errors.New("runtime fraction with the denominator 0")
	}
	if r.Forward == nil || len(r.Forward.Clusters) < 2 {
		return nil
	}
	sum := uint64(0)
	for _, c := range r.Forward.Clusters {
		sum += uint64(c.Weight)
	}
	if sum == 0 || sum != uint64(r.Forward.TotalWeight) {
		return fmt.Errorf("cluster weights add up to %d, the total is %d; it must be their sum, and greater than 0", sum, r.Forward.TotalWeight)
	}
	return nil
}

func newIndex(routes []*mesh.Route) *index {
	x := &index{exact: map[string][]int32{}}
	tree, folded := map[string][]int32{}, map[string][]int32{}
	for i, r := range routes {
		m, at := &r.Match, int32(i)
		switch {
		case m.Kind == mesh.PathConnect:
			x.connect = append(x.connect, at)
		case m.Kind == mesh.PathRegex:
			begin := literalPrefix(m.Regex.String())
			tree[begin] = append(tree[begin], at)
		case m.IgnoreCase:
			begin := lowered(m.Path)
			folded[begin] = append(folded[begin], at)
		case m.Kind == mesh.PathExact:
			x.exact[m.Path] = append(x.exact[m.Path], at)
		default:
			tree[m.Path] = append(tree[m.Path], at)
		}
	}
	x.tree, x.folded = newTree(tree), newTree(folded)
	return x
}

// lowered is strings.ToLower for ASCII letters alone.
func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lower(c)
	}
	return string(b)
}

// find returns the first route that matches.
func (h *host) find(r *codec.Request, path []byte, random uint64) *mesh.Route {
	routes := h.vh.Routes
	if h.index == nil {
		for _, route := range routes {
			if matchRoute(&route.Match, r, path, random) {
				return route
			}
		}
		return nil
	}
	var c candidates
	h.index.collect(&c, r, path)
	for i := c.next(); i >= 0; i = c.next() {
		if matchRoute(&routes[i].Match, r, path, random) {
			return routes[i]
		}
	}
	return nil
}

func (x *index) collect(c *candidates, r *codec.Request, path []byte) {
	if len(x.connect) > 0 && string(r.Method) == "CONNECT" {
		c.add(x.connect)
	}
	if len(path) == 0 {
		return
	}
	if list := x.exact[string(path)]; list != nil {
		c.add(list)
	}
	x.tree.collect(c, path, false)
	x.folded.collect(c, path, true)
}

// candidates merges ascending lists.
type candidates struct {
	lists [2 + 2*maxChain][]int32
	n     int
}

func (c *candidates) add(list []int32) {
	c.lists[c.n] = list
	c.n++
}

// next takes the lowest number off, -1 at the end.
func (c *candidates) next() int32 {
	best := -1
	for i := range c.lists[:c.n] {
		if len(c.lists[i]) > 0 && (best < 0 || c.lists[i][0] < c.lists[best][0]) {
			best = i
		}
	}
	if best < 0 {
		return -1
	}
	lowest := c.lists[best][0]
	c.lists[best] = c.lists[best][1:]
	return lowest
}

// tree is a radix tree over the beginnings of paths. Its nodes are one slice and their texts one string, children next to
// each other: a look-up in a large table costs what its cache misses cost.
type tree struct {
	nodes []node
	text  strings.Builder
}

type node struct {
	// text leads here from the node above; first holds the first byte of each child's text.
	text, first string
	// children is where the first child is in nodes.
	children int32
	// up is the nearest node above that has routes, none where there is none.
	up int32
	// routes begin with exactly the text down to here; nil where none does.
	routes []int32
}

const none int32 = -1

// maxChain bounds the lists that one look-up merges. Where more prefixes than that are nested, a node takes over the
// routes of all nodes above it.
const maxChain = 8

type entry struct {
	key    string
	routes []int32
}

func newTree(lists map[string][]int32) *tree {
	t := &tree{}
	if len(lists) == 0 {
		return t
	}
	entries, size := make([]entry, 0, len(lists)), 0
	for key, routes := range lists {
		entries = append(entries, entry{key, routes})
		size += len(key) + 2
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	t.text.Grow(size)
	t.nodes = make([]node, 1, 2*len(entries))
	t.grow(0, entries, 0, none)
	return t
}

// grow makes node i of entries, which are sorted and have their first at bytes in common. up is the nearest node above
// that has routes.
func (t *tree) grow(i int32, entries []entry, at int, up int32) {
	first, last := entries[0].key, entries[len(entries)-1].key
	end := at
	for end < len(first) && end < len(last) && first[end] == last[end] {
		end++
	}
	n := node{text: t.keep(first[at:end]), children: int32(len(t.nodes)), up: up}
	if len(first) == end {
		n.routes, entries, up = entries[0].routes, entries[1:], i
		t.bound(&n)
	}
	groups := group(entries, end)
	branch := make([]byte, len(groups))
	for g := range groups {
		branch[g] = groups[g][0].key[end]
	}
	n.first = t.keep(string(branch))
	t.nodes[i] = n
	t.nodes = append(t.nodes, make([]node, len(groups))...)
	for g := range groups {
		t.grow(n.children+int32(g), groups[g], end, up)
	}
}

// group splits sorted entries by the byte at end.
func group(entries []entry, end int) (groups [][]entry) {
	for len(entries) > 0 {
		size := 1
		for size < len(entries) && entries[size].key[end] == entries[0].key[end] {
			size++
		}
		groups, entries = append(groups, entries[:size]), entries[size:]
	}
	return groups
}

// keep copies s into the tree's one string.
func (t *tree) keep(s string) string {
	at := t.text.Len()
	t.text.WriteString(s)
	return t.text.String()[at:]
}

// bound keeps the chain of a node with routes short.
func (t *tree) bound(n *node) {
	length := 1
	for up := n.up; up != none; up = t.nodes[up].up {
		length++
	}
	if length <= maxChain {
		return
	}
	all := slices.Clone(n.routes)
	for up := n.up; up != none; up = t.nodes[up].up {
		all = append(all, t.nodes[up].routes...)
	}
	slices.Sort(all)
	n.routes, n.up = all, none
}

// collect adds the routes of all nodes on the way that the path leads down. With fold the tree is in lower case.
func (t *tree) collect(c *candidates, path []byte, fold bool) {
	if len(t.nodes) == 0 {
		return
	}
	n, found := &t.nodes[0], (*node)(nil)
	for hasPrefix(path, n.text, fold) {
		path = path[len(n.text):]
		if n.routes != nil {
			found = n
		}
		if len(path) == 0 {
			break
		}
		b := path[0]
		if fold {
			b = lower(b)
		}
		child := strings.IndexByte(n.first, b)
		if child < 0 {
			break
		}
		n = &t.nodes[n.children+int32(child)]
	}
	for found != nil {
		c.add(found.routes)
		if found.up == none {
			return
		}
		found = &t.nodes[found.up]
	}
}

// literalPrefix returns text that everything that an anchored pattern matches begins with.
func literalPrefix(pattern string) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	prefix, anchored := "", false
	for _, part := range flatten(re, nil) {
		switch {
		case part.Op == syntax.OpBeginText:
			anchored = true
		case part.Op == syntax.OpEmptyMatch:
		case part.Op == syntax.OpLiteral && part.Flags&syntax.FoldCase == 0 && anchored:
			text := string(part.Rune)
			if i := strings.IndexRune(text, utf8.RuneError); i >= 0 {
				return prefix + text[:i] // it stands for any byte that is not UTF-8
			}
			prefix += text
		default:
			return prefix
		}
	}
	return prefix
}

// flatten lists the parts of a concatenation, those inside of groups too.
func flatten(re *syntax.Regexp, parts []*syntax.Regexp) []*syntax.Regexp {
	if re.Op == syntax.OpConcat || re.Op == syntax.OpCapture {
		for _, sub := range re.Sub {
			parts = flatten(sub, parts)
		}
		return parts
	}
	return append(parts, re)
}
