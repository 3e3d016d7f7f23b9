// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/graph"
)

// maxHistory bounds the snapshots that are kept. They share what has not changed between them.
const maxHistory = 16

// maxChanged bounds the names that a Past lists.
const maxChanged = 20

// Past is one snapshot of the history.
type Past struct {
	// Snapshot is its number, which grows.
	Snapshot uint64
	At       time.Time
	Versions mesh.Versions
	// InForce says that it is what the proxy serves with; Held that it is so because someone asked for it, and goes on until
	// released.
	InForce, Held bool
	// Changed are the resources that it has otherwise than the one before it, such as `cluster "a"`, twenty of them, and All
	// how many there are.
	Changed []string
	All     int
}

// history are the last snapshots, oldest first. It belongs to the loop.
type history struct {
	list []past
	// inForce is what the proxy has, newest what the graph has. They differ while held is set: when someone has asked for
	// inForce, at since.
	inForce, newest *mesh.Snapshot
	held            bool
	since           time.Time
	// sets are the last endpoints of each cluster in the list.
	sets map[string]*mesh.EndpointSet
	// filters are the ends of filter chains that have come by themselves, by key, as the graph has them. The newest of the list has
	// the same map.
	filters map[string]*mesh.Extension
}

type past struct {
	snapshot *mesh.Snapshot
	// filters are the last that there were with the snapshot.
	filters map[string]*mesh.Extension
	at      time.Time
	changed []string
	all     int
}

// add keeps a snapshot, and drops what is too old: not the one that is held.
func (h *history) add(s *mesh.Snapshot, now time.Time) {
	before := h.newest
	if before == nil {
		before = &mesh.Snapshot{}
	}
	changed := difference(before, s)
	h.newest, h.filters = s, maps.Clone(h.filters)
	h.list = append(h.list, past{s, h.filters, now, changed[:min(len(changed), maxChanged)], len(changed)})
	if len(h.list) <= maxHistory {
		return
	}
	drop := 0
	if h.held && h.list[0].snapshot == h.inForce {
		drop = 1
	}
	h.list = slices.Delete(h.list, drop, drop+1)
	for name := range h.sets {
		if !slices.ContainsFunc(h.list, func(p past) bool { return p.snapshot.Clusters[name] != nil }) {
			delete(h.sets, name)
		}
	}
}

// setFilter keeps the end of a filter chain that has come by itself, nil for one that has gone, and reports whether it is to be
// handed on later: while an older snapshot is held, since what it names is held back too.
func (h *history) setFilter(key string, f *mesh.Extension) (later bool) {
	switch {
	case f == nil:
		delete(h.filters, key)
	case endsChain(f):
		h.filters[key] = f
		return h.held
	}
	return false
}

func endsChain(f *mesh.Extension) bool {
	switch f.Config.(type) {
	case *mesh.HTTPManager, *mesh.TCPProxy:
		return true
	}
	return false
}

// difference names the resources that are not the same in two snapshots.
func difference(a, b *mesh.Snapshot) []string {
	out := changes(mesh.KindCluster, a.Clusters, b.Clusters)
	out = append(out, changes(mesh.KindListener, a.Listeners, b.Listeners)...)
	return append(out, changes(mesh.KindRouteTable, a.RouteTables, b.RouteTables)...)
}

// changes says how the second map differs from the first: + is new, - has gone, ~ has changed.
func changes[V comparable](kind mesh.ResourceKind, a, b map[string]V) (out []string) {
	say := func(sign, key string) { out = append(out, sign+kind.String()+" "+strconv.Quote(sourcekey.Shown(key))) }
	for key, v := range b {
		if old, there := a[key]; !there {
			say("+", key)
		} else if old != v {
			say("~", key)
		}
	}
	for key := range a {
		if _, there := b[key]; !there {
			say("-", key)
		}
	}
	slices.Sort(out)
	return out
}

// apply puts a snapshot into force, or keeps it for later where an older one is held, and tells the graph the verdict. What
// the bootstrap asks for has to work.
func (m *Manager) apply(ctx context.Context, s *mesh.Snapshot) {
	m.history.add(s, time.Now())
	m.unpark()
	if m.history.held {
		m.log.Info("configuration accepted and held back, since an older one is held by hand", zap.Uint64("snapshot", s.ID))
		m.step(ctx, graph.Applied{})
		return
	}
	m.history.inForce = s
	rejected := m.deps.Apply(s)
	m.setNumbers.applied(s, m.history.filters, m.graph.VersionFrom)
	for _, r := range rejected {
		if isStatic(s, r) && m.fatal == nil {
			m.fatal = fmt.Errorf("xds: static %v %q: %s", r.Kind, r.Name, r.Reason)
		}
	}
	m.step(ctx, graph.Applied{Rejected: rejected})
}

// setEndpoints hands endpoints on, and keeps them with the history.
func (m *Manager) setEndpoints(cluster string, set *mesh.EndpointSet) {
	m.history.sets[cluster] = set
	m.deps.SetEndpoints(cluster, set)
}

