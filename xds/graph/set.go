// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// Scopes and virtual hosts are asked for as a whole, of each source that something names, and are used in sets: the scopes
// of a source with the tables of another, or the virtual hosts of one route table. Each member of a set is an entry, which
// goes into force when what it names is there; what names the set waits for it as a whole only the first time.

// collection is what one source sends of such a type.
type collection struct {
	kind mesh.ResourceKind
	// key is Wildcard and the source, as it is asked for.
	key string
	// resources were accepted, by their keys. They are there while they are asked for.
	resources map[string]*Resource
	sets      map[string]*set
	// wanted counts the wanted sets. A source of its own is asked no longer than there are some. The aggregated stream is asked
	// on: control planes do not send again what they take us to have, once we have asked for everything on a stream.
	wanted int
	asked  bool
	// responded says that something came since the collection is asked for, gaveUp that the wait for it is over.
	responded, gaveUp bool
	wait              *wait
}

// set is members that are used together.
type set struct {
	key  string
	from *collection
	// wanted counts the wanted resources that name the set, users those in force. A set that is in use stays.
	wanted, users int
	members       map[string]*entry
	// patience is how long the tables of scopes are waited for.
	patience time.Duration
}

// Collective reports whether resources of a kind are asked for as a whole, of each source that is named for them, and make sets.
func Collective(kind mesh.ResourceKind) bool {
	return kind == mesh.KindScope || kind == mesh.KindVirtualHost
}

func collectionKey(kind mesh.ResourceKind, source string) string {
	return kind.String() + " " + sourcekey.Join(Wildcard, source)
}

// entryKey returns the key of the entry that a resource has in a set; ok is false where it is none of its members.
func (s *set) entryKey(name string) (key string, ok bool) {
	if s.from.kind == mesh.KindScope {
		return sourcekey.Scope(sourcekey.Name(name), s.key), true
	}
	host := sourcekey.Name(name)
	i := strings.LastIndexByte(host, '/')
	return name, i >= 0 && host[:i] == sourcekey.Name(s.key)
}

// setsNamed calls f with the kind and the key of each set that a resource names.
func setsNamed(r *Resource, f func(mesh.ResourceKind, string)) {
	for _, key := range r.Scopes {
		f(mesh.KindScope, key)
	}
	if r.HostSet != "" {
		f(mesh.KindVirtualHost, r.HostSet)
	}
}

func setKey(kind mesh.ResourceKind, key string) string { return kind.String() + " " + key }

// linkSets notes which sets a wanted resource names, and asks for what is not asked for yet.
func (m *Machine) linkSets(r *Resource) {
	setsNamed(r, func(kind mesh.ResourceKind, key string) {
		s := m.set(kind, key)
		if s.wanted++; s.wanted > 1 {
			return
		}
		s.patience = patience(r.Timeouts, sourcekey.Join("", sourcekey.Name(key)), m.opt.FetchTimeout)
		c := s.from
		if c.wanted++; !c.asked {
			c.asked = true
			m.ask(kind, c.key)
			c.wait = m.startWait(&wait{reason: waitSet, kind: kind, name: c.key, set: c,
				after: patience(r.Timeouts, key, m.opt.FetchTimeout)})
		}
		for _, name := range slices.Sorted(maps.Keys(c.resources)) {
			m.join(s, c.resources[name])
		}
	})
}

// set returns a set and makes it where it is not there.
func (m *Machine) set(kind mesh.ResourceKind, key string) *set {
	s := m.sets[setKey(kind, key)]
	if s != nil {
		return s
	}
	source := sourcekey.Source(key)
	c := m.collections[collectionKey(kind, source)]
	if c == nil {
		c = &collection{
			kind: kind, key: sourcekey.Join(Wildcard, source), sets: map[string]*set{}, resources: map[string]*Resource{},
		}
		m.collections[collectionKey(kind, source)] = c
	}
	s = &set{key: key, from: c, members: map[string]*entry{}}
	c.sets[key] = s
	m.sets[setKey(kind, key)] = s
	return s
}

func (m *Machine) unlinkSets(r *Resource) {
	setsNamed(r, func(kind mesh.ResourceKind, key string) {
		s := m.sets[setKey(kind, key)]
		if s.wanted--; s.wanted == 0 {
			s.from.wanted--
			m.dropSet(s)
		}
	})
}

// unaskCollections stops asking the sources of their own of which nothing is wanted at the end of a step.
func (m *Machine) unaskCollections() {
	for _, key := range slices.Sorted(maps.Keys(m.collections)) {
		c := m.collections[key]
		if !c.asked || c.wanted > 0 || sourcekey.Source(c.key) == "" {
			continue
		}
		m.undemand(func(key string, _ *demand) bool {
			return c.kind == mesh.KindVirtualHost && sourcekey.Source(key) == sourcekey.Source(c.key)
		})
		m.unask(c.kind, c.key)
		m.endWait(&c.wait)
		c.asked, c.responded, c.gaveUp = false, false, false
		clear(c.resources)
		m.forgetCollection(c)
	}
}

