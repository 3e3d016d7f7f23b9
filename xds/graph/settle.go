// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"maps"
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// settle puts everything into force that is complete, and lets go of what is not needed. It returns the snapshot that
// does so, nil where nothing changes.
func (m *Machine) settle() *mesh.Snapshot {
	if !m.dirty || !m.started {
		return nil
	}
	m.moveParts()
	changed := m.movable()
	for _, e := range changed {
		m.move(e)
	}
	changed = append(changed, m.removals()...)
	m.dirty = false
	versions := m.versions()
	if len(changed) == 0 && versions == m.current.Versions && m.current.ID > 0 {
		return nil
	}
	next := m.patch(changed)
	next.ID++
	next.Versions = versions
	m.current = next
	return next
}

// movable marks and returns the entries that are held and complete now. Clusters come first, since tables look whether
// theirs are there or coming, and tables before listeners.
func (m *Machine) movable() []*entry {
	var moving []*entry
	mark := func(e *entry) {
		e.moving = true
		moving = append(moving, e)
	}
	for _, c := range m.touched {
		if c.held() && !c.moving && c.wantSrc.done() && m.partsThere(c.want) {
			mark(c)
		}
	}
	m.touched = m.touched[:0]
	for _, h := range m.movableMembers(mesh.KindVirtualHost) {
		mark(h)
	}
	for _, t := range m.heldIn(mesh.KindRouteTable) {
		if m.clustersThere(t.want) && m.setsThere(t) {
			mark(t)
		}
	}
	for _, s := range m.movableMembers(mesh.KindScope) {
		mark(s)
	}
	for _, l := range m.heldIn(mesh.KindListener) {
		if m.clustersThere(l.want) && m.tablesThere(l.want) && m.partsThere(l.want) && m.setsThere(l) {
			mark(l)
		}
	}
	slices.SortFunc(moving, compareEntries)
	return moving
}

// heldIn returns the held entries of a kind, sorted, so that the waits they start are numbered the same way each time.
func (m *Machine) heldIn(kind mesh.ResourceKind) []*entry {
	var out []*entry
	for e := range m.pending[kind] {
		if e.held() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareEntries)
	return out
}

func (m *Machine) clustersThere(r *Resource) bool {
	there := true
	for _, name := range r.Clusters {
		// No early end: each missing cluster's wait is to start now.
		there = m.clusterThere(m.clusters[name]) && there
	}
	return there
}

// clusterThere reports whether a route may name a cluster: because the cluster is in force or coming, or because there
// is nothing to wait for.
func (m *Machine) clusterThere(c *entry) bool {
	cds := &m.kinds[mesh.KindCluster]
	switch {
	case c.live != nil || c.moving || c.refused || c.gaveUp:
		return true
	case c.want != nil:
		return false
	case !cds.dynamic || c.failure != nil:
		return true
	case !cds.responded:
		return cds.gaveUp
	}
	if c.wait == nil {
		c.wait = m.startWait(&wait{reason: waitMissing, name: c.name, entry: c})
	}
	return false
}

func (m *Machine) tablesThere(r *Resource) bool {
	for _, name := range r.RouteTables {
		if t := m.tables[name]; t.live == nil && !t.moving && !t.refused && !t.gaveUp {
			return false
		}
	}
	return true
}

// move puts an entry's wanted version into force. What it replaces is let go of after the verdict.
func (m *Machine) move(e *entry) {
	e.moving = false
	m.undo = append(m.undo, undo{e, e.live, e.liveSrc, e.sent})
	e.live = e.want
	m.use(e.live)
	m.track(e)
	if e.kind != mesh.KindCluster {
		return
	}
	e.liveSrc = e.wantSrc
	if e.liveSrc == nil {
		e.sent = nil
		m.endWait(&e.keep)
		return
	}
	e.liveSrc.clusters = append(e.liveSrc.clusters, e)
	m.offer(e)
}

// removals takes out of force what nobody wants: listeners and members of sets at once, the tables that nothing in force
// names, then the clusters that nothing in force names.
func (m *Machine) removals() []*entry {
	var out []*entry
	for _, kind := range []mesh.ResourceKind{mesh.KindListener, mesh.KindScope, mesh.KindRouteTable, mesh.KindVirtualHost} {
		if Collective(kind) {
			for _, e := range m.leaving(kind) {
				m.takeOut(e)
				out = append(out, e)
			}
			continue
		}
		for _, e := range slices.SortedFunc(maps.Keys(m.pending[kind]), compareEntries) {
			if e.want == nil && e.live != nil && e.users == 0 {
				m.takeOut(e)
				out = append(out, e)
			}
		}
	}
	for _, c := range slices.SortedFunc(maps.Keys(m.gone), compareEntries) {
		switch {
		case c.users == 0 || c.gaveUp:
			m.takeOut(c)
			out = append(out, c)
		case c.wait == nil:
			c.wait = m.startWait(&wait{reason: waitRelease, name: c.name, entry: c})
		}
	}
	return out
}

