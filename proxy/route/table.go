// SPDX-License-Identifier: Apache-2.0

// Package route decides where a request goes: it finds the virtual host and the route of a mesh.RouteTable, and computes
// what they make of path, authority and Location. It is the seventh step of a request. Everything here is a pure function
// of the table, the request and a random number: nothing blocks, nothing is logged, and Match allocates nothing.
//
// Semantics are Envoy's to the letter, where they can be read off Envoy: testdata holds tables, requests and Envoy's own
// answers. The order of routes decides; an index only leaves out routes that cannot match.
package route

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// Table is a compiled route table. It is read-only and may be shared.
type Table struct {
	exact map[string]*host
	// suffixes and prefixes hold the wildcard domains by length, the longest first.
	suffixes, prefixes []wildcards
	any                *host
	ignorePort         bool
}

// wildcards are the wildcard domains of one length, without the star.
type wildcards struct {
	length int
	hosts  map[string]*host
}

// Match is what a request matched. The zero value is no match at all.
type Match struct {
	// Host is the virtual host, nil where no domain matches.
	Host *mesh.VirtualHost
	// Route is nil where no route of Host matches, or where RequireTLS is set.
	Route *mesh.Route
	// Matched is how many bytes of the path a prefix rewrite replaces: the prefix or path, or the whole path (without
	// the query) where the route matched a pattern.
	Matched int
	// RequireTLS says that the virtual host answers plain requests with a redirect; Location has its target, and the
	// status is 301.
	RequireTLS bool

	// picked is the cluster that the runtime's weights gave; nil where the route's own count.
	picked *mesh.WeightedCluster
}

// Compile builds a table. Errors name what is wrong, for a person.
func Compile(rt *mesh.RouteTable) (*Table, error) {
	t := &Table{exact: map[string]*host{}, ignorePort: rt.IgnorePort}
	for _, vh := range rt.Hosts {
		h, err := newHost(vh)
		if err != nil {
			return nil, fmt.Errorf("route table %q: %w", rt.Name, err)
		}
		for _, d := range vh.Domains {
			if old := t.add(strings.ToLower(d), h); old != nil {
				return nil, fmt.Errorf("route table %q: domain %q is in the virtual hosts %q and %q; it may be in one only",
					rt.Name, d, old.vh.Name, vh.Name)
			}
		}
	}
	for _, w := range [][]wildcards{t.suffixes, t.prefixes} {
		slices.SortFunc(w, func(a, b wildcards) int { return cmp.Compare(b.length, a.length) })
	}
	return t, nil
}

// add enters a domain and returns the host that has it already, if any.
func (t *Table) add(domain string, h *host) (old *host) {
	hosts := t.exact
	switch {
	case domain == "*":
		old, t.any = t.any, h
		return old
	case strings.HasPrefix(domain, "*"):
		domain = domain[1:]
		hosts = ofLength(&t.suffixes, len(domain))
	case strings.HasSuffix(domain, "*"):
		domain = domain[:len(domain)-1]
		hosts = ofLength(&t.prefixes, len(domain))
	}
	old = hosts[domain]
	hosts[domain] = h
	return old
}

func ofLength(list *[]wildcards, n int) map[string]*host {
	for _, w := range *list {
		if w.length == n {
			return w.hosts
		}
	}
	w := wildcards{n, map[string]*host{}}
	*list = append(*list, w)
	return w.hosts
}

// Match finds the route of a request. random decides for routes that match a share of requests; WeightedCluster takes
// the same number.
func (t *Table) Match(r *codec.Request, random uint64) Match {
	h := t.host(r.Authority)
	if h == nil {
		return Match{}
	}
	m := Match{Host: h.vh}
	if h.vh.RequireTLS != mesh.TLSNotRequired && mustUseTLS(h.vh.RequireTLS, r) {
		m.RequireTLS = true
		return m
	}
	path := r.PathOnly()
	m.Route = h.find(r, path, random)
	if m.Route == nil {
		return m
	}
	m.picked = byRuntime(m.Route.Forward, random)
	switch m.Route.Match.Kind {
	case mesh.PathRegex, mesh.PathConnect:
		m.Matched = len(path)
	default:
		m.Matched = len(m.Route.Match.Path)
	}
	return m
}

// host finds the virtual host of an authority: an exact domain, else the longest suffix wildcard, else the longest prefix
// wildcard, else "*". A wildcard stands for at least one character.
func (t *Table) host(authority []byte) *host {
	if t.ignorePort {
		authority = withoutPort(authority)
	}
	var buf [256]byte
	name := buf[:0]
	for _, c := range authority {
		name = append(name, lower(c))
	}
	if h := t.exact[string(name)]; h != nil {
		return h
	}
	for _, w := range t.suffixes {
		if w.length < len(name) {
			if h := w.hosts[string(name[len(name)-w.length:])]; h != nil {
				return h
			}
		}
	}
	for _, w := range t.prefixes {
		if w.length < len(name) {
			if h := w.hosts[string(name[:w.length])]; h != nil {
				return h
			}
		}
	}
	return t.any
}

// withoutPort cuts the port off; a colon inside of brackets belongs to an IPv6 address.
func withoutPort(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i > bytes.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}

func mustUseTLS(require mesh.RequireTLS, r *codec.Request) bool {
	return proto(r) != "https" && (require == mesh.TLSAll || string(r.Header.Get("x-envoy-internal")) != "true")
}

// proto is the scheme that the client used: what x-forwarded-proto says, which the connection manager sets or trusts,
// else the request's own.
func proto(r *codec.Request) string {
	scheme := r.Header.GetID(header.ForwardedProto)
	if scheme == nil {
		scheme = r.Scheme
	}
	if string(scheme) == "https" {
		return "https"
	}
	return "http"
}

// WeightedCluster picks one of the clusters that the route forwards to, by weight; nil where the cluster's name comes
// from a header, and where the route does not forward.
func (m Match) WeightedCluster(random uint64) *mesh.WeightedCluster {
	if m.Route == nil || m.Route.Forward == nil || len(m.Route.Forward.Clusters) == 0 {
		return nil
	}
	clusters := m.Route.Forward.Clusters
	if len(clusters) == 1 {
		return &clusters[0]
	}
	if m.picked != nil {
		return m.picked
	}
	at := random % uint64(m.Route.Forward.TotalWeight)
	for i := range clusters {
		w := uint64(clusters[i].Weight)
		if at < w {
			return &clusters[i]
		}
		at -= w
	}
	return nil // not reached: the weights add up to the total, see newHost
}

// byRuntime picks a cluster where the runtime has the weights; nil where it has none, or makes them all 0. They are read
// twice, so that nothing is allocated; where they change in between, the last cluster may get a request more.
func byRuntime(f *mesh.RouteAction, random uint64) *mesh.WeightedCluster {
	if f == nil || len(f.Clusters) < 2 || f.Clusters[0].Runtime == nil {
		return nil
	}
	clusters, sum := f.Clusters, uint64(0)
	for i := range clusters {
		sum += clusters[i].Runtime.Integer(uint64(clusters[i].Weight)) & math.MaxUint32
	}
	if sum == 0 {
		return nil
	}
	at := random % sum
	for i := range clusters {
		w := clusters[i].Runtime.Integer(uint64(clusters[i].Weight)) & math.MaxUint32
		if at < w {
			return &clusters[i]
		}
		at -= w
	}
	return &clusters[len(clusters)-1]
}
