// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"slices"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

// Covered is a resource in force with fields that are set and change nothing here. Name, Source and Version are as in Entry.
type Covered struct {
	Kind    mesh.ResourceKind
	Name    string
	Source  string
	Version string
	Fields  []IdleField
}

// IdleField is such a field. Path is "" where only their number was kept.
type IdleField struct{ Path, Why string }

// Coverage returns the resources in force with fields that change nothing here, by kind and in the order of the dump. Those of
// the bootstrap are not there: its warnings tell, with their lines.
func Coverage(in *Input) []Covered {
	c := coverage{}
	c.addAll(mesh.KindListener, in.Listeners)
	c.addAll(mesh.KindRouteTable, in.Routes)
	for i, set := range in.ScopeSets {
		same := func(o ScopeSet) bool { return o.Name == set.Name && o.Source == set.Source }
		if !slices.ContainsFunc(in.ScopeSets[:i], same) { // two connection managers may have the same
			c.addAll(mesh.KindScope, set.Scopes)
		}
	}
	for i := range in.Routes {
		c.addAll(mesh.KindVirtualHost, in.Hosts[i])
	}
	c.addAll(mesh.KindCluster, in.Clusters)
	for _, e := range in.Endpoints {
		if !e.Static {
			c.add(mesh.KindEndpoints, e.Cluster, e.Source, e.Resource)
		}
	}
	c.addAll(mesh.KindSecret, in.Secrets)
	c.addAll(mesh.KindExtension, in.Filters)
	return c.list
}

type coverage struct{ list []Covered }

func (c *coverage) addAll(kind mesh.ResourceKind, entries []Entry) {
	for _, e := range entries {
		if !e.Static {
			c.add(kind, e.Name, e.Source, e.Live)
		}
	}
}

func (c *coverage) add(kind mesh.ResourceKind, name, source string, r *Resource) {
	if r == nil || len(r.NoEffect) == 0 {
		return
	}
	out := Covered{Kind: kind, Name: name, Source: source, Version: r.Version}
	for _, note := range r.NoEffect {
		path, why := resource.SplitNote(note)
		out.Fields = append(out.Fields, IdleField{path, why})
	}
	c.list = append(c.list, out)
}
