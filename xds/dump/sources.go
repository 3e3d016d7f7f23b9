// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Source is where resources come from, and how it stands. Its text names the variant, such as "DELTA_GRPC xds_cluster".
type Source struct {
	Source    string
	Connected bool
	Since     time.Time
	// Target is the address that was reached last, ControlPlane what it calls itself, and Err why nothing comes or why the
	// last that came could not be read; each may be "".
	Target, ControlPlane, Err string
	// Saved is when what is in force was saved to the disk, where the source has not answered since the start.
	Saved time.Time
}

// sources is a part that Envoy does not have: it says of each resource where it came from. It is a plain Struct, which
// tools made for Envoy pass over.
func (r *renderer) sources() proto.Message {
	var sources, resources []any
	for _, s := range r.in.Sources {
		m := map[string]any{"source": clean(s.Source), "connected": s.Connected, "since": s.Since.UTC().Format(time.RFC3339)}
		for key, text := range map[string]string{"target": s.Target, "control_plane": s.ControlPlane, "error": s.Err} {
			if text != "" {
				m[key] = clean(text)
			}
		}
		if !s.Saved.IsZero() {
			m["saved"] = s.Saved.UTC().Format(time.RFC3339)
		}
		sources = append(sources, m)
	}
	add := func(kind, name, source string) {
		if source != "" && r.shown(name) {
			resources = append(resources, map[string]any{"type": kind, "name": clean(name), "source": clean(source)})
		}
	}
	for _, e := range r.in.Clusters {
		add("cluster", e.Name, e.Source)
	}
	for _, e := range r.in.Endpoints {
		add("endpoints", e.Cluster, e.Source)
	}
	for _, e := range r.in.Listeners {
		add("listener", e.Name, e.Source)
	}
	for _, e := range r.in.Routes {
		add("route_configuration", e.Name, e.Source)
	}
	for _, s := range r.in.ScopeSets {
		for _, e := range s.Scopes {
			add("scoped_route_configuration", e.Name, e.Source)
		}
	}
	for _, list := range r.in.Hosts {
		for _, e := range list {
			add("virtual_host", e.Name, e.Source)
		}
	}
	for _, e := range r.in.Secrets {
		add("secret", e.Name, e.Source)
	}
	for _, e := range r.in.Filters {
		add("extension", e.Name, e.Source)
	}
	out, err := structpb.NewStruct(map[string]any{"meshtap_sources": sources, "meshtap_resources": resources})
	if err != nil && r.err == nil {
		r.err = err
	}
	return out
}
