// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// SetPart puts a secret, or the configuration of a filter, into force for all that name it, now and later. Value is a
// *mesh.Secret or a *mesh.Extension; nil says that nothing names it any more. It may come before the Apply that brings what
// does.
type SetPart struct {
	Kind  mesh.ResourceKind
	Key   string
	Value any
}

// Reload says that what a secret is read from, besides itself, has changed. Resource is the same as before but for its
// Value. Where Bad is set, it could not be read; what is in force stays.
type Reload struct {
	Resource *Resource
	Bad      *Bad
}

func (SetPart) action() {}
func (Reload) event()   {}

// part is a resource that listeners and clusters name and that does not ride in snapshots, like endpoints: those wait for
// its first version, and the ones after that go by themselves. Unlike endpoints it is asked for as long as something in force
// names it, so that what is kept in force does not outlive its certificate. It may name resources itself; see part_refs.go.
type part struct {
	kind mesh.ResourceKind
	key  string
	// static ones are of the bootstrap, and stay.
	static bool
	// want is the newest accepted version, res what is in force. They differ while what want names is not there.
	want, res *Resource
	// needs counts the resources, wanted and in force, that name it, by the types that serve them.
	needs map[string]int
	// gaveUp says that the wait for the first version is over.
	wait    *wait
	gaveUp  bool
	failure *Failure
}

type partKey struct {
	kind mesh.ResourceKind
	key  string
}

func compareParts(a, b partKey) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.key, b.key))
}

// IsPart says whether the resources of a kind are parts: what listeners and clusters name beside their snapshot, see SetPart.
func IsPart(kind mesh.ResourceKind) bool {
	return kind == mesh.KindSecret || kind == mesh.KindExtension
}

// typeOf returns the type of a part's value.
func typeOf(r *Resource) string {
	if s, ok := r.Value.(*mesh.Secret); ok {
		return s.Type().String()
	}
	return r.Value.(*mesh.Extension).TypeURL
}

// serves says whether a type is one of a list.
func serves(t, types string) bool { return slices.Contains(strings.Fields(types), t) }

// without says what becomes of those who have to do without a part.
func without(kind mesh.ResourceKind) string {
	if kind == mesh.KindSecret {
		return "what names it goes into service, and its handshakes fail"
	}
	return "what names it goes into service with its default, or answers 500, or closes connections, where it has none"
}

// startSecret takes a secret of the bootstrap.
func (m *Machine) startSecret(r *Resource) {
	m.parts[partKey{mesh.KindSecret, r.Name}] = &part{kind: mesh.KindSecret, key: r.Name, static: true, want: r, res: r, needs: map[string]int{}}
	m.do(SetPart{mesh.KindSecret, r.Name, r.Value})
}

// part returns what a reference names.
func (m *Machine) part(ref mesh.PartRef) *part { return m.parts[partKey{ref.Kind, ref.Key}] }

// needParts notes the parts that a resource names, and asks for them.
func (m *Machine) needParts(r *Resource) {
	for _, ref := range r.Parts {
		p := m.part(ref)
		if p == nil {
			p = &part{kind: ref.Kind, key: ref.Key, needs: map[string]int{}}
			m.parts[partKey{ref.Kind, ref.Key}] = p
			m.ask(p.kind, p.key)
			p.wait = m.startWait(&wait{
				reason: waitPart, kind: p.kind, name: p.key, part: p, after: patience(r.Timeouts, p.key, m.opt.FetchTimeout),
			})
		}
		p.needs[ref.Types]++
		if p.res != nil && p.needs[ref.Types] == 1 && !serves(typeOf(p.res), ref.Types) {
			m.timeout(p.kind, p.key, fmt.Sprintf("is a %s, and a %s is needed; %s", typeOf(p.res), ref.Types, without(p.kind)))
		}
	}
}

// releaseParts takes needParts back.
func (m *Machine) releaseParts(r *Resource) {
	for _, ref := range r.Parts {
		p := m.part(ref)
		if p.needs[ref.Types]--; p.needs[ref.Types] == 0 {
			delete(p.needs, ref.Types)
		}
		if len(p.needs) > 0 || p.static {
			continue
		}
		m.dropPart(p)
		m.unneeded = append(m.unneeded, partKey{p.kind, p.key})
	}
}

// dropUnneeded takes the parts away that nothing names any more, once the proxy has let go of what did.
func (m *Machine) dropUnneeded() {
	for _, k := range m.unneeded {
		if m.parts[k] == nil { // else it is needed again
			m.do(SetPart{k.kind, k.key, nil})
		}
	}
	m.unneeded = m.unneeded[:0]
}

// partsThere reports whether a resource need not wait for its parts any longer.
func (m *Machine) partsThere(r *Resource) bool { return len(m.missingParts(r)) == 0 }

