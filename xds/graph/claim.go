// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// claims returns what no two members of a set can both have: the key of a scope, the domains of a virtual host.
func claims(r *Resource) []string {
	switch v := r.Value.(type) {
	case *mesh.Scope:
		return []string{v.Key()}
	case *mesh.VirtualHost:
		table := sourcekey.Name(r.Name)
		table = table[:max(0, strings.LastIndexByte(table, '/'))]
		out := make([]string, len(v.Domains))
		for i, d := range v.Domains {
			out[i] = table + "/" + d
		}
		return out
	}
	return nil
}

// clashes finds the resources of a response that cannot stand beside the others, with what is there already and stays. The
// last good version of such a resource stays, so that others may clash with that; what was there before does not.
func (m *Machine) clashes(c *collection, r Response, gone []string, seen map[string]int) map[string]string {
	leaves := make(map[string]bool, len(gone))
	for _, name := range gone {
		leaves[name] = true
	}
	fresh := map[string]*Resource{}
	for _, res := range r.Resources {
		if old := c.resources[res.Name]; seen[res.Name] == 1 && (old == nil || !bytes.Equal(old.Raw, res.Raw)) {
			fresh[res.Name] = res
		}
	}
	bad := map[string]string{}
	for again := len(fresh) > 0; again; {
		again = false
		owners := m.ownDomains(c)
		for name, old := range c.resources {
			if fresh[name] == nil && !leaves[name] {
				own(owners, old)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(fresh)) {
			if why := own(owners, fresh[name]); why != "" {
				bad[name], again = why, true
				delete(fresh, name)
			}
		}
	}
	return bad
}

// own gives a resource what it claims, and says what is wrong where that is another's.
func own(owners map[string]string, r *Resource) string {
	for _, claim := range claims(r) {
		first, taken := owners[claim]
		switch {
		case !taken:
			owners[claim] = r.Name
		case first != r.Name:
			return clash(r, sourcekey.Name(first), claim)
		}
	}
	return ""
}

func clash(r *Resource, first, claim string) string {
	if _, ok := r.Value.(*mesh.Scope); ok {
		return fmt.Sprintf("key: is also that of scope %q; two scopes may not have the same key", first)
	}
	domain := claim[strings.LastIndexByte(claim, '/')+1:]
	return fmt.Sprintf("domains: %q is already a domain of virtual host %q; a domain may be given once", domain, first)
}

// ownDomains are the domains that route tables have themselves.
func (m *Machine) ownDomains(c *collection) map[string]string {
	owners := map[string]string{}
	if c.kind != mesh.KindVirtualHost {
		return owners
	}
	for _, t := range m.tables {
		if t.want == nil || t.want.HostSet == "" || sourcekey.Source(t.want.HostSet) != sourcekey.Source(c.key) {
			continue
		}
		for _, h := range t.want.Value.(*mesh.RouteTable).Hosts {
			for _, d := range h.Domains {
				owners[sourcekey.Name(t.name)+"/"+d] = h.Name
			}
		}
	}
	return owners
}

// movableMembers returns the held members of a kind that can go into force. What two members claim passes from one to the
// other at one moment: neither goes before the other can.
func (m *Machine) movableMembers(kind mesh.ResourceKind) []*entry {
	var ready []*entry
	for _, e := range m.heldIn(kind) {
		clusters := m.clustersThere(e.want)
		if m.tablesThere(e.want) && clusters {
			ready = append(ready, e)
		}
	}
	for before := -1; before != len(ready) && len(ready) > 0; {
		before = len(ready)
		moves := make(map[*entry]bool, len(ready))
		for _, e := range ready {
			moves[e] = true
		}
		stays, waits := holders(ready, moves), m.heldClaims(kind, moves)
		ready = slices.DeleteFunc(ready, func(e *entry) bool {
			return claimed(stays[e.set], e.want) || e.live != nil && claimed(waits[e.set], e.live)
		})
	}
	return ready
}

// claimSet are what members of sets claim.
type claimSet map[*set]map[string]*entry

func (c claimSet) add(e *entry, r *Resource) {
	if c[e.set] == nil {
		c[e.set] = map[string]*entry{}
	}
	for _, claim := range claims(r) {
		c[e.set][claim] = e
	}
}

func claimed(by map[string]*entry, r *Resource) bool {
	return len(by) > 0 && slices.ContainsFunc(claims(r), func(claim string) bool { return by[claim] != nil })
}

// holders are the members in force that neither move nor go, of the sets of those that would move.
func holders(ready []*entry, moves map[*entry]bool) claimSet {
	out := claimSet{}
	seen := map[*set]bool{}
	for _, r := range ready {
		if seen[r.set] {
			continue
		}
		seen[r.set] = true
		for _, e := range r.set.members {
			if e.live != nil && e.want != nil && !moves[e] {
				out.add(e, e.live)
			}
		}
	}
	return out
}

// heldClaims are the members of a kind that wait, and do not move now.
func (m *Machine) heldClaims(kind mesh.ResourceKind, moves map[*entry]bool) claimSet {
	out := claimSet{}
	for e := range m.pending[kind] {
		if e.held() && !moves[e] {
			out.add(e, e.want)
		}
	}
	return out
}

// leaving returns the members of a kind that nobody wants and whose claims nobody waits for, sorted.
func (m *Machine) leaving(kind mesh.ResourceKind) []*entry {
	var out []*entry
	waits := m.heldClaims(kind, nil)
	for e := range m.pending[kind] {
		if e.want == nil && (e.set.wanted+e.set.users == 0 || !claimed(waits[e.set], e.live)) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareEntries)
	return out
}