// History returns the snapshots that are kept, newest first. It waits for the loop, and fails when ctx ends before.
func (m *Manager) History(ctx context.Context) ([]Past, error) {
	var out []Past
	err := m.ask(ctx, func() {
		for _, p := range slices.Backward(m.history.list) {
			in := p.snapshot == m.history.inForce
			out = append(out, Past{
				Snapshot: p.snapshot.ID, At: p.at, Versions: p.snapshot.Versions, InForce: in, Held: in && m.history.held,
				Changed: p.changed, All: p.all,
			})
		}
	})
	return out, err
}

// Rollback puts an older snapshot into force and holds it until Release: newer configuration is accepted and kept meanwhile.
// version is the number of a snapshot, or a version_info that it had; see find. Endpoints, secrets and the configurations of filters
// are those of now, or the last that there were; the ends of filter chains that came by themselves are those of the snapshot.
func (m *Manager) Rollback(ctx context.Context, version string) error {
	var err error
	if asked := m.ask(ctx, func() {
		i := m.history.find(version)
		if i < 0 {
			err = fmt.Errorf("there is no snapshot %q among the last %d; see /config_history", version, len(m.history.list))
			return
		}
		err = m.goTo(m.history.list[i].snapshot, m.history.list[i].filters, true)
	}); asked != nil {
		return asked
	}
	return err
}

// Release ends Rollback: the newest configuration goes into force.
func (m *Manager) Release(ctx context.Context) error {
	var err error
	if asked := m.ask(ctx, func() {
		if !m.history.held {
			err = fmt.Errorf("no snapshot is held")
			return
		}
		err = m.goTo(m.history.newest, m.history.filters, false)
	}); asked != nil {
		return asked
	}
	return err
}

// find returns the place of a snapshot, -1 where there is none: that of this number, or the newest that is not in force and
// had the version in all types that have one, or else in any.
func (h *history) find(version string) int {
	all, some := -1, -1
	for i, p := range slices.Backward(h.list) {
		if strconv.FormatUint(p.snapshot.ID, 10) == version {
			return i
		}
		if version == "" || p.snapshot == h.inForce {
			continue
		}
		v := p.snapshot.Versions
		has := func(one string) bool { return one == version }
		if some < 0 && (has(v.Clusters) || has(v.Listeners) || has(v.Routes)) {
			some = i
		}
		hasOrNone := func(one string) bool { return one == version || one == "" }
		if all < 0 && some >= 0 && hasOrNone(v.Clusters) && hasOrNone(v.Listeners) && hasOrNone(v.Routes) {
			all = i
		}
	}
	if all >= 0 {
		return all
	}
	return some
}

// goTo puts a snapshot into force by hand, with the ends of chains that it had. What cannot be put into force is said; what was
// there of it stays.
func (m *Manager) goTo(s *mesh.Snapshot, filters map[string]*mesh.Extension, hold bool) error {
	for name := range s.Clusters {
		if set := m.history.sets[name]; set != nil && m.history.inForce.Clusters[name] == nil {
			m.deps.SetEndpoints(name, set)
		}
	}
	if len(filters) > 0 {
		m.deps.Apply(both(m.history.inForce, s)) // what the filters of now name stays until they have gone
		for key, f := range filters {
			m.deps.SetExtension(key, f)
		}
	}
	m.history.inForce, m.history.held, m.history.since = s, hold, time.Now()
	rejected := m.deps.Apply(s)
	note := fmt.Sprintf("gone back by hand to snapshot %d, which is held until released", s.ID)
	if !hold {
		note = fmt.Sprintf("released by hand; snapshot %d is in force", s.ID)
	}
	m.log.Warn("configuration: "+note, zap.Strings("refused", reasons(rejected)))
	for kind, version := range map[mesh.ResourceKind]string{
		mesh.KindCluster: s.Versions.Clusters, mesh.KindListener: s.Versions.Listeners, mesh.KindRouteTable: s.Versions.Routes,
	} {
		m.deps.Notifier.Notify(&mesh.Notice{Kind: mesh.NoticeConfigAccepted, Time: time.Now().UnixNano(), Config: &mesh.ConfigNotice{
			Kind: kind, Version: version, Rejected: len(rejected), Errors: append([]mesh.Rejection{{Kind: kind, Reason: note}}, rejected...),
		}})
	}
	if len(rejected) > 0 {
		return fmt.Errorf("snapshot %d is in force but for %d resources: %v", s.ID, len(rejected), reasons(rejected))
	}
	return nil
}

// both returns a snapshot with the clusters and routes that there are, and those that come.
func both(now, next *mesh.Snapshot) *mesh.Snapshot {
	out := *now
	out.Clusters, out.RouteTables = merged(now.Clusters, next.Clusters), merged(now.RouteTables, next.RouteTables)
	out.ScopeSets, out.HostSets = merged(now.ScopeSets, next.ScopeSets), merged(now.HostSets, next.HostSets)
	return &out
}

func merged[V any](now, next map[string]V) map[string]V {
	out := make(map[string]V, len(now)+len(next))
	maps.Copy(out, now)
	maps.Copy(out, next)
	return out
}

// heldText says for a person that an older snapshot is held, "" where none is.
func (h *history) heldText() string {
	if !h.held {
		return ""
	}
	return fmt.Sprintf("snapshot %d is held by hand since %s, and snapshot %d waits", h.inForce.ID, h.since.UTC().Format(time.RFC3339), h.newest.ID)
}
