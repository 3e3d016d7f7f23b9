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
		types := m.graph.Types()
		out = dump.Input{
			Clusters:        entries(m.graph.Views(mesh.KindCluster)),
			Listeners:       entries(m.graph.Views(mesh.KindListener)),
			Routes:          entries(m.graph.Views(mesh.KindRouteTable)),
			ClusterVersion:  types[mesh.KindCluster].Version,
			ListenerVersion: types[mesh.KindListener].Version,
		}
		for _, e := range m.graph.EndpointViews() {
			out.Endpoints = append(out.Endpoints, dump.Endpoints{
				Cluster: e.Cluster, Static: e.Static, Resource: shown(e.Resource), Set: e.Set,
			})
		}
	})
	return out, err
}

func entries(views []graph.View) []dump.Entry {
	out := make([]dump.Entry, 0, len(views))
	for _, v := range views {
		e := dump.Entry{Name: v.Name, Static: v.Static, Live: shown(v.Live), Next: shown(v.Next)}
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
	return &dump.Resource{Raw: r.Raw, Version: r.Version, At: r.At}
}
