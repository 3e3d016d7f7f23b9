// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/meshtap/meshtap/internal/cidr"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// Matcher chooses the filter chain of a connection, as Envoy does: nine criteria in a fixed order, at each of them the
// most specific value that any of the chains left has for this connection, and no way back from a choice that later
// leads nowhere. It is a tree with one level for each criterion that some chain uses.
type Matcher struct {
	steps    []*criterion
	root     *node
	fallback *mesh.FilterChain
}

// maxCombinations bounds the leaves of the tree: a chain with 100 prefixes and 100 server names has 10,000.
const maxCombinations = 1 << 18

// node is the place in the tree that the chains share which agree so far.
type node struct {
	// chain is set at a leaf.
	chain *mesh.FilterChain
	// keys and nets lead on for a value; any leads on for chains without this criterion.
	keys map[string]*node
	nets cidr.Table[*node]
	any  *node
}

// criterion is one level of the tree.
type criterion struct {
	// what names it in errors.
	what string
	// Exactly one of keys and prefixes is set: the values that a chain names, none for all.
	keys     func(*mesh.ChainMatch) []string
	prefixes func(*mesh.ChainMatch) []netip.Prefix
	// next is where a connection goes from a node.
	next func(*node, *inspect.ConnInfo) *node
}

// criteria are in Envoy's order (envoy.config.listener.v3.FilterChainMatch).
var criteria = [...]criterion{
	{what: "destination port", keys: destinationPort, next: byDestinationPort},
	{what: "destination", prefixes: func(m *mesh.ChainMatch) []netip.Prefix { return m.DestinationPrefixes },
		next: func(n *node, i *inspect.ConnInfo) *node { return n.byAddress(i.Local.Addr()) }},
	{what: "server name", keys: serverNames, next: byServerName},
	{what: "transport protocol", keys: transportProtocol,
		next: func(n *node, i *inspect.ConnInfo) *node { return n.or(n.keys[i.Transport.String()]) }},
	{what: "application protocol", keys: func(m *mesh.ChainMatch) []string { return m.ApplicationProtocols },
		next: byApplicationProtocol},
	{what: "direct source", prefixes: func(m *mesh.ChainMatch) []netip.Prefix { return m.DirectSourcePrefixes },
		next: func(n *node, i *inspect.ConnInfo) *node { return n.byAddress(i.DirectRemote().Addr()) }},
	{what: "source type", keys: sourceType, next: bySourceType},
	{what: "source", prefixes: func(m *mesh.ChainMatch) []netip.Prefix { return m.SourcePrefixes },
		next: func(n *node, i *inspect.ConnInfo) *node { return n.byAddress(i.Remote.Addr()) }},
	{what: "source port", keys: sourcePorts,
		next: func(n *node, i *inspect.ConnInfo) *node { return n.byPort(i.Remote.Port()) }},
}

// NewMatcher compiles the chains of a listener. Its error says which two chains match the same connections.
func NewMatcher(l *mesh.Listener) (*Matcher, error) {
	m := &Matcher{root: &node{}, fallback: l.DefaultChain}
	for i := range criteria {
		c := &criteria[i]
		for _, fc := range l.Chains {
			if c.used(&fc.Match) {
				m.steps = append(m.steps, c)
				break
			}
		}
	}
	b := builder{steps: m.steps}
	for i, fc := range l.Chains {
		if err := checkServerNames(fc.Match.ServerNames); err != nil {
			return nil, fmt.Errorf("filter chain %s: %w", nameOf(l, i), err)
		}
		b.chain = fc
		if other := b.insert(m.root, 0); other != nil {
			return nil, fmt.Errorf("filter chains %s and %s match the same connections: %s",
				nameOf(l, indexOf(l, other)), nameOf(l, i), b.path())
		}
		if b.leaves > maxCombinations {
			return nil, fmt.Errorf("the values of the filter chains' matches have more than %d combinations", maxCombinations)
		}
	}
	return m, nil
}

// Match returns the chain of a connection, nil where there is none.
func (m *Matcher) Match(info *inspect.ConnInfo) *mesh.FilterChain {
	n := m.root
	for _, c := range m.steps {
		if n = c.next(n, info); n == nil {
			return m.fallback
		}
	}
	if n.chain == nil { // a listener that has its default chain only
		return m.fallback
	}
	return n.chain
}

func (c *criterion) used(m *mesh.ChainMatch) bool {
	if c.keys != nil {
		return len(c.keys(m)) > 0
	}
	return len(c.prefixes(m)) > 0
}

// builder inserts one chain after another.
type builder struct {
	steps  []*criterion
	chain  *mesh.FilterChain
	trail  []string // the values that lead to the present node
	leaves int
}

// insert adds the chain below n and returns the chain that is in its way, if there is one; trail then says where.
func (b *builder) insert(n *node, depth int) (other *mesh.FilterChain) {
	if b.leaves > maxCombinations {
		return nil
	}
	if depth == len(b.steps) {
		if n.chain != nil && n.chain != b.chain {
			return n.chain
		}
		n.chain = b.chain
		b.leaves++
		return nil
	}
	c := b.steps[depth]
	descend := func(child **node, value string) *mesh.FilterChain {
		if *child == nil {
			*child = &node{}
		}
		b.trail = append(b.trail[:depth], value)
		return b.insert(*child, depth+1)
	}
	switch {
	case !c.used(&b.chain.Match):
		return descend(&n.any, "")
	case c.prefixes != nil:
		for _, p := range c.prefixes(&b.chain.Match) {
			if other = descend(n.nets.At(p), p.String()); other != nil {
				return other
			}
		}
		return nil
	}
	if n.keys == nil {
		n.keys = map[string]*node{}
	}
	for _, k := range c.keys(&b.chain.Match) {
		child := n.keys[k]
		other = descend(&child, k)
		n.keys[k] = child
		if other != nil {
			return other
		}
	}
	return nil
}

