// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/graph"
)

// Dump returns what is known of all resources, for dump.Render. The caller adds the bootstrap and when it was loaded. It
// waits for the loop, and fails when ctx ends before it answers.
func (m *Manager) Dump(ctx context.Context) (dump.Input, error) {
	var out dump.Input
	err := m.ask(ctx, func() {
		out = dump.Input{
			Clusters:        m.entries(mesh.KindCluster),
			Listeners:       m.entries(mesh.KindListener),
			Routes:          m.entries(mesh.KindRouteTable),
			Secrets:         m.shownEntries(m.graph.Parts(mesh.KindSecret)),
			Filters:         m.shownEntries(m.graph.Parts(mesh.KindExtension)),
			ClusterVersion:  m.graph.Version(mesh.KindCluster),
			ListenerVersion: m.graph.Version(mesh.KindListener),
		}
		for _, e := range m.graph.EndpointViews() {
			shownAs := dump.Endpoints{Cluster: e.Cluster, Static: e.Static, Resource: shown(e.Resource), Set: e.Set}
			if e.Resource != nil {
				shownAs.Source = m.describe(e.Source)
			}
			out.Endpoints = append(out.Endpoints, shownAs)
		}
		m.showSets(&out)
		out.Sources = m.shownSources()
	})
	return out, err
}

// shownSources are the sources, unless the aggregated stream is the only one.
func (m *Manager) shownSources() (out []dump.Source) {
	if len(m.feeds) == 0 || len(m.feeds) == 1 && m.feeds[""] != nil && m.savedAt("").IsZero() {
		return nil
	}
	for _, s := range m.status().Sources {
		out = append(out, dump.Source(s))
	}
	return out
}

func (m *Manager) entries(kind mesh.ResourceKind) []dump.Entry {
	return m.shownEntries(m.graph.Views(kind))
}

func (m *Manager) shownEntries(views []graph.View) []dump.Entry {
	out := make([]dump.Entry, 0, len(views))
	for _, v := range views {
		e := dump.Entry{Name: v.Name, Static: v.Static, Live: shown(v.Live), Next: shown(v.Next)}
		if !v.Static {
			e.Source = m.describe(v.Source)
		}
		if f := v.Failure; f != nil {
			e.Failure = &dump.Failure{Reason: f.Reason, Version: f.Version, At: f.At, Raw: f.Raw}
		}
		out = append(out, e)
	}
	return out
}

func shown(r *graph.Resource) *dump.Resource {
	if r == nil {
		return nil
	}
	return &dump.Resource{Raw: r.Raw, Version: r.Version, At: r.At, NoEffect: r.NoEffect}
}
