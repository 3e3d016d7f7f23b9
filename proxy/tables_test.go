// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/downstream"
)

func hosts(domains ...string) (out []*mesh.VirtualHost) {
	for _, d := range domains {
		out = append(out, &mesh.VirtualHost{Name: d, Domains: []string{d}})
	}
	return out
}

// A table is compiled with the virtual hosts that came to it, and anew only where one of both has changed; one that cannot
// be leaves the old one in force.
func TestCompileTables(t *testing.T) {
	t.Parallel()
	r, more := &mesh.RouteTable{Name: "r", Hosts: hosts("own"), HostSet: "r"}, &mesh.HostSet{Hosts: hosts("a", "b")}
	plain := &mesh.RouteTable{Name: "plain", Hosts: hosts("own")}
	snap := &mesh.Snapshot{
		RouteTables: map[string]*mesh.RouteTable{"r": r, "plain": plain}, HostSets: map[string]*mesh.HostSet{"r": more},
	}
	first, rejected := compileTables(snap, nil)
	if len(rejected) > 0 || len(first["r"].Config.Hosts) != 3 || first["plain"].Config != plain || len(r.Hosts) != 1 {
		t.Fatalf("%+v, rejected %v", first, rejected)
	}
	for _, host := range []string{"own", "a", "b"} {
		q := &codec.Request{Method: []byte("GET"), Authority: []byte(host), Path: []byte("/")}
		if m := first["r"].Routes.Match(q, 0); m.Host == nil || m.Host.Name != host {
			t.Errorf("%s: %+v", host, m.Host)
		}
	}
	if same, _ := compileTables(snap, first); same["r"] != first["r"] || same["plain"] != first["plain"] {
		t.Error("compiled anew without a change")
	}
	snap.HostSets = map[string]*mesh.HostSet{"r": {Hosts: hosts("a")}}
	second, _ := compileTables(snap, first)
	if len(second["r"].Config.Hosts) != 2 || second["plain"] != first["plain"] {
		t.Errorf("after a change of the hosts: %+v", second["r"].Config)
	}
	snap.RouteTables = map[string]*mesh.RouteTable{"r": {Name: "r", Hosts: hosts("a"), HostSet: "r"}}
	third, rejected := compileTables(snap, second)
	if third["r"] != second["r"] || len(rejected) != 1 || rejected[0].Kind != mesh.KindRouteTable || !strings.Contains(rejected[0].Reason, `"a"`) {
		t.Errorf("a domain twice: %+v, rejected %v", third["r"], rejected)
	}
}

func TestCompileScopes(t *testing.T) {
	t.Parallel()
	set := &mesh.ScopeSet{Scopes: []*mesh.Scope{{Name: "A", Fragments: []string{"a"}, RouteTable: "r"}}}
	first, rejected := compileScopes(map[string]*mesh.ScopeSet{"k": set}, nil)
	if len(rejected) > 0 || first["k"].Config != set {
		t.Fatalf("%+v, rejected %v", first, rejected)
	}
	if same, _ := compileScopes(map[string]*mesh.ScopeSet{"k": set}, first); same["k"] != first["k"] {
		t.Error("compiled anew without a change")
	}
	bad := &mesh.ScopeSet{Scopes: []*mesh.Scope{{Name: "B", Fragments: []string{"b"}, Routes: &mesh.RouteTable{Hosts: hosts("a", "a")}}}}
	kept, rejected := compileScopes(map[string]*mesh.ScopeSet{"k": bad}, first)
	if kept["k"] != first["k"] || len(rejected) != 1 || rejected[0].Kind != mesh.KindScope {
		t.Errorf("a table that cannot be: %+v, rejected %v", kept, rejected)
	}
	if none, rejected := compileScopes(map[string]*mesh.ScopeSet{"k": bad}, map[string]*downstream.Scopes{}); none["k"] != nil || len(rejected) != 1 {
		t.Errorf("and nothing before: %+v, rejected %v", none, rejected)
	}
}
