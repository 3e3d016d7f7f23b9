// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/graph"
)

// noteMembers is note for such resources. A full response speaks for its own source.
func (k *known) noteMembers(r graph.Response) {
	all := k[r.Kind]
	asked := sourcekey.Join(graph.Wildcard, r.Source)
	if _, ok := all[asked]; !ok {
		return
	}
	if r.Full {
		stay := map[string]bool{asked: true}
		for _, b := range r.Bad {
			stay[b.Name] = true
		}
		for key := range all {
			if sourcekey.Source(key) == r.Source && !stay[key] {
				delete(all, key)
			}
		}
	}
	for _, res := range r.Resources {
		all[res.Name] = res
	}
	for _, key := range r.Removed {
		delete(all, key)
	}
}

// forget drops what came from a source that nothing is asked of any more.
func (k *known) forget(kind mesh.ResourceKind, source string) {
	for key := range k[kind] {
		if sourcekey.Source(key) == source {
			delete(k[kind], key)
		}
	}
}

// showSets adds the scopes and the virtual hosts in force to a dump.
func (m *Manager) showSets(out *dump.Input) {
	out.Hosts = map[int][]dump.Entry{}
	for i, v := range m.graph.Views(mesh.KindRouteTable) {
		if v.Live != nil && v.Live.HostSet != "" {
			out.Hosts[i] = m.shownEntries(m.graph.SetViews(mesh.KindVirtualHost, v.Live.HostSet))
		}
	}
	for _, v := range m.graph.Views(mesh.KindListener) {
		if v.Live == nil {
			continue
		}
		for h := range managers(v.Live.Value.(*mesh.Listener), m.history.filters) {
			if h.Scoped == nil || h.Scoped.Scopes != nil {
				continue
			}
			source := sourcekey.Source(h.Scoped.Set)
			out.ScopeSets = append(out.ScopeSets, dump.ScopeSet{
				Name: h.Scoped.Name, Source: m.describe(source), Version: m.graph.VersionFrom(mesh.KindScope, source),
				Scopes: m.shownEntries(m.graph.SetViews(mesh.KindScope, h.Scoped.Set)),
			})
		}
	}
}

// managers yields the HTTP connection managers of a listener, with those among filters that end its chains.
func managers(l *mesh.Listener, filters map[string]*mesh.Extension) func(func(*mesh.HTTPManager) bool) {
	return func(yield func(*mesh.HTTPManager) bool) {
		for _, c := range append(l.Chains[:len(l.Chains):len(l.Chains)], l.DefaultChain) {
			if h := managerOf(c, filters); h != nil && !yield(h) {
				return
			}
		}
	}
}

// managerOf returns the HTTP connection manager that ends a chain, nil where there is none.
func managerOf(c *mesh.FilterChain, filters map[string]*mesh.Extension) *mesh.HTTPManager {
	if c == nil {
		return nil
	}
	if c.Discovery == nil {
		return c.HTTP
	}
	f := cmp.Or(filters[c.Discovery.Key], c.Discovery.Default)
	if f == nil {
		return nil
	}
	h, _ := f.Config.(*mesh.HTTPManager)
	return h
}

// aliases are the keys under which the resources of a response answer as well, by their own; nil where there are none.
func (f *feed) aliases(kind mesh.ResourceKind, list []ads.Resource) map[string][]string {
	var out map[string][]string
	for _, r := range list {
		for _, name := range r.Aliases {
			if out == nil {
				out = map[string][]string{}
			}
			key := f.key(kind, r.Name)
			out[key] = append(out[key], f.key(kind, name))
		}
	}
	return out
}

// Demand asks for a virtual host that a request needs, among those that come to a table (mesh.RouteTable.HostSet). It may be
// called from any goroutine and does not block; it returns false where too many are asked for. Deps.Answered tells the end.
func (m *Manager) Demand(hostSet, host string) bool {
	select {
	case m.demands <- graph.Demand{Set: hostSet, Host: host}:
		return true
	default:
		return false
	}
}
