// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"maps"
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// setPart is the proxy's side of a SetPart. What it has in force must not lose what it names.
func (s *sim) setPart(a SetPart) {
	if a.Kind == mesh.KindExtension {
		s.setFilter(a)
		return
	}
	if a.Value != nil {
		s.secrets[a.Key] = a.Value.(*mesh.Secret)
		return
	}
	delete(s.secrets, a.Key)
	for _, r := range s.inForce(s.last) {
		for _, ref := range r.Parts {
			if ref.Kind == a.Kind && ref.Key == a.Key {
				s.failf("secret %q is taken away, and %q in force names it", a.Key, r.Name)
			}
		}
	}
}

// inForce are the resources that a snapshot's listeners and clusters were made from, in their order.
func (s *sim) inForce(n *mesh.Snapshot) []*Resource {
	var out []*Resource
	for _, name := range slices.Sorted(maps.Keys(n.Clusters)) {
		out = append(out, s.origin[n.Clusters[name]])
	}
	for _, name := range slices.Sorted(maps.Keys(n.Listeners)) {
		out = append(out, s.origin[n.Listeners[name]])
	}
	return out
}

// checkSecrets: what a snapshot brings has its secrets, or they were waited for, and they are asked for.
func (s *sim) checkSecrets(next *mesh.Snapshot) {
	for _, r := range s.inForce(next) {
		for _, ref := range r.Parts {
			got := s.secrets[ref.Key]
			switch {
			case ref.Kind != mesh.KindSecret:
			case got == nil && !s.gaveUp["secret "+ref.Key]:
				s.failf("%q serves without its secret %q", r.Name, ref.Key)
			case got != nil && got.Type().String() != ref.Types:
				s.failf("%q wants a %v, and %q is a %v", r.Name, ref.Types, ref.Key, got.Type())
			}
		}
	}
}

// checkFinalSecrets: each secret that is named and exists is in force in its last version, and is asked for; no other is.
func (s *sim) checkFinalSecrets() {
	s.t.Helper()
	named := map[string]bool{}
	for _, r := range s.inForce(s.last) {
		for _, ref := range r.Parts {
			if ref.Kind == mesh.KindSecret {
				named[ref.Key] = true
			}
		}
	}
	for key := range named {
		token, exists := s.w.secrets[key]
		got := s.secrets[key]
		if exists && (got == nil || s.raw(got) != key+":"+token) {
			s.failf("secret %q is not %q", key, token)
		}
	}
	if !maps.Equal(named, s.subs[mesh.KindSecret]) {
		s.failf("asked for the secrets %v, want %v", s.subs[mesh.KindSecret], named)
	}
}