func (m *Machine) useSets(r *Resource) {
	setsNamed(r, func(kind mesh.ResourceKind, key string) { m.set(kind, key).users++ })
}

func (m *Machine) unuseSets(r *Resource) {
	setsNamed(r, func(kind mesh.ResourceKind, key string) {
		s := m.sets[setKey(kind, key)]
		s.users--
		m.dropSet(s)
	})
}

// dropSet lets go of the members of a set that nobody names. The set is forgotten with the last of them.
func (m *Machine) dropSet(s *set) {
	if s.wanted > 0 || s.users > 0 {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(s.members)) {
		m.setWant(s.members[key], nil)
	}
	m.forgetSet(s)
}

// leaveSet takes an entry that is forgotten out of its set.
func (m *Machine) leaveSet(e *entry) {
	delete(e.set.members, e.name)
	m.forgetSet(e.set)
}

func (m *Machine) forgetSet(s *set) {
	if s.wanted > 0 || s.users > 0 || len(s.members) > 0 {
		return
	}
	c := s.from
	delete(c.sets, s.key)
	delete(m.sets, setKey(c.kind, s.key))
	m.forgetCollection(c)
}

func (m *Machine) forgetCollection(c *collection) {
	if len(c.sets) == 0 && !c.asked {
		delete(m.collections, collectionKey(c.kind, sourcekey.Source(c.key)))
	}
}

// join makes a resource what is wanted of its name in a set.
func (m *Machine) join(s *set, r *Resource) {
	key, ok := s.entryKey(r.Name)
	if !ok {
		return
	}
	e := m.entry(s.from.kind, key)
	e.set, s.members[key] = s, e
	if s.from.kind == mesh.KindScope {
		r = scopeIn(s, r)
	}
	m.takeInto(e, r)
}

// scopeIn returns a scope as it is in a set: its table comes from where the set says.
func scopeIn(s *set, r *Resource) *Resource {
	v := *r.Value.(*mesh.Scope)
	in := *r
	in.Value = &v
	if v.Routes != nil {
		return &in
	}
	tables := sourcekey.Name(s.key)
	v.RouteTable = sourcekey.Join(v.RouteTable, tables)
	in.RouteTables, in.Timeouts = []string{v.RouteTable}, map[string]time.Duration{v.RouteTable: s.patience}
	return &in
}

// collection returns what a response is of, nil where nothing asks for it.
func (m *Machine) collection(kind mesh.ResourceKind, source string) *collection {
	c := m.collections[collectionKey(kind, source)]
	if c == nil || !c.asked {
		return nil
	}
	return c
}

// beforehand finds what a response removes of a collection, and what of it clashes with the rest.
func (m *Machine) beforehand(c *collection, r Response, seen map[string]int, nameless bool) (gone []string, bad map[string]string) {
	if c == nil {
		return nil, nil
	}
	gone = r.Removed
	if r.Full {
		gone = nil
		// Where a bad resource has no name, it may be any of those that seem to be left out.
		if !nameless {
			gone = c.others(seen)
		}
	}
	return gone, m.clashes(c, r, gone, seen)
}

// takeMember takes a resource that did not clash with another.
func (m *Machine) takeMember(kind mesh.ResourceKind, r *Resource) {
	c := m.collection(kind, sourcekey.Source(r.Name))
	if c == nil {
		m.counts.Unrequested++
		return
	}
	if old := c.resources[r.Name]; old != nil && bytes.Equal(old.Raw, r.Raw) {
		r = old
	}
	c.resources[r.Name] = r
	for _, key := range slices.Sorted(maps.Keys(c.sets)) {
		if s := c.sets[key]; s.wanted+s.users > 0 {
			m.join(s, r)
		}
	}
}

// removeMembers removes resources at the end of a response. The first one after a time in which they were not asked for
// also removes what was kept over that time and was not sent again.
func (m *Machine) removeMembers(c *collection, names []string) {
	if len(names) > 0 {
		m.undemand(func(_ string, d *demand) bool { return d.wait == nil && slices.Contains(names, d.answer) })
	}
	first := !c.responded
	c.responded = true
	m.endWait(&c.wait)
	for _, name := range names {
		delete(c.resources, name)
	}
	for _, key := range slices.Sorted(maps.Keys(c.sets)) {
		s := c.sets[key]
		gone := names
		if first {
			gone = s.stale()
		}
		for _, name := range gone {
			if key, ok := s.entryKey(name); ok && s.members[key] != nil {
				m.setWant(s.members[key], nil)
			}
		}
	}
}

