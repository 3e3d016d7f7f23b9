// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"os"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

// Dynamic says what comes from outside, and how.
type Dynamic struct {
	// ADS is the aggregated stream, nil where there is none.
	ADS *resource.Source
	// Listeners and Clusters are where they come from, nil where there are none but the static ones. Routes and endpoints
	// follow from them.
	Listeners, Clusters *resource.Source
}

// sources returns what is there of the three.
func (d *Dynamic) sources() (out []*resource.Source) {
	if d == nil {
		return nil
	}
	for _, s := range []*resource.Source{d.ADS, d.Listeners, d.Clusters} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// dynamic reads the dynamic resources; nil where there are none.
func (l *loader) dynamic(s *resource.Scope, b *bootstrapv3.Bootstrap) *Dynamic {
	m := b.GetDynamicResources()
	if m == nil {
		return nil
	}
	const root = "dynamic_resources"
	d := &Dynamic{}
	if api := m.GetAdsConfig(); api != nil {
		src, _ := s.Stream(root+".ads_config", api)
		l.clusterOf(s, root+".ads_config", src)
		d.ADS = &src
	}
	d.Listeners = l.configSource(s, root+".lds_config", mesh.KindListener, m.GetLdsConfig(), d)
	d.Clusters = l.configSource(s, root+".cds_config", mesh.KindCluster, m.GetCdsConfig(), d)
	if d.Listeners == nil && d.Clusters == nil {
		s.Note(root, "neither lds_config nor cds_config is there, so nothing is asked for")
	}
	return d
}

// configSource reads where listeners or clusters come from.
func (l *loader) configSource(
	s *resource.Scope, path string, kind mesh.ResourceKind, c *corev3.ConfigSource, d *Dynamic,
) *resource.Source {
	if c == nil {
		return nil
	}
	if c.GetAds() != nil && d.ADS == nil {
		s.Fail(path+".ads", "needs dynamic_resources.ads_config, which says where the control plane is")
	}
	src, ok := s.Source(path, kind, c)
	if src.Variant == resource.File && ok {
		fp := path + ".path_config_source.path"
		if c.GetPath() != "" {
			fp = path + ".path"
		}
		if _, err := os.Stat(src.Path); err != nil {
			s.Note(fp, fmt.Sprintf("leads to a file that is not there yet (%s); it is waited for", src.Path))
		}
	} else {
		l.clusterOf(s, path+".api_config_source", src)
	}
	return &src
}

// clusterOf checks that the cluster of a control plane is there from the start.
func (l *loader) clusterOf(s *resource.Scope, path string, src resource.Source) {
	switch {
	case src.Cluster == "":
	case src.Variant == resource.REST:
		l.streamCluster(s, path+".cluster_names[0]", src.Cluster)
	default:
		l.streamCluster(s, path+".grpc_services[0].envoy_grpc.cluster_name", src.Cluster)
	}
}

// streamCluster checks that a cluster can be that of a control plane.
func (l *loader) streamCluster(s *resource.Scope, path, name string) {
	all := l.config.Bootstrap.GetStaticResources().GetClusters()
	names := make([]string, 0, len(all))
	for _, c := range all {
		if c.GetName() == name {
			if c.GetEdsClusterConfig() != nil {
				s.Fail(path, fmt.Sprintf("%q is a cluster of type EDS, whose endpoints would come over this very stream; "+
					"use STATIC or STRICT_DNS", name))
			}
			return
		}
		names = append(names, c.GetName())
	}
	if near := nearest.Name(name, names); near != "" {
		l.doc.hints[path] = fmt.Sprintf("did you mean %q?", near)
	}
	have := "there are none"
	if len(names) > 0 {
		have = "there are: " + strings.Join(names, ", ")
	}
	s.Fail(path, fmt.Sprintf("names the cluster %q, which static_resources.clusters does not have (%s)", name, have))
}

// controlPlanes returns the clusters that a config source may name: those whose endpoints come from nowhere else. Where a control plane's own cluster is not there, any may have been meant: one error is enough.
func (l *loader) controlPlanes() []string {
	var names []string
	for _, c := range l.config.Bootstrap.GetStaticResources().GetClusters() {
		if c.GetEdsClusterConfig() == nil {
			names = append(names, c.GetName())
		}
	}
	for _, src := range l.config.Dynamic.sources() {
		if src.Cluster != "" && !slices.Contains(names, src.Cluster) {
			names = append(names, src.Cluster)
		}
	}
	return names
}
