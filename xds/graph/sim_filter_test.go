// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/meshtap/meshtap/mesh"
)

// changeFilters gives the world another configuration of a filter, or takes one away.
func (w *world) changeFilters(r *rand.Rand) string {
	configs := map[string][]string{
		"f": {"x", "x;rds(r)", "x;rds(t)", "x;srds", "x;filter(g)", "y;filter(g),rds(s)", "x;a,b", "x;rds(s),c"},
		"g": {"x", "y;rds(r)", "y;c", "x;rds(t),d"},
	}
	name := []string{"f", "g"}[r.IntN(2)]
	if r.IntN(8) == 0 {
		delete(w.filters, name)
		return "no filter " + name
	}
	w.filters[name] = configs[name][r.IntN(len(configs[name]))] + fmt.Sprintf("#%d", r.IntN(2))
	return "filter " + name + ":" + w.filters[name]
}

// setFilter is the proxy's side of a SetPart of a filter's configuration: what it names is in force.
func (s *sim) setFilter(a SetPart) {
	if a.Value == nil {
		delete(s.filters, a.Key)
		for key := range s.named(s.last) {
			if key == a.Key {
				s.failf("filter %q is taken away, and what is in force names it", key)
			}
		}
		return
	}
	r := s.origin[a.Value]
	s.log = append(s.log, "  set filter "+string(r.Raw))
	for _, t := range r.RouteTables {
		if s.last.RouteTables[t] == nil && !s.gaveUp["table "+t] {
			s.failf("filter %q before its table %q", r.Raw, t)
		}
	}
	for _, c := range r.Clusters {
		if _, known := s.sent[mesh.KindCluster][c]; known && s.last.Clusters[c] == nil && !s.bad[c] && !s.gaveUp["missing "+c] {
			s.failf("filter %q before its cluster %q", r.Raw, c)
		}
	}
	for _, ref := range r.Parts {
		if s.filters[ref.Key] == nil && !s.gaveUp["extension "+ref.Key] {
			s.failf("filter %q before its filter %q", r.Raw, ref.Key)
		}
	}
	s.filters[a.Key] = r
}

// named are the filters that a snapshot names.
func (s *sim) named(n *mesh.Snapshot) map[string]bool {
	out := map[string]bool{}
	var walk func(r *Resource)
	walk = func(r *Resource) {
		for _, ref := range r.Parts {
			if ref.Kind == mesh.KindExtension && !out[ref.Key] {
				out[ref.Key] = true
				if f := s.filters[ref.Key]; f != nil {
					walk(f)
				}
			}
		}
	}
	for _, r := range s.inForce(n) {
		walk(r)
	}
	return out
}

// checkFilters: what a snapshot brings has its filters, and what those name stays.
func (s *sim) checkFilters(next *mesh.Snapshot) {
	for _, r := range s.inForce(next) {
		for _, ref := range r.Parts {
			if ref.Kind == mesh.KindExtension && s.filters[ref.Key] == nil && !s.gaveUp["extension "+ref.Key] {
				s.failf("%q serves without its filter %q", r.Name, ref.Key)
			}
		}
	}
	for key := range s.named(next) {
		r := s.filters[key]
		if r == nil {
			continue
		}
		for _, t := range r.RouteTables {
			if next.RouteTables[t] == nil && s.last.RouteTables[t] != nil {
				s.failf("filter %q loses its table %q", r.Raw, t)
			}
		}
		for _, c := range r.Clusters {
			if next.Clusters[c] == nil && s.last.Clusters[c] != nil && !s.gaveUp["release "+c] {
				s.failf("filter %q loses its cluster %q", r.Raw, c)
			}
		}
	}
}

// checkFinalFilters: each filter that is named and exists is in force in its last version, and is asked for; no other is.
func (s *sim) checkFinalFilters() {
	s.t.Helper()
	named := s.named(s.last)
	for key := range named {
		if token, exists := s.w.filters[key]; exists && (s.filters[key] == nil || string(s.filters[key].Raw) != key+":"+token) {
			s.failf("filter %q is %+v, want %q", key, s.filters[key], token)
		}
	}
	if !maps.Equal(named, s.subs[mesh.KindExtension]) {
		s.failf("asked for the filters %v, want %v", s.subs[mesh.KindExtension], named)
	}
}

// withFilters are listeners and what they name, filter by filter.
func (s *sim) withFilters(r *Resource) []*Resource {
	out := []*Resource{r}
	for _, ref := range r.Parts {
		if f := s.filters[ref.Key]; f != nil && ref.Kind == mesh.KindExtension {
			out = append(out, s.withFilters(f)...)
		}
	}
	return out
}
