// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// source is where the endpoints of one or more clusters come from: an EDS resource, or a look-up.
type source struct {
	// eds is the resource's name; watch is the look-up's number where it is not 0.
	eds   string
	watch WatchID
	// looked is the cluster that the look-up is made for.
	looked *mesh.Cluster
	// set is the last answer; res is the resource it came in, for EDS.
	set *mesh.EndpointSet
	res *Resource
	// wants counts the wanted clusters, clusters holds one element for each wanted cluster and each in force.
	wants    int
	clusters []*entry
	// gaveUp says that the wait for the first answer is over.
	wait    *wait
	gaveUp  bool
	failure *Failure
}

// done reports whether a cluster need not wait for the source any longer.
func (s *source) done() bool { return s == nil || s.set != nil || s.gaveUp }

// chooseSource finds the source of a cluster's wanted version.
func (m *Machine) chooseSource(e *entry) {
	old := e.wantSrc
	e.wantSrc = nil
	if e.want != nil {
		switch c := e.want.Value.(*mesh.Cluster); c.Discovery {
		case mesh.EDS:
			e.wantSrc = m.edsSource(c)
		case mesh.StrictDNS:
			e.wantSrc = m.lookup(e, old, c)
		}
	}
	if s := e.wantSrc; s != nil {
		s.clusters = append(s.clusters, e)
		s.wants++
		if s.wants == 1 {
			m.wake(s, e.want)
		}
	}
	if old != nil {
		m.unchosen = append(m.unchosen, choice{old, e})
	}
}

// choice is a source that a cluster wanted.
type choice struct {
	source  *source
	cluster *entry
}

// unchoose takes a choice back.
func (m *Machine) unchoose(c choice) {
	c.source.wants--
	if c.source.wants == 0 {
		m.sleep(c.source)
	}
	m.leave(c.source, c.cluster)
}

func (m *Machine) edsSource(c *mesh.Cluster) *source {
	name := c.EDSName
	if name == "" {
		name = c.Name
	}
	s := m.sources[name]
	if s == nil {
		s = &source{eds: name}
		m.sources[name] = s
	}
	return s
}

// lookup returns the look-up of a StrictDNS cluster: one that runs where it is for the same names.
func (m *Machine) lookup(e *entry, old *source, c *mesh.Cluster) *source {
	for _, s := range []*source{old, e.liveSrc} {
		if s != nil && s.watch != 0 && reflect.DeepEqual(s.looked.DNS, c.DNS) {
			return s
		}
	}
	m.lastWatch++
	s := &source{watch: m.lastWatch, looked: c}
	m.watches[s.watch] = s
	m.do(Watch{s.watch, c})
	return s
}

// wake asks for a source that a cluster, r, wants.
func (m *Machine) wake(s *source, r *Resource) {
	if s.watch == 0 {
		m.ask(mesh.KindEndpoints, s.eds)
	}
	if s.done() {
		return
	}
	if s.watch != 0 {
		s.wait = m.startWait(&wait{reason: waitLookup, name: s.looked.Name, source: s, after: m.opt.FetchTimeout})
	} else {
		after := patience(r.Timeouts, s.eds, m.opt.FetchTimeout)
		s.wait = m.startWait(&wait{reason: waitEndpoints, name: s.eds, source: s, after: after})
	}
}

// sleep stops asking for a source that no wanted cluster has any more. A cluster in force may keep the set it has; a
// look-up goes on for it.
func (m *Machine) sleep(s *source) {
	m.endWait(&s.wait)
	if s.watch == 0 {
		m.unask(mesh.KindEndpoints, s.eds)
	}
}

// leave takes one mention of a cluster off a source, and drops the source with the last one.
func (m *Machine) leave(s *source, e *entry) {
	i := slices.Index(s.clusters, e)
	s.clusters = slices.Delete(s.clusters, i, i+1)
	if len(s.clusters) > 0 {
		return
	}
	if s.watch == 0 {
		delete(m.sources, s.eds)
		return
	}
	delete(m.watches, s.watch)
	m.do(Unwatch{s.watch})
}

// takeEndpoints takes an EDS resource. It touches the clusters of this resource alone.
func (m *Machine) takeEndpoints(r *Resource) {
	s := m.sources[r.Name]
	if s == nil || s.wants == 0 {
		m.counts.Unrequested++
		return
	}
	s.failure = nil
	if s.res != nil && bytes.Equal(s.res.Raw, r.Raw) {
		return
	}
	s.res = r
	m.setEndpoints(s, r.Value.(*mesh.EndpointSet))
}

func (m *Machine) onEndpoints(ev Endpoints) {
	s := m.watches[ev.Watch]
	switch {
	case s == nil:
		m.counts.Unrequested++
	case ev.Set != nil:
		m.setEndpoints(s, ev.Set)
	case !s.done():
		m.giveUpSource(s, fmt.Sprintf("the first look-up failed: %s", ev.Err))
	}
}

func (m *Machine) setEndpoints(s *source, set *mesh.EndpointSet) {
	first := s.set == nil
	s.set = set
	m.endWait(&s.wait)
	for _, e := range s.clusters {
		m.offer(e)
		if first {
			m.touched = append(m.touched, e)
			m.dirty = true
		}
	}
}

// offer hands the endpoints of a cluster in force on, where they are new and need not wait.
func (m *Machine) offer(e *entry) {
	if e.live == nil || e.liveSrc == nil || e.liveSrc.set == nil {
		return
	}
	after := e.live.Value.(*mesh.Cluster).KeepLast
	if after > 0 && empty(e.liveSrc.set) && !empty(e.sent) {
		m.keep(e, after)
		return
	}
	m.endWait(&e.keep)
	m.hand(e)
}

// keep lets a cluster whose endpoints were taken away go on with those it has, for a time. That begins anew where it changes.
func (m *Machine) keep(e *entry, after time.Duration) {
	if e.keep != nil && e.keep.after == after {
		return
	}
	m.endWait(&e.keep)
	e.keep = m.startWait(&wait{reason: waitKeep, name: e.name, entry: e, after: after})
	m.do(Notify{mesh.NoticeConfigAccepted, mesh.ConfigNotice{
		Kind: mesh.KindEndpoints, Version: e.liveSrc.set.Version,
		Errors: []mesh.Rejection{{Kind: mesh.KindCluster, Name: e.name, Reason: fmt.Sprintf("no endpoints; it goes on with those it had, for %v", after)}},
	}})
}

// hand hands the endpoints of a cluster's source on, where they are new.
func (m *Machine) hand(e *entry) {
	if e.liveSrc.set != e.sent {
		e.sent = e.liveSrc.set
		m.do(SetEndpoints{e.name, e.sent})
	}
}

// empty reports whether there are no endpoints in a set; nil is one.
func empty(s *mesh.EndpointSet) bool {
	return s == nil || !slices.ContainsFunc(s.Localities, func(l mesh.LocalityEndpoints) bool { return len(l.Endpoints) > 0 })
}

// giveUpSource lets the clusters of a source go into force without its endpoints. One that is in force already keeps
// those it has.
func (m *Machine) giveUpSource(s *source, reason string) {
	s.gaveUp = true
	m.endWait(&s.wait)
	for _, e := range s.clusters {
		if e.wantSrc != s || e.want == e.live {
			continue
		}
		m.touched = append(m.touched, e)
		m.dirty = true
		text := "it goes into service without endpoints"
		if e.sent != nil {
			text = "it goes on with the endpoints it has"
		}
		m.timeout(mesh.KindCluster, e.name, reason+"; "+text)
	}
}
