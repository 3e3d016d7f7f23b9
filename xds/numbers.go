// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
)

// The numbers of a subscription, with Envoy's names.
const (
	updateSuccess = iota
	updateRejected
	updateFailure
	initFetchTimeout
	updateAttempt
	updateTime
	updateVersion
	updateVersionText
)

// The numbers of the stream.
const (
	connectedState = iota
	identifier
)

// The numbers that Envoy does not have.
const (
	staleSeconds = iota
	pendingClusters
	pendingListeners
	pendingTables
	ignoredUnrequested
	ignoredStatic
	ignoredDuplicate
	ignoredUnknown
	ignoredRemoval
	streamsTotal
)

// numbers are the metrics of the Manager. Updates of one kind are counted where Envoy counts them; EDS and RDS, which
// Envoy counts by cluster and by table, are not.
type numbers struct {
	updates map[mesh.ResourceKind]*stats.Group
	// parts are those of the secrets, and of the configurations of filters, that are asked for.
	parts   map[part]*stats.Group
	schemas map[mesh.ResourceKind]*stats.Schema
	// ofFilters are those of configurations of filters other than HTTP filters, by how the names of their types begin.
	ofFilters map[string]*stats.Schema
	reg       *stats.Registry
	planes    *stats.Schema
	own       *stats.Group
	// downSince is when the first of the sources was lost, in nanoseconds since 1970; 0 while all are there.
	downSince *atomic.Int64
	graph     graph.Counts
	ads       ads.Counts
}

func updateSchema(name string) *stats.Schema {
	return &stats.Schema{Name: name, Defs: []stats.Def{
		updateSuccess:     {Name: "update_success"},
		updateRejected:    {Name: "update_rejected"},
		updateFailure:     {Name: "update_failure"},
		initFetchTimeout:  {Name: "init_fetch_timeout"},
		updateAttempt:     {Name: "update_attempt", Sum: []int{updateSuccess, updateRejected, updateFailure}},
		updateTime:        {Name: "update_time", Kind: stats.Gauge},
		updateVersion:     {Name: "version", Kind: stats.Gauge},
		updateVersionText: {Name: "version_text", Kind: stats.Text},
	}}
}

// newNumbers returns the numbers. layers says that layers of the runtime come from somewhere.
func newNumbers(reg *stats.Registry, layers bool) numbers {
	n := numbers{updates: map[mesh.ResourceKind]*stats.Group{}, reg: reg, downSince: &atomic.Int64{}}
	n.parts, n.schemas = map[part]*stats.Group{}, partSchemas()
	n.ofFilters = map[string]*stats.Schema{
		"envoy.extensions.filters.listener.": updateSchema("extension_config_discovery.tcp_listener_filter"),
		"envoy.extensions.filters.network.":  updateSchema("extension_config_discovery.network_filter"),
	}
	n.planes = &stats.Schema{Name: "control_plane", Defs: []stats.Def{
		connectedState: {Name: "connected_state", Kind: stats.Gauge},
		identifier:     {Name: "identifier", Kind: stats.Text},
	}}
	for kind, name := range map[mesh.ResourceKind]string{
		mesh.KindCluster: "cluster_manager.cds", mesh.KindListener: "listener_manager.lds",
	} {
		n.updates[kind] = reg.Group(updateSchema(name), name)
	}
	if layers {
		n.updates[mesh.KindRuntime] = reg.Group(updateSchema("runtime"), "runtime")
	}
	n.own = reg.Group(&stats.Schema{Own: true, Defs: []stats.Def{
		staleSeconds:       {Name: "meshtap_xds_disconnected_seconds", Kind: stats.Gauge},
		pendingClusters:    {Name: "meshtap_xds_pending_clusters", Kind: stats.Gauge},
		pendingListeners:   {Name: "meshtap_xds_pending_listeners", Kind: stats.Gauge},
		pendingTables:      {Name: "meshtap_xds_pending_route_configurations", Kind: stats.Gauge},
		ignoredUnrequested: {Name: "meshtap_xds_ignored_unrequested_total"},
		ignoredStatic:      {Name: "meshtap_xds_ignored_static_total"},
		ignoredDuplicate:   {Name: "meshtap_xds_ignored_duplicate_total"},
		ignoredUnknown:     {Name: "meshtap_xds_ignored_unknown_type_total"},
		ignoredRemoval:     {Name: "meshtap_xds_ignored_removal_total"},
		streamsTotal:       {Name: "meshtap_xds_streams_total"},
	}}, "")
	since := n.downSince
	n.own.SetFunc(staleSeconds, func() int64 {
		at := since.Load()
		if at == 0 {
			return 0
		}
		return int64(time.Since(time.Unix(0, at)) / time.Second)
	})
	return n
}

