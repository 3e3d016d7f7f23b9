// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"maps"
	"slices"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// A virtual host can be asked for by name when a request needs it: as "<table>/<host>", beside everything that the source
// sends by itself. Its control plane may answer with a resource of that name, with one of another name that has it as an
// alias, or by saying that there is none.

// The bounds of demands.
const (
	// demandTimeout is how long a virtual host that is asked for on demand is waited for.
	demandTimeout = 5 * time.Second
	// MaxDemands bounds how many are waited for at one time.
	MaxDemands = 1024
)

// demand is a virtual host that requests need. It is asked for as long as there is a resource that answers it; asked is false
// where that was there before.
type demand struct {
	set, host string
	asked     bool
	// wait runs until the source has answered; answer is then the resource that did, by its key.
	wait   *wait
	answer string
}

// onDemand asks for a virtual host, unless nothing can come of that.
func (m *Machine) onDemand(ev Demand) {
	s := m.sets[setKey(mesh.KindVirtualHost, ev.Set)]
	key := sourcekey.Join(sourcekey.Name(ev.Set)+"/"+ev.Host, sourcekey.Source(ev.Set))
	d := m.demands[key]
	switch {
	case d != nil && d.wait != nil:
		return
	case d != nil: // it is on its way into force, or has come since the request looked
		m.untold[key] = d
		return
	case s == nil || !s.from.asked || m.pendingDemands >= MaxDemands:
		m.do(Answered(ev))
		return
	}
	d = &demand{set: ev.Set, host: ev.Host, answer: s.memberFor(ev.Host)}
	m.demands[key] = d
	if d.answer != "" {
		m.untold[key] = d
		return
	}
	d.asked = true
	m.pendingDemands++
	m.ask(mesh.KindVirtualHost, key)
	d.wait = m.startWait(&wait{reason: waitDemand, kind: mesh.KindVirtualHost, name: key})
}

// memberFor returns the virtual host of a set that has a domain, "" where none has. A control plane that has sent it does not
// answer when it is asked for it once more.
func (s *set) memberFor(domain string) string {
	for key, e := range s.members {
		if e.want != nil && slices.Contains(e.want.Value.(*mesh.VirtualHost).Domains, domain) {
			return key
		}
	}
	return ""
}

// settleDemand ends the wait for an answer: answer is the resource that came, "" where there is none to come.
func (m *Machine) settleDemand(key, answer string) {
	d := m.demands[key]
	if d == nil {
		return
	}
	if d.wait != nil {
		m.endWait(&d.wait)
		m.pendingDemands--
		m.untold[key] = d
	}
	d.answer = answer
	if answer != "" {
		return
	}
	if d.asked {
		m.unask(mesh.KindVirtualHost, key)
	}
	delete(m.demands, key)
}

// answerDemands takes what a response says of virtual hosts that are asked for by name.
func (m *Machine) answerDemands(c *collection, r Response) {
	for _, res := range r.Resources {
		answer := res.Name
		if c.resources[answer] == nil {
			answer = "" // it could not be taken, and there was none before
		}
		for _, name := range append([]string{res.Name}, r.Aliases[res.Name]...) {
			m.settleDemand(name, answer)
		}
	}
	for _, b := range r.Bad {
		m.denied([]string{b.Name})
	}
	m.denied(r.Removed)
}

// denied takes the word of a source that there is no such virtual host.
func (m *Machine) denied(names []string) {
	for _, name := range names {
		if d := m.demands[name]; d != nil && d.wait != nil {
			m.settleDemand(name, "")
		}
	}
}

// undemand lets go of the demands that a resource answered that has gone, or all of a source.
func (m *Machine) undemand(gone func(key string, d *demand) bool) {
	for _, key := range slices.Sorted(maps.Keys(m.demands)) {
		if gone(key, m.demands[key]) {
			m.settleDemand(key, "")
		}
	}
}

// tellDemands tells those who wait for virtual hosts that have come, once these are in force or cannot be, and those who wait
// for what does not come.
func (m *Machine) tellDemands() {
	for _, key := range slices.Sorted(maps.Keys(m.untold)) {
		d := m.untold[key]
		if e := m.hosts[d.answer]; e == nil || !e.held() {
			delete(m.untold, key)
			m.do(Answered{d.set, d.host})
		}
	}
}
