// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// The configuration of a filter may name resources itself: a connection manager its route tables, scopes and filters, a TCP
// proxy its clusters. What is wanted of such a part is held back until they are in force, and what it replaces lets go of its
// own afterwards, as with entries.

// entry is a part as the rules for entries see it.
func (p *part) entry() *entry { return &entry{kind: p.kind, name: p.key, want: p.want, live: p.res} }

func (r *Resource) namesNothing() bool {
	return len(r.Clusters)+len(r.RouteTables)+len(r.Parts)+len(r.Scopes) == 0
}

// askedFirst are the resources of a response, those first that are asked for: a filter may name others of the same response, which a
// source that does not answer, or a file, does not send again.
func (m *Machine) askedFirst(r Response) []*Resource {
	if !IsPart(r.Kind) {
		return r.Resources
	}
	var asked, others []*Resource
	for _, res := range r.Resources {
		if m.parts[partKey{r.Kind, res.Name}] != nil {
			asked = append(asked, res)
		} else {
			others = append(others, res)
		}
	}
	return append(asked, others...)
}

// leadsTo reports whether a part is among what a resource names, and what that names.
func (m *Machine) leadsTo(r *Resource, k partKey) bool {
	return slices.ContainsFunc(r.Parts, func(ref mesh.PartRef) bool {
		p := m.part(ref)
		return partKey{ref.Kind, ref.Key} == k || p != nil && p.want != nil && m.leadsTo(p.want, k)
	})
}

// wantPart makes a resource what is wanted of a part. One that names nothing goes into force at once.
func (m *Machine) wantPart(p *part, r *Resource) {
	if p.res != nil && bytes.Equal(p.res.Raw, r.Raw) {
		r = p.res
	}
	old := p.want
	p.want, p.failure = r, nil
	m.endWait(&p.wait)
	m.link(r)
	if old != nil {
		m.unwanted = append(m.unwanted, old)
	}
	switch {
	case r == p.res:
		delete(m.heldParts, p)
	case r.namesNothing():
		m.putPart(p)
	default:
		m.heldParts[p] = struct{}{}
		m.dirty = true
	}
}

// putPart puts what is wanted of a part into force.
func (m *Machine) putPart(p *part) {
	old := p.res
	p.res = p.want
	delete(m.heldParts, p)
	m.use(p.res)
	m.do(SetPart{p.kind, p.key, p.res.Value})
	if old == nil {
		m.touchHeld()
		return
	}
	m.unuse(old)
}

// dropPart forgets a part that nothing names any more.
func (m *Machine) dropPart(p *part) {
	m.endWait(&p.wait)
	delete(m.parts, partKey{p.kind, p.key})
	delete(m.heldParts, p)
	m.unask(p.kind, p.key)
	if p.want != nil {
		m.unwanted = append(m.unwanted, p.want)
	}
	if p.res != nil {
		m.unuse(p.res)
	}
}

// moveParts puts the parts into force whose resources are in force all: they are handed on before the snapshot of this step.
func (m *Machine) moveParts() {
	for moved := true; moved; {
		moved = false
		for _, p := range m.sortedHeldParts() {
			clusters := m.clustersThere(p.want)
			if clusters && m.tablesThere(p.want) && m.partsThere(p.want) && m.setsThere(p.entry()) {
				m.putPart(p)
				moved = true
			}
		}
	}
	m.release()
}

func (m *Machine) sortedHeldParts() []*part {
	return slices.SortedFunc(maps.Keys(m.heldParts), func(a, b *part) int { return cmp.Compare(a.key, b.key) })
}

// waitingParts are the parts that are held back.
func (m *Machine) waitingParts() (out []Warming) {
	for _, p := range m.sortedHeldParts() {
		out = append(out, Warming{p.kind, sourcekey.Shown(p.key), sourcekey.Source(p.key), p.want.At, m.waitsFor(p.entry())})
	}
	return out
}