// lost takes since when one of the sources has been away, the zero time where all are there.
func (n *numbers) lost(since time.Time) {
	if since.IsZero() {
		n.downSince.Store(0)
		return
	}
	n.downSince.Store(since.UnixNano())
}

// plane are the numbers of one stream, with Envoy's names.
type plane struct{ group *stats.Group }

// openPlane begins to count for a stream, under its name such as "cluster_manager.cds.control_plane".
func (n *numbers) openPlane(name string) plane {
	p := plane{n.reg.Group(n.planes, name)}
	p.connected(false)
	return p
}

func (p plane) connected(up bool) {
	state := int64(0)
	if up {
		state = 1
	}
	p.group.Set(connectedState, state)
}

func (p plane) identifier(name string) {
	if name != "" {
		p.group.SetText(identifier, name)
	}
}

// failed: a source could not be read, or a stream ended without a response.
func (n *numbers) failed(kind mesh.ResourceKind) {
	if g := n.updates[kind]; g != nil {
		g.Inc(0, updateFailure)
	}
}

func (n *numbers) accepted(kind mesh.ResourceKind, version string, at time.Time) {
	g := n.updates[kind]
	if g != nil {
		count(g, version, at)
	}
}

// count counts an update that was accepted.
func count(g *stats.Group, version string, at time.Time) {
	g.Inc(0, updateSuccess)
	g.Set(updateTime, at.UnixMilli())
	g.Set(updateVersion, hash(version))
	g.SetText(updateVersionText, version)
}

func (n *numbers) rejected(kind mesh.ResourceKind) {
	if g := n.updates[kind]; g != nil {
		g.Inc(0, updateRejected)
	}
}

// timedOut counts the first response of a type that did not come.
func (n *numbers) timedOut(c mesh.ConfigNotice) {
	n.timedOutPart(c.Kind, c.Errors[0].Name)
	if g := n.updates[c.Kind]; g != nil && len(c.Errors) == 1 && c.Errors[0].Name == "" {
		g.Inc(0, initFetchTimeout)
	}
}

// observe takes the numbers that the graph and the stream keep.
func (n *numbers) observe(m *graph.Machine, a ads.Counts) {
	n.own.Set(pendingClusters, int64(m.Pending(mesh.KindCluster)))
	n.own.Set(pendingListeners, int64(m.Pending(mesh.KindListener)))
	n.own.Set(pendingTables, int64(m.Pending(mesh.KindRouteTable)))
	n.ignored(m.Counts(), a)
}

// ignored adds what was ignored since the last call.
func (n *numbers) ignored(g graph.Counts, a ads.Counts) {
	add := func(i int, now, before uint64) {
		if now > before {
			n.own.Add(0, i, int64(now-before))
		}
	}
	add(ignoredUnrequested, g.Unrequested, n.graph.Unrequested)
	add(ignoredStatic, g.Static, n.graph.Static)
	add(ignoredRemoval, g.Removals, n.graph.Removals)
	add(ignoredUnknown, g.Unknown+a.UnknownType, n.graph.Unknown+n.ads.UnknownType)
	add(ignoredDuplicate, a.Duplicate, n.ads.Duplicate)
	add(streamsTotal, a.Streams, n.ads.Streams)
	n.graph, n.ads = g, a
}

// hash is a number for a version, so that graphs show when it changes.
func hash(version string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(version))
	return int64(h.Sum64() >> 1)
}
