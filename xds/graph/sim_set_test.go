// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// simKinds are what a sim sends.
var simKinds = []mesh.ResourceKind{
	mesh.KindCluster, mesh.KindListener, mesh.KindEndpoints, mesh.KindRouteTable, mesh.KindScope, mesh.KindVirtualHost,
	mesh.KindSecret, mesh.KindExtension,
}

// changeScopes gives the world other scopes, which have different keys.
func (w *world) changeScopes(r *rand.Rand) string {
	keys := []string{"x", "y", "z"}
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	clear(w.scopes)
	for i, name := range []string{"A", "B", "C"} {
		if r.IntN(3) > 0 {
			w.scopes[name] = keys[i] + "," + []string{"r", "s", "t"}[r.IntN(3)]
		}
	}
	return fmt.Sprint("scopes ", w.scopes)
}

// changeHosts gives the world other virtual hosts, whose domains are different in each table.
func (w *world) changeHosts(r *rand.Rand) string {
	clear(w.hosts)
	for _, table := range []string{"r", "s"} {
		domains := []string{"d", "e", "f"}
		r.Shuffle(len(domains), func(i, j int) { domains[i], domains[j] = domains[j], domains[i] })
		for i, name := range []string{"one", "two"} {
			if r.IntN(3) > 0 {
				w.hosts[table+"/"+name] = domains[i] + []string{"", ",a", ",b,c"}[r.IntN(3)]
			}
		}
	}
	return fmt.Sprint("hosts ", w.hosts)
}

// forgetHosts makes an incremental response remove the hosts that the world does not have any more.
func (s *sim) forgetHosts(r *Response) {
	for name := range s.sent[mesh.KindVirtualHost] {
		if _, ok := s.w.hosts[name]; !ok {
			r.Removed = append(r.Removed, name)
		}
	}
	slices.Sort(r.Removed)
	s.sent[mesh.KindVirtualHost] = maps.Clone(s.w.hosts)
}

// nameHosts gives the virtual hosts of a response their domains as other names.
func (s *sim) nameHosts(r *Response) {
	r.Aliases = map[string][]string{}
	for _, h := range r.Resources {
		table, _, _ := strings.Cut(h.Name, "/")
		r.Aliases[h.Name] = []string{table + "/" + h.Value.(*mesh.VirtualHost).Domains[0]}
	}
}

// demand is a request for a host that its table need not have.
func (s *sim) demand(r *rand.Rand) {
	d := Demand{[]string{"r", "s"}[r.IntN(2)], []string{"d", "e", "nobody"}[r.IntN(3)]}
	s.demands[d] = true
	s.log = append(s.log, fmt.Sprint("demand ", d))
	s.step(d)
}

// answeredDemand: what a request waits for is in force when it is told, or does not come.
func (s *sim) answeredDemand(a Answered) {
	d := Demand(a)
	if !s.demands[d] {
		s.failf("answered %v, which nobody waits for", d)
	}
	delete(s.demands, d)
	for _, e := range s.m.hosts {
		if e.held() && e.live == nil && s.m.demands[a.Set+"/"+a.Host] != nil && slices.Contains(e.want.Value.(*mesh.VirtualHost).Domains, a.Host) &&
			strings.HasPrefix(e.name, a.Set+"/") {
			s.failf("answered %v, and %q is on its way", d, e.name)
		}
	}
}

// tablesOf are the tables that a listener wants, by itself, by its filters and by scopes.
func (s *sim) tablesOf(listener *Resource) (out []string) {
	for _, r := range s.withFilters(listener) {
		out = append(out, r.RouteTables...)
		if len(r.Scopes) > 0 {
			for _, v := range s.w.scopes {
				out = append(out, strings.Split(v, ",")[1])
			}
		}
	}
	return out
}

// served are the tables that each key of a set leads to in a snapshot, where they are there.
func served(n *mesh.Snapshot, set string) map[string]*mesh.RouteTable {
	out := map[string]*mesh.RouteTable{}
	if scopes := n.ScopeSets[set]; scopes != nil {
		for _, sc := range scopes.Scopes {
			if t := n.RouteTables[sc.RouteTable]; t != nil {
				out[sc.Fragments[0]] = t
			}
		}
	}
	return out
}