// missingParts names the parts that a resource waits for.
func (m *Machine) missingParts(r *Resource) (out []string) {
	for _, ref := range r.Parts {
		if p := m.part(ref); !ref.Default && p.res == nil && !p.gaveUp {
			out = append(out, fmt.Sprintf("%v %q", ref.Kind, sourcekey.Name(ref.Key)))
		}
	}
	return out
}

// takePart takes a part that a control plane has sent.
func (m *Machine) takePart(kind mesh.ResourceKind, r *Resource) {
	p := m.parts[partKey{kind, r.Name}]
	switch {
	case p == nil:
		m.counts.Unrequested++
	case p.want != nil && bytes.Equal(p.want.Raw, r.Raw):
		p.failure = nil
	case !p.suits(typeOf(r)):
		asked := strings.ReplaceAll(strings.Join(slices.Sorted(maps.Keys(p.needs)), " "), " ", " or ")
		m.refusePart(p, r, fmt.Sprintf("is a %s; asked for is a %s", typeOf(r), asked))
	case m.leadsTo(r, partKey{kind, r.Name}):
		m.refusePart(p, r, "names itself, or something that names it")
	default:
		m.wantPart(p, r)
	}
}

func (m *Machine) refusePart(p *part, r *Resource, reason string) {
	m.open.errors = append(m.open.errors, mesh.Rejection{Kind: p.kind, Name: r.Name, Reason: reason})
	m.open.taken--
	p.failure = &Failure{Reason: reason, Version: r.Version, At: r.At, Raw: r.Raw}
}

// suits reports whether a type serves someone, and all that are served now.
func (p *part) suits(t string) bool {
	any := false
	for types := range p.needs {
		switch {
		case serves(t, types):
			any = true
		case p.res != nil && serves(typeOf(p.res), types):
			return false
		}
	}
	return any
}

// touchHeld looks again at what is held back: a part is there, or not waited for any longer.
func (m *Machine) touchHeld() {
	m.touched = append(m.touched, m.heldIn(mesh.KindCluster)...)
	m.dirty = true
}

func (m *Machine) onReload(ev Reload) {
	p := m.parts[partKey{mesh.KindSecret, ev.Resource.Name}]
	switch {
	case p == nil || p.res == nil || !bytes.Equal(p.res.Raw, ev.Resource.Raw): // another one came meanwhile
	case ev.Bad != nil:
		p.failure = &Failure{Reason: ev.Bad.Reason, Version: p.res.Version, At: ev.Resource.At, Raw: p.res.Raw}
		m.do(Notify{mesh.NoticeConfigRejected, mesh.ConfigNotice{
			Kind: p.kind, Version: p.res.Version, Rejected: 1,
			Errors: []mesh.Rejection{{Kind: p.kind, Name: p.key, Reason: ev.Bad.Reason}},
		}})
	default:
		p.want, p.failure = ev.Resource, nil
		m.putPart(p)
	}
}

// giveUpPart lets what names a part go into force without it, and returns false where nothing waits for it.
func (m *Machine) giveUpPart(kind mesh.ResourceKind, key, reason string) bool {
	p := m.parts[partKey{kind, key}]
	if p == nil || p.want != nil || p.gaveUp {
		return false
	}
	m.endWait(&p.wait)
	p.gaveUp = true
	m.touchHeld()
	m.timeout(kind, key, reason+"; "+without(kind))
	return true
}

// Parts returns the parts of a kind that something names, and those of the bootstrap, sorted. Live is nil for one that is not
// in force yet.
func (m *Machine) Parts(kind mesh.ResourceKind) []View {
	var out []View
	for _, k := range slices.SortedFunc(maps.Keys(m.parts), compareParts) {
		if k.kind != kind {
			continue
		}
		p := m.parts[k]
		v := View{Name: sourcekey.Name(k.key), Static: p.static, Live: p.res, Failure: p.failure}
		if p.want != p.res {
			v.Next = p.want
		}
		if !p.static {
			v.Source = sourcekey.Source(k.key)
		}
		out = append(out, v)
	}
	return out
}

// TypesFor returns the types that serve those who name a part, separated by spaces: several times where they differ.
func (m *Machine) TypesFor(kind mesh.ResourceKind, key string) string {
	p := m.parts[partKey{kind, key}]
	if p == nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(p.needs)), " ")
}

// partsFrom counts the parts of a source that are in force.
func (m *Machine) partsFrom(kind mesh.ResourceKind, source string) (n int) {
	for k, p := range m.parts {
		if k.kind == kind && p.res != nil && !p.static && sourcekey.Source(k.key) == source {
			n++
		}
	}
	return n
}
