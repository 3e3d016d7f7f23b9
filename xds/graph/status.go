// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// TypeStatus is how a type of resource stands.
type TypeStatus struct {
	Kind mesh.ResourceKind
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
	Kind  mesh.ResourceKind
	Name  string
	Since time.Time
	// For names what it waits for, such as `endpoints "a"`.
	For []string
}

// View is what is known of one listener, route table or cluster. Live is in force; Next is accepted and held back; Failure
// is why the last version was not taken. Leaving says that the control plane has removed it, and that it stays for what
// still names it.
type View struct {
	Name       string
	Static     bool
	Leaving    bool
	Live, Next *Resource
	Failure    *Failure
}

// EndpointView is what is known of the endpoints of one cluster. Resource is nil where they come from a look-up.
type EndpointView struct {
	Cluster  string
	Static   bool
	Set      *mesh.EndpointSet
	Resource *Resource
}

// Types returns the status of each type, in the order of mesh.ResourceKind.
func (m *Machine) Types() []TypeStatus {
	out := make([]TypeStatus, numKinds)
	for i := range out {
		k := &m.kinds[i]
		kind := mesh.ResourceKind(i)
		out[i] = TypeStatus{
			Kind: kind, Asked: k.asked > 0, Responded: k.responded,
			Version: k.version, At: k.at, Nack: k.nack, Resources: m.inForce(kind),
		}
	}
	return out
}

func (m *Machine) inForce(kind mesh.ResourceKind) int {
	n := 0
	if kind == mesh.KindEndpoints {
		for _, s := range m.sources {
			if s.res != nil {
				n++
			}
		}
		return n
	}
	for _, e := range m.entries(kind) {
		if e.live != nil && !e.static {
			n++
		}
	}
	return n
}

// Held returns what is held back, sorted by kind and name.
func (m *Machine) Held() []Warming {
	var out []Warming
	for _, kind := range []mesh.ResourceKind{mesh.KindCluster, mesh.KindListener, mesh.KindRouteTable} {
		for _, e := range m.heldIn(kind) {
			out = append(out, Warming{kind, e.name, e.want.At, m.waitsFor(e)})
		}
	}
	return out
}

func (m *Machine) waitsFor(e *entry) []string {
	var out []string
	if e.kind == mesh.KindCluster {
		switch s := e.wantSrc; {
		case s.done():
		case s.watch != 0:
			out = append(out, "the first look-up of its names")
		default:
			out = append(out, fmt.Sprintf("%v %q", mesh.KindEndpoints, s.eds))
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
			out = append(out, fmt.Sprintf("%v %q", mesh.KindRouteTable, name))
		}
	}
	return out
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
		v := View{Name: name, Static: e.static, Live: e.live, Failure: e.failure, Leaving: e.want == nil && e.live != nil}
		if e.held() {
			v.Next = e.want
		}
		out = append(out, v)
	}
	return out
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
			v.Resource = e.liveSrc.res
		}
		if v.Set != nil {
			out = append(out, v)
		}
	}
	return out
}
