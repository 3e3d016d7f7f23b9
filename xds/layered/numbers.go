// SPDX-License-Identifier: Apache-2.0

package layered

import (
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/runtimekeys"
	"github.com/meshtap/meshtap/internal/stats"
)

// The numbers of the runtime, with Envoy's names.
const (
	loadSuccess = iota
	loadError
	overrideExists
	overrideNotExists
	adminActive
	numKeys
	numLayers
	deprecatedUse
	deprecatedSeen
)

// The numbers that Envoy does not have.
const (
	withoutEffect = iota
	unread
)

// Publish shows the numbers. It is called once; what was counted before is in them. The layers count as loaded when the
// bootstrap is read and again now, when the proxy starts: so it is in Envoy.
func (r *Runtime) Publish(reg *stats.Registry) {
	g := reg.Group(&stats.Schema{Name: "runtime", Defs: []stats.Def{
		loadSuccess:       {Name: "load_success"},
		loadError:         {Name: "load_error"},
		overrideExists:    {Name: "override_dir_exists"},
		overrideNotExists: {Name: "override_dir_not_exists"},
		adminActive:       {Name: "admin_overrides_active", Kind: stats.Gauge},
		numKeys:           {Name: "num_keys", Kind: stats.Gauge},
		numLayers:         {Name: "num_layers", Kind: stats.Gauge},
		// Whether a field that is deprecated is taken does not depend on the runtime here, so these stay 0.
		deprecatedUse:  {Name: "deprecated_feature_use"},
		deprecatedSeen: {Name: "deprecated_feature_seen_since_process_start", Kind: stats.Gauge},
	}}, "runtime")
	g.SetFunc(adminActive, r.adminActive)
	g.SetFunc(numKeys, func() int64 { return int64(len(r.now.Load().final)) })
	g.SetFunc(numLayers, func() int64 { return int64(len(r.now.Load().names)) })
	own := reg.Group(&stats.Schema{Own: true, Defs: []stats.Def{
		withoutEffect: {Name: "meshtap_runtime_keys_without_effect", Kind: stats.Gauge},
		unread:        {Name: "meshtap_runtime_keys_unread", Kind: stats.Gauge},
	}}, "")
	own.SetFunc(withoutEffect, func() int64 { inert, _ := r.Idle(); return int64(len(inert)) })
	own.SetFunc(unread, func() int64 { _, unread := r.Idle(); return int64(len(unread)) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swap()
	r.group = g
	for i, n := range r.counts {
		g.Add(0, i, n)
	}
}

// count counts. The caller holds mu.
func (r *Runtime) count(i int) {
	if r.group == nil {
		r.counts[i]++
		return
	}
	r.group.Inc(0, i)
}

func (r *Runtime) adminActive() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, l := range r.layers {
		if l.Kind == Admin && len(r.values[i]) > 0 {
			return 1
		}
	}
	return 0
}

// Idle returns the keys, sorted, that have a value and change nothing: inert are those of Envoy that are known to mean
// nothing here, unread those that no configuration has named so far, or whose cluster there is not: they may be misspelt.
func (r *Runtime) Idle() (inert, unread []string) {
	s := r.now.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range s.final {
		cluster, read := runtimekeys.Of(name)
		switch {
		case r.asked[name].Value() != nil || read && (cluster == "" || r.isCluster == nil || r.isCluster(cluster)):
		case read:
			unread = append(unread, name)
		case Inert(name):
			inert = append(inert, name)
		default:
			unread = append(unread, name)
		}
	}
	slices.Sort(inert)
	slices.Sort(unread)
	return inert, unread
}

// inertPrefixes are of keys that Envoy reads without being told to by a configuration, and that are not read here.
var inertPrefixes = [...]string{
	"envoy.reloadable_features.", "envoy.restart_features.", "envoy.deprecated_features", "envoy.features.",
	"re2.max_program_size.", "circuit_breakers.", "outlier_detection.", "health_check.", "upstream.", "tracing.", "http.",
	"tcp_proxy.", "ratelimit.", "fault.", "grpc_json_transcoder.", "dns.", "router.", "load_balancing.", "http2.", "quic.",
	"thread_local.", "overload.", "envoy.resource_limits.", "http_connection_manager.", "cluster_manager.", "envoy.http.",
}

// Inert reports whether a key is one of Envoy's own that is not read here, unless a configuration names it.
func Inert(name string) bool {
	if _, read := runtimekeys.Of(name); read {
		return false
	}
	for _, p := range inertPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
