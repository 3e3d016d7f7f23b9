// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// TypeStatus is how a type of resource stands, as far as it comes from one source.
type TypeStatus struct {
	Kind mesh.ResourceKind
	// Source is where the resources come from, "" being the aggregated stream.
	Source string
	// Asked says that the type is subscribed to: as a whole, or by at least one name.
	Asked bool
	// Responded says that the control plane has answered at least once.
	Responded bool
	// Version was accepted last, At that time. Both are zero where none was.
	Version string
	At      time.Time
	// Nack is the reason of the last NACK, "" where the last response was accepted.
	Nack string
	// Resources counts what came from the control plane and is in force.
	Resources int
}

// Warming is a resource that was accepted and is held back.
type Warming struct {
	Kind         mesh.ResourceKind
	Name, Source string
	Since        time.Time
	// For names what it waits for, such as `endpoints "a"`.
	For []string
}

// View is what is known of one listener, route table or cluster. Live is in force; Next is accepted and held back; Failure
// is why the last version was not taken. Leaving says that the control plane has removed it, and that it stays for what
// still names it.
type View struct {
	// Source is where it comes from, "" being the aggregated stream.
	Name, Source string
	Static       bool
	Leaving      bool
	Live, Next   *Resource
	Failure      *Failure
}

// EndpointView is what is known of the endpoints of one cluster. Resource is nil where they come from a look-up.
type EndpointView struct {
	Cluster  string
	Source   string
	Static   bool
	Set      *mesh.EndpointSet
	Resource *Resource
}

// Types returns the status of each type, in the order of mesh.ResourceKind; a type that comes from several sources is
// there for each of them, sorted.
func (m *Machine) Types() []TypeStatus {
	var out []TypeStatus
	for i := range m.kinds {
		k := &m.kinds[i]
		kind := mesh.ResourceKind(i)
		sources := k.sources()
		if kind > mesh.KindRouteTable && len(k.feeds) == 0 { // few configurations have them
			continue
		}
		for _, source := range sources {
			f := k.feeds[source]
			if f == nil {
				f = &feed{}
			}
			out = append(out, TypeStatus{
				Kind: kind, Source: source, Asked: f.asked > 0, Responded: f.responded,
				Version: f.version, At: f.at, Nack: f.nack, Resources: m.inForce(kind, source),
			})
		}
	}
	return out
}

// sources are those that something is asked of, or one where there are none.
func (k *kindState) sources() []string {
	var out []string
	for _, source := range slices.Sorted(maps.Keys(k.feeds)) {
		if k.feeds[source].asked > 0 {
			out = append(out, source)
		}
	}
	if len(out) == 0 {
		out = []string{k.source}
	}
	return out
}

// Version returns the version_info of a type that was accepted last.
func (m *Machine) Version(kind mesh.ResourceKind) string { return m.kinds[kind].version }

// VersionFrom returns the version_info of a type that was accepted last from a source.
func (m *Machine) VersionFrom(kind mesh.ResourceKind, source string) string {
	if f := m.kinds[kind].feeds[source]; f != nil {
		return f.version
	}
	return ""
}

func (m *Machine) inForce(kind mesh.ResourceKind, source string) int {
	n := 0
	if kind == mesh.KindEndpoints {
		for key, s := range m.sources {
			if s.res != nil && sourcekey.Source(key) == source {
				n++
			}
		}
		return n
	}
	if IsPart(kind) {
		return m.partsFrom(kind, source)
	}
	for name, e := range m.entries(kind) {
		if e.live != nil && !e.static && m.source(kind, name) == source {
			n++
		}
	}
	return n
}

// Held returns what is held back, sorted by kind and name.
func (m *Machine) Held() []Warming {
	var out []Warming
	for _, kind := range []mesh.ResourceKind{
		mesh.KindCluster, mesh.KindListener, mesh.KindRouteTable, mesh.KindScope, mesh.KindVirtualHost,
	} {
		for _, e := range m.heldIn(kind) {
			out = append(out, Warming{kind, sourcekey.Shown(e.name), m.source(kind, e.name), e.want.At, m.waitsFor(e)})
		}
	}
	return append(out, m.waitingParts()...)
}

func (m *Machine) waitsFor(e *entry) []string {
	out := m.missingParts(e.want)
	if e.kind == mesh.KindCluster {
		switch s := e.wantSrc; {
		case s.done():
		case s.watch != 0:
			out = append(out, "the first look-up of its names")
		default:
			out = append(out, fmt.Sprintf("%v %q", mesh.KindEndpoints, sourcekey.Name(s.eds)))
		}
		return out
	}
	for _, name := range e.want.Clusters {
		if c := m.clusters[name]; c.live == nil && !c.refused && !c.gaveUp {
			out = append(out, fmt.Sprintf("%v %q", mesh.KindCluster, name))
		}
	}
	for _, name := range e.want.RouteTables {
		if t := m.tables[name]; t.live == nil && !t.refused && !t.gaveUp {
			out = append(out, fmt.Sprintf("%v %q", mesh.KindRouteTable, sourcekey.Name(name)))
		}
	}
	return append(out, m.missingSets(e)...)
}

// Pending returns how many resources of a kind stand otherwise in force than wanted: held back, refused by the proxy, or
// on their way out.
func (m *Machine) Pending(kind mesh.ResourceKind) int { return len(m.pending[kind]) }

// Views returns the entries of a kind that have something to show, sorted by name.
func (m *Machine) Views(kind mesh.ResourceKind) []View {
	all := m.entries(kind)
	out := make([]View, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		if e.want == nil && e.live == nil && e.failure == nil {
			continue
		}
		out = append(out, m.view(e))
	}
	return out
}

func (m *Machine) view(e *entry) View {
	v := View{
		Name: sourcekey.Shown(e.name), Source: m.source(e.kind, e.name), Static: e.static,
		Live: e.live, Failure: e.failure, Leaving: e.want == nil && e.live != nil,
	}
	if e.held() {
		v.Next = e.want
	}
	return v
}

// EndpointViews returns the endpoints of the clusters in force, sorted by cluster.
func (m *Machine) EndpointViews() []EndpointView {
	var out []EndpointView
	for _, name := range slices.Sorted(maps.Keys(m.clusters)) {
		e := m.clusters[name]
		if e.live == nil {
			continue
		}
		v := EndpointView{Cluster: name, Static: e.static, Set: e.sent}
		if e.liveSrc == nil {
			v.Set = e.live.Value.(*mesh.Cluster).Endpoints
		} else if e.sent == e.liveSrc.set {
			v.Resource, v.Source = e.liveSrc.res, sourcekey.Source(e.liveSrc.eds)
		}
		if v.Set != nil {
			out = append(out, v)
		}
	}
	return out
}
