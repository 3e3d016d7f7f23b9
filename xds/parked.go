// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// drop takes a part away from the proxy, where nothing can name it again: a snapshot of the history may be asked for, and
// needs its secrets and the configurations of its filters then, as they were last.
func (m *Manager) drop(p part) {
	if slices.ContainsFunc(m.history.list, func(h past) bool { return names(h, p) }) {
		m.parked[p] = struct{}{}
		return
	}
	delete(m.parked, p)
	if p.kind == mesh.KindSecret {
		m.deps.SetSecret(p.key, nil)
	} else {
		m.deps.SetExtension(p.key, nil)
	}
}

// unpark takes away what the history has let go of.
func (m *Manager) unpark() {
	for p := range m.parked {
		m.drop(p)
	}
}

// names reports whether something in a snapshot names a part.
func names(h past, p part) bool {
	for _, c := range h.snapshot.Clusters {
		if contextNames(c.TLS, p) {
			return true
		}
	}
	for _, l := range h.snapshot.Listeners {
		for _, c := range append(slices.Clip(l.Chains), l.DefaultChain) {
			if c != nil && (contextNames(c.TLS, p) || discovers(c.Discovery, p) || managerNames(managerOf(c, h.filters), p)) {
				return true
			}
		}
	}
	return false
}

func contextNames(c *mesh.TLSContext, p part) bool {
	return c != nil && p.kind == mesh.KindSecret && (c.ValidationSecret == p.key || slices.Contains(c.CertificateSecrets, p.key))
}

func managerNames(h *mesh.HTTPManager, p part) bool {
	return h != nil && (discovers(h.RouterDiscovery, p) || slices.ContainsFunc(h.Filters, func(f mesh.Extension) bool {
		return discovers(f.Discovery, p)
	}))
}

func discovers(d *mesh.FilterDiscovery, p part) bool {
	return d != nil && p.kind == mesh.KindExtension && d.Key == p.key
}
