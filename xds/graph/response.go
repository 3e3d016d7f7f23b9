// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// answer is a response on its way to an Ack or a Nack.
type answer struct {
	kind                   mesh.ResourceKind
	source, version, nonce string
	at                     time.Time
	taken                  int
	errors                 []mesh.Rejection
	// before is the version that was accepted before of the type, and beforeHere of the source, for the case that the proxy
	// refuses what came.
	before, beforeHere string
	// note is said to observers although the response is accepted.
	note string
}

// maxNamed bounds how many resources a NACK names, and maxDetail its text, in bytes: names can be long.
const (
	maxNamed  = 20
	maxDetail = 16 << 10
)

func (m *Machine) onResponse(r Response) {
	if int(r.Kind) >= numKinds {
		m.counts.Unknown++
		return
	}
	k := &m.kinds[r.Kind]
	if k.feeds[r.Source] == nil && r.Source != "" { // nothing is asked of this source any more
		m.counts.Unrequested += uint64(len(r.Resources) + len(r.Bad))
		return
	}
	f := k.feed(r.Source)
	f.nonce, f.responded, k.responded = r.Nonce, true, true
	m.endWait(&k.wait)
	m.open = &answer{
		kind: r.Kind, source: r.Source, version: r.Version, nonce: r.Nonce, at: r.At, before: k.version, beforeHere: f.version,
		note: r.Note,
	}
	empty := r.Full && len(r.Resources)+len(r.Bad) == 0
	if n := m.dynamic(r.Kind, r.Source); empty && m.opt.KeepOnEmpty && n > 0 {
		m.open.note = fmt.Sprintf("the response would remove all %d; kept, as configured", n)
	} else {
		m.takeAll(r)
	}
	if len(m.open.errors) == 0 {
		k.version, f.version = r.Version, r.Version
		// Sets of endpoints carry their versions themselves.
		m.dirty = m.dirty || r.Kind != mesh.KindEndpoints
	}
}

// dynamic counts the resources of a kind that came from the control plane and are wanted.
func (m *Machine) dynamic(kind mesh.ResourceKind, source string) int {
	if c := m.collection(kind, source); c != nil {
		return len(c.resources)
	}
	if kind == mesh.KindEndpoints {
		return 0
	}
	n := 0
	for _, e := range m.entries(kind) {
		if !e.static && e.want != nil {
			n++
		}
	}
	return n
}

