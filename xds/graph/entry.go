// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"cmp"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// entry is a listener, a route table or a cluster: what is wanted and what is in force. With neither it stands for a
// name that others mention.
type entry struct {
	kind mesh.ResourceKind
	name string
	// static entries come from the bootstrap and stay.
	static bool
	// want is the newest accepted version, nil where there is none or it was removed. live is what is in force.
	want, live *Resource
	// last, of a table that nothing wants any more and that is in force, is the newest that was accepted.
	last *Resource
	// wanted counts the wanted resources that name this entry, users those in force.
	wanted, users int
	// refused says that the proxy could not take want. It is not tried again until it is sent again.
	refused bool
	// failure is why the last resource of this name was not taken; nil once one was.
	failure *Failure
	// wait bounds how long others wait for this entry, or how long it outlives its removal; gaveUp says that this is over.
	wait   *wait
	gaveUp bool
	// moving marks an entry that goes into force in this step.
	moving bool

	// Of clusters alone: where the endpoints of want and live come from, and the set that was handed on last.
	wantSrc, liveSrc *source
	sent             *mesh.EndpointSet
	// keep bounds how long a cluster in force goes on with sent in place of a newer set without endpoints.
	keep *wait

	// Of scopes and virtual hosts alone: the set that they are in.
	set *set
}

// Failure says why a resource was not taken.
type Failure struct {
	Reason, Version string
	At              time.Time
	Raw             []byte
}

// undo is what a move replaced.
type undo struct {
	entry *entry
	live  *Resource
	src   *source
	sent  *mesh.EndpointSet
}

// held reports whether a wanted resource waits for something before it goes into force.
func (e *entry) held() bool { return e.want != nil && e.want != e.live && !e.refused }

// known returns the resource with the same bytes, where the entry has one.
func (e *entry) known(r *Resource) *Resource {
	for _, old := range []*Resource{e.want, e.live} {
		if old != nil && bytes.Equal(old.Raw, r.Raw) {
			return old
		}
	}
	return nil
}

func compareEntries(a, b *entry) int {
	if c := cmp.Compare(a.kind, b.kind); c != 0 {
		return c
	}
	return cmp.Compare(a.name, b.name)
}

// entries returns the entries of a kind; there are none of endpoints, which have sources.
func (m *Machine) entries(kind mesh.ResourceKind) map[string]*entry {
	switch kind {
	case mesh.KindCluster:
		return m.clusters
	case mesh.KindListener:
		return m.listeners
	case mesh.KindRouteTable:
		return m.tables
	case mesh.KindScope:
		return m.scopes
	case mesh.KindVirtualHost:
		return m.hosts
	default:
		return nil
	}
}

// entry returns the entry of a name and makes it where it is not there.
func (m *Machine) entry(kind mesh.ResourceKind, name string) *entry {
	all := m.entries(kind)
	e := all[name]
	if e == nil {
		e = &entry{kind: kind, name: name}
		all[name] = e
	}
	return e
}

// setWant changes what is wanted; nil removes it.
func (m *Machine) setWant(e *entry, r *Resource) {
	old := e.want
	e.want, e.refused, e.gaveUp = r, false, false
	switch {
	case r != nil || e.live == nil:
		e.last = nil
	case old != nil:
		e.last = old
	}
	m.endWait(&e.wait)
	if r != nil {
		e.failure = nil
		m.link(r)
	}
	if e.kind == mesh.KindCluster {
		m.chooseSource(e)
		m.touched = append(m.touched, e)
	}
	if old != nil {
		m.unwanted = append(m.unwanted, old)
	}
	m.track(e)
	m.dirty = true
	m.dropIfUnused(e)
}

// release takes back what resources name that are not wanted any more. It does so after all of a response is taken: what one of
// its resources names no longer, another may name from now on, and the control plane, which sees no change of what is asked for,
// would not send that again.
func (m *Machine) release() {
	for len(m.unwanted)+len(m.unchosen) > 0 {
		resources, sources := m.unwanted, m.unchosen
		m.unwanted, m.unchosen = nil, nil
		for _, r := range resources {
			m.unlink(r)
		}
		for _, c := range sources {
			m.unchoose(c)
		}
	}
}

// track keeps the sets of pending and gone entries.
func (m *Machine) track(e *entry) {
	if e.want != e.live {
		m.pending[e.kind][e] = struct{}{}
	} else {
		delete(m.pending[e.kind], e)
	}
	if e.kind != mesh.KindCluster {
		return
	}
	if e.want == nil && e.live != nil {
		m.gone[e] = struct{}{}
	} else {
		delete(m.gone, e)
	}
}

// link notes what a wanted resource names, and asks for the route tables and the parts among it.
func (m *Machine) link(r *Resource) {
	m.needParts(r)
	m.linkSets(r)
	for _, name := range r.Clusters {
		m.entry(mesh.KindCluster, name).wanted++
	}
	for _, name := range r.RouteTables {
		t := m.entry(mesh.KindRouteTable, name)
		t.wanted++
		if t.wanted == 1 {
			m.ask(mesh.KindRouteTable, name)
			if t.want == nil && t.live != nil {
				// It was on its way out. A control plane that still counts on us holding the newest does not send it again.
				m.setWant(t, t.last)
			} else if t.want == nil {
				t.wait = m.startWait(&wait{
					reason: waitTable, name: name, entry: t, after: patience(r.Timeouts, name, m.opt.FetchTimeout),
				})
			}
		}
	}
}

// unlink takes link back.
func (m *Machine) unlink(r *Resource) {
	m.releaseParts(r)
	m.unlinkSets(r)
	for _, name := range r.Clusters {
		c := m.clusters[name]
		c.wanted--
		m.dropIfUnused(c)
	}
	for _, name := range r.RouteTables {
		t := m.tables[name]
		t.wanted--
		if t.wanted > 0 {
			continue
		}
		m.unask(mesh.KindRouteTable, name)
		t.failure = nil
		m.setWant(t, nil)
	}
}

// use and unuse count what a resource in force names.
func (m *Machine) use(r *Resource) {
	m.needParts(r)
	m.useSets(r)
	for _, name := range r.Clusters {
		m.entry(mesh.KindCluster, name).users++
	}
	for _, name := range r.RouteTables {
		m.entry(mesh.KindRouteTable, name).users++
	}
}

func (m *Machine) unuse(r *Resource) {
	m.dirty = true
	m.releaseParts(r)
	m.unuseSets(r)
	for _, name := range r.Clusters {
		c := m.clusters[name]
		c.users--
		m.dropIfUnused(c)
	}
	for _, name := range r.RouteTables {
		t := m.tables[name]
		t.users--
		m.dropIfUnused(t)
	}
}

// dropIfUnused forgets an entry that has nothing and that nobody mentions.
func (m *Machine) dropIfUnused(e *entry) {
	if e.want != nil || e.live != nil || e.wanted > 0 || e.users > 0 || e.failure != nil {
		return
	}
	m.endWait(&e.wait)
	delete(m.entries(e.kind), e.name)
	if e.set != nil {
		m.leaveSet(e)
	}
}