// stale are the resources of members that the collection does not have.
func (s *set) stale() (names []string) {
	for _, e := range s.members {
		if r := cmp.Or(e.want, e.live); r != nil && s.from.resources[r.Name] == nil {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// others are the resources that a response with all of them has left out.
func (c *collection) others(seen map[string]int) (names []string) {
	for name := range c.resources {
		if seen[name] == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// setsThere reports whether an entry may go into force as far as its sets go. One that has a set in force already does not
// wait for what came to it since.
func (m *Machine) setsThere(e *entry) bool {
	there := true
	setsNamed(e.want, func(kind mesh.ResourceKind, key string) {
		there = there && (e.has(kind, key) || m.sets[setKey(kind, key)].there())
	})
	return there
}

// has reports whether what is in force names a set.
func (e *entry) has(kind mesh.ResourceKind, key string) (found bool) {
	if e.live != nil {
		setsNamed(e.live, func(k mesh.ResourceKind, named string) { found = found || k == kind && named == key })
	}
	return found
}

func (s *set) there() bool {
	if !s.from.responded && !s.from.gaveUp {
		return false
	}
	for _, e := range s.members {
		if e.want != nil && e.live == nil && !e.moving && !e.refused {
			return false
		}
	}
	return true
}

// SetViews returns the members of a set, sorted by name.
func (m *Machine) SetViews(kind mesh.ResourceKind, key string) []View {
	var out []View
	if s := m.sets[setKey(kind, key)]; s != nil {
		for _, member := range slices.Sorted(maps.Keys(s.members)) {
			out = append(out, m.view(s.members[member]))
		}
	}
	return out
}

// MayAsk reports whether a source that is not asked may be before a resource names it once more: for tables as soon as a
// scope names one, and for virtual hosts when a table is wanted again that was on its way out.
func (m *Machine) MayAsk(source string) bool {
	for _, t := range m.tables {
		if t.live != nil && t.live.HostSet != "" && sourcekey.Source(t.live.HostSet) == source {
			return true
		}
	}
	for _, s := range m.sets {
		if s.from.kind == mesh.KindScope && sourcekey.Name(s.key) == source {
			return true
		}
	}
	return false
}

// missingSets names what a held entry waits for of sets: of those that it names, and of the one that it is in.
func (m *Machine) missingSets(waiting *entry) (out []string) {
	if waiting.set != nil {
		out = waiting.rivals()
	}
	setsNamed(waiting.want, func(kind mesh.ResourceKind, key string) {
		s := m.sets[setKey(kind, key)]
		switch {
		case waiting.has(kind, key) || s.there():
		case !s.from.responded && !s.from.gaveUp:
			out = append(out, fmt.Sprintf("the first %v", kind))
		default:
			for _, key := range slices.Sorted(maps.Keys(s.members)) {
				if e := s.members[key]; e.held() && e.live == nil {
					out = append(out, fmt.Sprintf("%v %q", kind, sourcekey.Shown(key)))
				}
			}
		}
	})
	return out
}

// rivals names the other members that have, or want, what a member claims.
func (e *entry) rivals() (out []string) {
	mine := claims(e.want)
	if e.live != nil {
		mine = append(mine, claims(e.live)...)
	}
	for _, key := range slices.Sorted(maps.Keys(e.set.members)) {
		o := e.set.members[key]
		for _, r := range []*Resource{o.live, o.want} {
			if o != e && o.want != o.live && r != nil && slices.ContainsFunc(claims(r), func(c string) bool { return slices.Contains(mine, c) }) {
				out = append(out, fmt.Sprintf("%v %q", e.kind, sourcekey.Shown(key)))
				break
			}
		}
	}
	return out
}

// patchSets puts the sets of the changed members into a snapshot.
func (m *Machine) patchSets(next *mesh.Snapshot, changed []*entry) {
	done := map[*set]bool{}
	for _, e := range changed {
		s := e.set
		if s == nil || done[s] {
			continue
		}
		if len(done) == 0 {
			next.ScopeSets, next.HostSets = maps.Clone(next.ScopeSets), maps.Clone(next.HostSets)
		}
		done[s] = true
		if s.from.kind == mesh.KindScope {
			list := inForce[*mesh.Scope](s)
			putSet(&next.ScopeSets, s.key, len(list), &mesh.ScopeSet{Scopes: list})
		} else {
			list := inForce[*mesh.VirtualHost](s)
			putSet(&next.HostSets, s.key, len(list), &mesh.HostSet{Hosts: list})
		}
	}
}

// inForce are the members of a set that are in force, in the order of their names.
func inForce[V any](s *set) (out []V) {
	for _, key := range slices.Sorted(maps.Keys(s.members)) {
		if r := s.members[key].live; r != nil {
			out = append(out, r.Value.(V))
		}
	}
	return out
}

// putSet puts a set of n members into a map, where there are any.
func putSet[S any](to *map[string]*S, key string, n int, s *S) {
	switch {
	case n == 0:
		delete(*to, key)
	case *to == nil:
		*to = map[string]*S{key: s}
	default:
		(*to)[key] = s
	}
}
