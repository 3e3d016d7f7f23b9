// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/downstream"
	"github.com/meshtap/meshtap/proxy/route"
)

// table is a route table with what it was made of: the table that came, and the virtual hosts that came to it.
type table struct {
	downstream.Table
	from *mesh.RouteTable
	more *mesh.HostSet
}

// compileTables compiles the tables that changed, or whose virtual hosts did. One that cannot be leaves the old one in force.
func compileTables(snap *mesh.Snapshot, old map[string]*table) (map[string]*table, []mesh.Rejection) {
	tables := map[string]*table{}
	var rejected []mesh.Rejection
	for name, from := range snap.RouteTables {
		prev, more := old[name], (*mesh.HostSet)(nil)
		if from.HostSet != "" {
			more = snap.HostSets[from.HostSet]
		}
		if prev != nil && prev.from == from && prev.more == more {
			tables[name] = prev
			continue
		}
		config := withHosts(from, more)
		t, err := route.Compile(config)
		switch {
		case err == nil:
			tables[name] = &table{downstream.Table{Config: config, Routes: t}, from, more}
		case prev != nil:
			tables[name] = prev
			fallthrough
		default:
			rejected = append(rejected, mesh.Rejection{Kind: mesh.KindRouteTable, Name: name, Reason: err.Error()})
		}
	}
	return tables, rejected
}

// withHosts returns a table that has more virtual hosts than its own.
func withHosts(t *mesh.RouteTable, more *mesh.HostSet) *mesh.RouteTable {
	if more == nil {
		return t
	}
	merged := *t
	merged.Hosts = slices.Concat(t.Hosts, more.Hosts)
	return &merged
}

// compileScopes compiles the sets of scopes that changed.
func compileScopes(want map[string]*mesh.ScopeSet, old map[string]*downstream.Scopes) (map[string]*downstream.Scopes, []mesh.Rejection) {
	scopes := map[string]*downstream.Scopes{}
	var rejected []mesh.Rejection
	for key, set := range want {
		prev := old[key]
		if prev != nil && prev.Config == set {
			scopes[key] = prev
			continue
		}
		s, err := downstream.NewScopes(set)
		switch {
		case err == nil:
			scopes[key] = s
		case prev != nil:
			scopes[key] = prev
			fallthrough
		default:
			rejected = append(rejected, mesh.Rejection{Kind: mesh.KindScope, Reason: err.Error()})
		}
	}
	return scopes, rejected
}
