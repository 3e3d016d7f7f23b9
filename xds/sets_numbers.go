// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of the sets of a connection manager, with Envoy's names: http.<prefix>.scoped_rds.<name> and
// http.<prefix>.vhds.<table>. They go on after those of updates.
const (
	configReload = updateVersionText + 1 + iota
	allScopes
	activeScopes
)

// setNumbers are the numbers of the sets in force.
type setNumbers struct {
	reg     *stats.Registry
	schema  map[mesh.ResourceKind]*stats.Schema
	byName  map[string]setGroup
	version func(mesh.ResourceKind, string) string
}

type setGroup struct {
	group  *stats.Group
	kind   mesh.ResourceKind
	source string
	// of are the members that were in force last.
	of any
}

func newSetNumbers(reg *stats.Registry) setNumbers {
	schema := func(name string, more ...stats.Def) *stats.Schema {
		s := updateSchema(name)
		s.Defs = append(append(s.Defs, stats.Def{Name: "config_reload"}), more...)
		return s
	}
	return setNumbers{reg: reg, byName: map[string]setGroup{}, schema: map[mesh.ResourceKind]*stats.Schema{
		mesh.KindScope: schema("scoped_rds", stats.Def{Name: "all_scopes", Kind: stats.Gauge},
			stats.Def{Name: "active_scopes", Kind: stats.Gauge}),
		mesh.KindVirtualHost: schema("vhds"),
	}}
}

// applied takes what is in force now: sets that are new get numbers, those of sets that have gone end. version is what was
// accepted last of a type from a source, and filters are the ends of chains that have come by themselves.
func (n *setNumbers) applied(s *mesh.Snapshot, filters map[string]*mesh.Extension, version func(mesh.ResourceKind, string) string) {
	n.version = version
	seen := map[string]bool{}
	for _, l := range s.Listeners {
		for h := range managers(l, filters) {
			tables := []string{h.RouteTable}
			if sc := h.Scoped; sc != nil {
				scopes := sc.Scopes
				if scopes == nil {
					scopes = s.ScopeSets[sc.Set]
					n.scopes(seen, "http."+h.StatPrefix+".scoped_rds."+sc.Name, sc.Set, scopes)
				}
				tables = tablesOf(scopes)
			}
			for _, key := range tables {
				if t := s.RouteTables[key]; t != nil && t.HostSet != "" {
					n.set(seen, "http."+h.StatPrefix+".vhds."+t.Name, mesh.KindVirtualHost, t.HostSet, s.HostSets[t.HostSet])
				}
			}
		}
	}
	for name, g := range n.byName {
		if !seen[name] {
			g.group.Release()
			delete(n.byName, name)
		}
	}
}

func tablesOf(s *mesh.ScopeSet) (out []string) {
	if s != nil {
		for _, sc := range s.Scopes {
			out = append(out, sc.RouteTable)
		}
	}
	return out
}

func (n *setNumbers) scopes(seen map[string]bool, name, key string, s *mesh.ScopeSet) {
	g := n.set(seen, name, mesh.KindScope, key, s)
	count := int64(len(tablesOf(s)))
	g.group.Set(allScopes, count)
	g.group.Set(activeScopes, count)
}

// set returns the numbers of a set, and counts where it has changed.
func (n *setNumbers) set(seen map[string]bool, name string, kind mesh.ResourceKind, key string, of any) setGroup {
	g, ok := n.byName[name]
	if !ok {
		g = setGroup{n.reg.Group(n.schema[kind], name), kind, sourcekey.Source(key), nil}
		if v := n.version(kind, g.source); v != "" {
			g.accepted(v) // the response that brought the set was accepted before the set was in force
		}
	}
	if g.of != of && !seen[name] {
		g.group.Inc(0, configReload)
		g.of = of
	}
	seen[name] = true
	n.byName[name] = g
	return g
}

// answered counts a response that was accepted, or refused, for all sets that its source has members of.
func (n *setNumbers) answered(kind mesh.ResourceKind, source, version string, ok bool) {
	for _, g := range n.byName {
		switch {
		case g.kind != kind || g.source != source:
		case ok:
			g.accepted(version)
		default:
			g.group.Inc(0, updateRejected)
		}
	}
}

func (g setGroup) accepted(version string) {
	g.group.Inc(0, updateSuccess)
	g.group.Set(updateTime, time.Now().UnixMilli())
	g.group.Set(updateVersion, hash(version))
	g.group.SetText(updateVersionText, version)
}