// path says in words where the present node is.
func (b *builder) path() string {
	var parts []string
	for i, v := range b.trail {
		if v == "" {
			continue
		}
		switch what := b.steps[i].what; what {
		case "destination port", "source port":
			v = fmt.Sprint(int(v[0])<<8 | int(v[1]))
		case "server name":
			if v[0] == '.' {
				v = "*" + v
			}
		}
		parts = append(parts, b.steps[i].what+" "+v)
	}
	if len(parts) == 0 {
		return "both match all"
	}
	return strings.Join(parts, ", ")
}

// nameOf returns the name of chain i for messages, quoted, or its place where it has none.
func nameOf(l *mesh.Listener, i int) string {
	if name := l.Chains[i].Name; name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("filter_chains[%d]", i)
}

func indexOf(l *mesh.Listener, fc *mesh.FilterChain) int {
	for i, x := range l.Chains {
		if x == fc {
			return i
		}
	}
	return -1
}

// The keys of the criteria. A port is two bytes, so that looking it up allocates nothing; a wildcard server name is its
// suffix with the dot in front.

func portKey(p uint16) [2]byte { return [2]byte{byte(p >> 8), byte(p)} }

func destinationPort(m *mesh.ChainMatch) []string {
	if m.DestinationPort == 0 {
		return nil
	}
	k := portKey(m.DestinationPort)
	return []string{string(k[:])}
}

func sourcePorts(m *mesh.ChainMatch) []string {
	var out []string
	for _, p := range m.SourcePorts {
		k := portKey(p)
		out = append(out, string(k[:]))
	}
	return out
}

func serverNames(m *mesh.ChainMatch) []string {
	var out []string
	for _, n := range m.ServerNames {
		out = append(out, strings.ToLower(strings.TrimPrefix(n, "*")))
	}
	return out
}

// checkServerNames refuses wildcards that would silently never match.
func checkServerNames(names []string) error {
	for _, n := range names {
		if rest := strings.TrimPrefix(n, "*."); n == "" || rest == "" || rest[0] == '.' || strings.Contains(rest, "*") {
			return fmt.Errorf("server name %q: a whole name or *. followed by one is allowed", n)
		}
	}
	return nil
}

func transportProtocol(m *mesh.ChainMatch) []string {
	if m.TransportProtocol == "" {
		return nil
	}
	return []string{m.TransportProtocol}
}

const keyLocal, keyExternal = "local", "external"

func sourceType(m *mesh.ChainMatch) []string {
	switch m.SourceType {
	case mesh.SourceLocal:
		return []string{keyLocal}
	case mesh.SourceExternal:
		return []string{keyExternal}
	}
	return nil
}

// or returns child, or where the chains without this criterion lead.
func (n *node) or(child *node) *node {
	if child != nil {
		return child
	}
	return n.any
}

func (n *node) byPort(p uint16) *node {
	k := portKey(p)
	return n.or(n.keys[string(k[:])])
}

// byDestinationPort: the port of a unix socket is nobody's.
func byDestinationPort(n *node, i *inspect.ConnInfo) *node { return n.byPort(i.Local.Port()) }

// noAddress stands for the address of a unix socket, as in Envoy: of all prefixes only 0.0.0.0/0 holds it.
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (n *node) byAddress(ip netip.Addr) *node {
	if !ip.IsValid() {
		ip = noAddress
	}
	if child := n.nets.Lookup(ip); child != nil {
		return *child
	}
	return n.any
}

// byServerName tries the name, then *.example.com and *.com for www.example.com.
func byServerName(n *node, i *inspect.ConnInfo) *node {
	name := i.ServerName()
	if name == "" {
		return n.any
	}
	if child := n.keys[name]; child != nil {
		return child
	}
	for at := strings.IndexByte(name[1:], '.') + 1; at > 0; {
		if child := n.keys[name[at:]]; child != nil {
			return child
		}
		next := strings.IndexByte(name[at+1:], '.')
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return n.any
}

// byApplicationProtocol takes the first of the client's protocols that a chain names.
func byApplicationProtocol(n *node, i *inspect.ConnInfo) *node {
	for _, p := range i.ApplicationProtocols() {
		if child := n.keys[p]; child != nil {
			return child
		}
	}
	return n.any
}

func bySourceType(n *node, i *inspect.ConnInfo) *node {
	if isLocal(i) {
		return n.or(n.keys[keyLocal])
	}
	return n.or(n.keys[keyExternal])
}

// isLocal reports whether a connection comes from this host, as Envoy's SAME_IP_OR_LOOPBACK has it: over a unix socket,
// from 127.0.0.1 or ::1 (not the rest of 127.0.0.0/8: Istio sends passthrough traffic from 127.0.0.6), or from the
// address it goes to.
func isLocal(i *inspect.ConnInfo) bool {
	from := i.Remote.Addr()
	return !from.IsValid() || from == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || from == netip.IPv6Loopback() ||
		from == i.Local.Addr()
}