// checkSets: no two members of a set claim the same; the tables of scopes are there; and a key that was served stays so for
// as long as the newest scopes have it.
func (s *sim) checkSets(next *mesh.Snapshot) {
	for _, scopes := range next.ScopeSets {
		keys := map[string]bool{}
		for _, sc := range scopes.Scopes {
			if keys[sc.Fragments[0]] {
				s.failf("two scopes have the key %q", sc.Fragments[0])
			}
			keys[sc.Fragments[0]] = true
			if next.RouteTables[sc.RouteTable] == nil && !s.gaveUp["table "+sc.RouteTable] {
				s.failf("scope %q without its table %q", sc.Name, sc.RouteTable)
			}
		}
	}
	for table, hosts := range next.HostSets {
		domains := map[string]bool{}
		for _, h := range hosts.Hosts {
			if domains[h.Domains[0]] {
				s.failf("two virtual hosts of %q have the domain %q", table, h.Domains[0])
			}
			domains[h.Domains[0]] = true
		}
	}
	for _, l := range next.Listeners {
		before := s.last.Listeners[l.Name]
		if len(s.origin[l].Scopes) == 0 {
			continue
		}
		if before == nil || len(s.origin[before].Scopes) == 0 {
			s.checkNewlyScoped(next)
			continue
		}
		now := served(next, "")
		for key := range served(s.last, "") {
			if sc := s.wantedScope(key); now[key] == nil && sc != nil && !s.over["table "+sc.RouteTable] {
				s.failf("key %q was served before and is not now", key)
			}
		}
	}
}

// checkNewlyScoped: what begins to use scopes finds those that there are, with their tables.
func (s *sim) checkNewlyScoped(next *mesh.Snapshot) {
	c := s.m.collection(mesh.KindScope, "")
	if c == nil || !c.responded && !s.over["set scoped_route_configuration"] {
		s.failf("a listener goes into force before its scopes")
	}
	now := served(next, "")
	for _, r := range c.resources {
		sc := r.Value.(*mesh.Scope)
		known := s.m.scopes[sourcekey.Scope(sc.Name, "")].live != nil && s.last.ScopeSets[""] != nil
		if now[sc.Fragments[0]] == nil && !s.over["table "+sc.RouteTable] && !known {
			s.failf("a listener goes into force before scope %q", sc.Name)
		}
	}
}

// wantedScope is the newest scope with a key, as the machine knows it; nil where there is none.
func (s *sim) wantedScope(key string) *mesh.Scope {
	for _, e := range s.m.scopes {
		if e.want != nil && e.want.Value.(*mesh.Scope).Fragments[0] == key {
			return e.want.Value.(*mesh.Scope)
		}
	}
	return nil
}

// checkFinalSets compares the sets in force with the world.
func (s *sim) checkFinalSets() {
	wantScopes, wantHosts := map[string]string{}, map[string]string{}
	scoped := false
	for _, l := range s.last.Listeners {
		for _, r := range s.withFilters(s.origin[l]) {
			scoped = scoped || len(r.Scopes) > 0
		}
	}
	if scoped {
		for name, v := range s.w.scopes {
			wantScopes[name] = v
		}
	}
	for name, v := range s.w.hosts {
		table, _, _ := strings.Cut(name, "/")
		if t := s.last.RouteTables[table]; t != nil && t.HostSet != "" {
			domain, _, _ := strings.Cut(v, ",")
			wantHosts[name] = domain
		}
	}
	gotScopes, gotHosts := map[string]string{}, map[string]string{}
	for _, set := range s.last.ScopeSets {
		for _, sc := range set.Scopes {
			gotScopes[sc.Name] = sc.Fragments[0] + "," + sc.RouteTable
		}
	}
	for _, set := range s.last.HostSets {
		for _, h := range set.Hosts {
			gotHosts[h.Name] = h.Domains[0]
		}
	}
	if len(s.demands) > 0 {
		s.failf("not answered: %v", s.demands)
	}
	if !maps.Equal(gotScopes, wantScopes) || !maps.Equal(gotHosts, wantHosts) {
		s.failf("scopes %v, want %v; hosts %v, want %v", gotScopes, wantScopes, gotHosts, wantHosts)
	}
}

// TestScopeKeysStayServed is TestRandomSequences with a listener that stays and scopes that change all the time, whose
// tables come one by one.
func TestScopeKeysStayServed(t *testing.T) {
	t.Parallel()
	moved := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 8))
		s := newSim(t, newWorld())
		s.log = append(s.log, fmt.Sprint("seed ", seed))
		s.connect(true)
		s.w.listeners["L"] = "srds"
		s.send(mesh.KindListener, "")
		all := map[string]string{"r": "#1", "s": "#1", "t": "#1"}
		for range 60 {
			if r.IntN(2) == 0 {
				s.log = append(s.log, s.w.changeScopes(r))
				s.send(mesh.KindScope, []string{"", "", "A"}[r.IntN(3)])
				continue
			}
			before := s.last
			name := []string{"r", "s", "t"}[r.IntN(3)]
			s.w.tables = map[string]string{name: all[name]}
			s.send(mesh.KindRouteTable, "")
			if s.last != before {
				moved++
			}
		}
		s.w.tables = all
		s.deliver()
		s.checkFinal()
		s.checkEmpty()
	}
	if moved < 100 {
		t.Errorf("only %d tables brought something into force", moved)
	}
}