// takeAll judges each resource of a response by itself.
func (m *Machine) takeAll(r Response) {
	seen := make(map[string]int, len(r.Resources)+len(r.Bad))
	for _, res := range r.Resources {
		seen[res.Name]++
	}
	nameless := false
	for _, b := range r.Bad {
		seen[b.Name]++
		nameless = nameless || b.Name == ""
	}
	c := m.collection(r.Kind, r.Source)
	gone, clashes := m.beforehand(c, r, seen, nameless)
	for _, res := range m.askedFirst(r) {
		if why := clashes[res.Name]; why != "" {
			m.refuse(r, Bad{Name: res.Name, Reason: why, Raw: res.Raw})
		} else if seen[res.Name] == 1 {
			m.open.taken++
			m.take(r.Kind, res)
		}
	}
	for _, b := range r.Bad {
		if seen[b.Name] == 1 || b.Name == "" {
			m.refuse(r, b)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if n := seen[name]; n > 1 && name != "" {
			m.refuse(r, Bad{Name: name, Reason: fmt.Sprintf("is there %d times in one response; a name may be there once", n)})
		}
	}
	for _, a := range r.Absent {
		m.absent(r.Kind, a)
	}
	switch {
	case c != nil:
		m.removeMembers(c, gone)
		m.answerDemands(c, r)
	case r.Kind != mesh.KindListener && r.Kind != mesh.KindCluster:
		m.withdraw(r.Kind, r.Removed, "the control plane says that it does not exist")
	case r.Full && !nameless:
		// Where a bad resource has no name, it may be any of those that seem to be left out.
		m.removeOthers(r.Kind, seen)
	default:
		m.remove(r.Kind, r.Removed)
	}
}

// take makes a resource what is wanted of its name.
func (m *Machine) take(kind mesh.ResourceKind, r *Resource) {
	switch kind {
	case mesh.KindEndpoints:
		m.takeEndpoints(r)
		return
	case mesh.KindSecret, mesh.KindExtension:
		m.takePart(kind, r)
		return
	case mesh.KindScope, mesh.KindVirtualHost:
		m.takeMember(kind, r)
		return
	}
	e := m.entries(kind)[r.Name]
	switch {
	case kind == mesh.KindRouteTable && (e == nil || e.wanted == 0):
		m.counts.Unrequested++
		return
	case e != nil && e.static:
		// Envoy skips a resource of the name of a static one, and accepts the response.
		m.counts.Static++
		return
	case e == nil:
		e = m.entry(kind, r.Name)
	}
	m.takeInto(e, r)
}

// takeInto makes a resource what is wanted of an entry.
func (m *Machine) takeInto(e *entry, r *Resource) {
	known := e.known(r)
	switch {
	case known == nil:
		m.setWant(e, r)
	case known != e.want:
		m.setWant(e, known)
	default:
		if !e.refused {
			e.failure = nil
		}
		m.retry(e)
	}
}

// retry lets a resource that the proxy refused go to it once more, since the control plane has sent it again.
func (m *Machine) retry(e *entry) {
	if !e.refused {
		return
	}
	e.refused, m.dirty = false, true
	if e.kind == mesh.KindCluster {
		m.touched = append(m.touched, e)
	}
}

// refuse notes a resource that cannot be used. What was there before stays.
func (m *Machine) refuse(r Response, b Bad) {
	m.open.errors = append(m.open.errors, mesh.Rejection{Kind: r.Kind, Name: b.Name, Reason: b.Reason})
	if b.Name == "" {
		return
	}
	f := &Failure{Reason: b.Reason, Version: r.Version, At: r.At, Raw: b.Raw}
	switch r.Kind {
	case mesh.KindEndpoints:
		if s := m.sources[b.Name]; s != nil {
			s.failure = f
		}
	case mesh.KindSecret, mesh.KindExtension:
		if p := m.parts[partKey{r.Kind, b.Name}]; p != nil {
			p.failure = f
		}
	case mesh.KindScope, mesh.KindVirtualHost: // the NACK is all that tells of them
	case mesh.KindRouteTable:
		if e := m.tables[b.Name]; e != nil && e.wanted > 0 {
			e.failure = f
		}
	default:
		if e := m.entry(r.Kind, b.Name); !e.static {
			e.failure = f
			m.dirty = true
		}
	}
}

// absent ends the wait for a resource that the control plane says it cannot send. One that is there stays.
func (m *Machine) absent(kind mesh.ResourceKind, a Absent) {
	m.giveUp(kind, a.Name, "the control plane cannot send it: "+a.Reason)
}

// withdraw takes the word of a source that there are no route tables, or no endpoints, of these names. It ends the wait
// for them; what is there stays, as in Envoy, where something in force still names it.
func (m *Machine) withdraw(kind mesh.ResourceKind, names []string, reason string) {
	for _, name := range names {
		if !m.giveUp(kind, name, reason) {
			m.counts.Removals++
		}
	}
}

// giveUp ends the wait for a resource, and returns false where nobody waits for it.
func (m *Machine) giveUp(kind mesh.ResourceKind, name, reason string) bool {
	if kind == mesh.KindEndpoints {
		s := m.sources[name]
		if s == nil || s.wants == 0 || s.done() {
			return false
		}
		m.giveUpSource(s, fmt.Sprintf("no endpoints %q: %s", sourcekey.Name(name), reason))
		return true
	}
	if IsPart(kind) {
		return m.giveUpPart(kind, name, reason)
	}
	if kind == mesh.KindVirtualHost {
		m.denied([]string{name})
		return true
	}
	e := m.entries(kind)[name]
	if e == nil || e.want != nil || e.live != nil || e.gaveUp || e.wanted == 0 {
		return false
	}
	m.endWait(&e.wait)
	e.gaveUp, m.dirty = true, true
	m.timeout(kind, name, reason)
	return true
}

// onExpired removes what has outlived its time to live, as if its source had removed it.
func (m *Machine) onExpired(ev Expired) {
	if ev.Kind == mesh.KindListener || ev.Kind == mesh.KindCluster {
		m.remove(ev.Kind, ev.Names)
		return
	}
	if c := m.collection(ev.Kind, ev.Source); c != nil {
		m.removeMembers(c, ev.Names)
		return
	}
	m.withdraw(ev.Kind, ev.Names, "its time to live is over")
}

// removeOthers removes what a state-of-the-world response left out.
func (m *Machine) removeOthers(kind mesh.ResourceKind, seen map[string]int) {
	var names []string
	for name, e := range m.entries(kind) {
		if seen[name] == 0 && !e.static && (e.want != nil || e.failure != nil) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	m.remove(kind, names)
}

func (m *Machine) remove(kind mesh.ResourceKind, names []string) {
	for _, name := range names {
		if e := m.entries(kind)[name]; e != nil && !e.static {
			e.failure = nil
			m.setWant(e, nil)
		}
	}
}

// answer ends the open response, if there is one: all its resources were judged, by us and by the proxy.
func (m *Machine) answer(rejected []mesh.Rejection) {
	late := map[mesh.ResourceKind][]mesh.Rejection{}
	for _, r := range rejected {
		if a := m.open; a != nil && a.kind == r.Kind {
			a.errors = append(a.errors, r)
			a.taken--
		} else {
			late[r.Kind] = append(late[r.Kind], r)
		}
	}
	if a := m.open; a != nil {
		m.open = nil
		m.close(a)
	}
	for _, kind := range slices.Sorted(maps.Keys(late)) {
		m.refuseLate(kind, late[kind])
	}
}

func (m *Machine) close(a *answer) {
	k := &m.kinds[a.kind]
	f := k.feed(a.source)
	n := mesh.ConfigNotice{Kind: a.kind, Version: a.version, Accepted: a.taken, Rejected: len(a.errors), Errors: a.errors}
	if len(a.errors) > 0 {
		k.version, f.version = a.before, a.beforeHere
		f.nack = describe(a.errors)
		m.do(Nack{a.kind, a.source, a.nonce, f.nack, namesOf(a.errors)})
		m.do(Notify{mesh.NoticeConfigRejected, n})
		return
	}
	f.nack, f.at = "", a.at
	m.do(Ack{a.kind, a.source, a.nonce, a.version})
	if a.note != "" {
		n.Errors = []mesh.Rejection{{Kind: a.kind, Reason: a.note}}
	}
	// Endpoints come too often to tell of each set.
	if a.kind != mesh.KindEndpoints || a.note != "" {
		m.do(Notify{mesh.NoticeConfigAccepted, n})
	}
}

// refuseLate tells of resources that were accepted earlier, and that the proxy could not take when their turn came.
func (m *Machine) refuseLate(kind mesh.ResourceKind, rejected []mesh.Rejection) {
	m.do(Notify{mesh.NoticeConfigRejected, mesh.ConfigNotice{
		Kind: kind, Version: m.kinds[kind].version, Rejected: len(rejected), Errors: rejected,
	}})
	rejected = slices.DeleteFunc(slices.Clone(rejected), func(r mesh.Rejection) bool {
		e := m.entries(kind)[r.Name]
		return e == nil || e.static
	})
	bySource := map[string][]mesh.Rejection{}
	for _, r := range rejected {
		source := m.source(kind, r.Name)
		bySource[source] = append(bySource[source], r)
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		f := m.kinds[kind].feeds[source]
		if f == nil || f.nonce == "" {
			continue
		}
		f.nack = describe(bySource[source])
		m.do(Nack{kind, source, f.nonce, f.nack, namesOf(bySource[source])})
	}
}

func namesOf(errors []mesh.Rejection) []string {
	names := make([]string, 0, len(errors))
	for _, e := range errors {
		if e.Name != "" {
			names = append(names, sourcekey.Name(e.Name))
		}
	}
	return names
}

// describe makes the text of a NACK.
func describe(errors []mesh.Rejection) string {
	var b strings.Builder
	for i, e := range errors {
		if i == maxNamed {
			fmt.Fprintf(&b, "; and %d more", len(errors)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		if e.Name == "" {
			fmt.Fprintf(&b, "%v without a name: %s", e.Kind, e.Reason)
		} else {
			fmt.Fprintf(&b, "%v %q: %s", e.Kind, sourcekey.Shown(e.Name), e.Reason)
		}
	}
	if text := b.String(); len(text) > maxDetail {
		return strings.ToValidUTF8(text[:maxDetail], "") + " ..."
	}
	return b.String()
}