func (m *Machine) takeOut(e *entry) {
	old := e.live
	e.live, e.sent = nil, nil
	m.endWait(&e.wait)
	m.endWait(&e.keep)
	m.track(e)
	m.unuse(old)
	if s := e.liveSrc; s != nil {
		e.liveSrc = nil
		m.leave(s, e)
	}
	m.dropIfUnused(e)
	m.release()
}

// versions returns the version_info strings that are in force. A type with resources that are held back keeps the old one.
func (m *Machine) versions() mesh.Versions {
	of := func(kind mesh.ResourceKind, old string) string {
		for e := range m.pending[kind] {
			if e.held() {
				return old
			}
		}
		return m.kinds[kind].version
	}
	old := m.current.Versions
	return mesh.Versions{
		Listeners: of(mesh.KindListener, old.Listeners),
		Routes:    of(mesh.KindRouteTable, old.Routes),
		Clusters:  of(mesh.KindCluster, old.Clusters),
	}
}

// patch returns a copy of the current snapshot in which the entries stand as they are now. Maps without a change are
// shared.
func (m *Machine) patch(changed []*entry) *mesh.Snapshot {
	next := *m.current
	var copied [numKinds]bool
	for _, e := range changed {
		fresh := !copied[e.kind]
		copied[e.kind] = true
		switch e.kind {
		case mesh.KindCluster:
			patchMap(&next.Clusters, fresh, e)
		case mesh.KindListener:
			patchMap(&next.Listeners, fresh, e)
		case mesh.KindRouteTable:
			patchMap(&next.RouteTables, fresh, e)
		}
	}
	m.patchSets(&next, changed)
	return &next
}

func patchMap[V any](to *map[string]V, fresh bool, e *entry) {
	if fresh {
		*to = maps.Clone(*to)
		if *to == nil {
			*to = map[string]V{}
		}
	}
	if e.live == nil {
		delete(*to, e.name)
		return
	}
	(*to)[e.name] = e.live.Value.(V)
}

// onApplied takes the verdict: what was replaced is let go of, what was refused goes back to what was there before, and
// the response that brought it is answered.
func (m *Machine) onApplied(rejected []mesh.Rejection) {
	m.applying = false
	type key struct {
		kind mesh.ResourceKind
		name string
	}
	reasons := make(map[key]string, len(rejected))
	for _, r := range rejected {
		reasons[key{r.Kind, r.Name}] = r.Reason
	}
	var back []*entry
	for _, u := range m.undo {
		reason, refused := reasons[key{u.entry.kind, u.entry.name}]
		if refused {
			m.rollBack(u, reason)
			back = append(back, u.entry)
		} else {
			m.letGo(u)
		}
	}
	clear(m.undo)
	m.undo = m.undo[:0]
	m.answer(rejected)
	if len(back) > 0 {
		m.current = m.patch(back)
		m.current.Versions = m.versions()
	}
	m.dirty = m.dirty || len(m.heldParts) > 0 // what they name may be in force now
}

// letGo drops what a move replaced.
func (m *Machine) letGo(u undo) {
	if f := u.entry.failure; f != nil && bytes.Equal(f.Raw, u.entry.live.Raw) {
		u.entry.failure = nil
	}
	if u.live != nil {
		m.unuse(u.live)
	}
	if u.src != nil {
		m.leave(u.src, u.entry)
	}
}

// rollBack undoes a move that the proxy refused.
func (m *Machine) rollBack(u undo, reason string) {
	e := u.entry
	bad, src := e.live, e.liveSrc
	e.live, e.liveSrc = u.live, u.src
	e.refused = true
	e.failure = &Failure{Reason: reason, Version: bad.Version, At: bad.At, Raw: bad.Raw}
	m.track(e)
	m.unuse(bad)
	if src != nil {
		m.leave(src, e)
	}
	if u.sent != nil && u.sent != e.sent {
		m.do(SetEndpoints{e.name, u.sent})
	}
	e.sent = u.sent
	m.offer(e)
}
