// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/xds/resource"
)

// Dynamic says what comes from the control plane, and how.
type Dynamic struct {
	Stream Stream
	// Listeners and Clusters say whether they come from the control plane. Routes and endpoints follow from them.
	Listeners, Clusters bool
}

// Stream is the one xDS stream.
type Stream struct {
	// Cluster is the static cluster that the stream goes to, or Target the address for a gRPC client; one of them is "".
	Cluster, Target string
	// Authority is the :authority header of the stream, "" for the default.
	Authority string
	// NodeOnFirstOnly sends the node in the first request of a stream only.
	NodeOnFirstOnly bool
	// Metadata is added to the stream's headers.
	Metadata []Header
	// MaxMessageBytes bounds a response; 0 leaves it to the default.
	MaxMessageBytes int
}

// Header is one header of the stream.
type Header struct{ Name, Value string }

// target is the name by which config sources mean the stream.
func (s Stream) target() string { return orElse(s.Cluster, s.Target) }

// dynamic reads the dynamic resources; nil where there are none, or none that could be had.
func (l *loader) dynamic(s *resource.Scope, b *bootstrapv3.Bootstrap) *Dynamic {
	m := b.GetDynamicResources()
	if m == nil {
		return nil
	}
	const root = "dynamic_resources"
	d := &Dynamic{Listeners: m.GetLdsConfig() != nil, Clusters: m.GetCdsConfig() != nil}
	path, api := root+".ads_config", m.GetAdsConfig()
	if api == nil {
		if path, api = firstStream(root, m); api != nil {
			s.Check(path, api)
		}
	}
	if api != nil {
		l.stream(s, path, d, api)
	}
	l.configSource(s, root+".lds_config", m.GetLdsConfig(), api, d)
	l.configSource(s, root+".cds_config", m.GetCdsConfig(), api, d)
	if !d.Listeners && !d.Clusters {
		s.Note(root, "neither lds_config nor cds_config is there, so nothing is asked for")
	}
	return d
}

// firstStream takes the stream from a source of its own, where there is no aggregated one.
func firstStream(root string, m *bootstrapv3.Bootstrap_DynamicResources) (string, *corev3.ApiConfigSource) {
	if api := m.GetLdsConfig().GetApiConfigSource(); api != nil {
		return root + ".lds_config.api_config_source", api
	}
	return root + ".cds_config.api_config_source", m.GetCdsConfig().GetApiConfigSource()
}

// configSource checks that listeners or clusters come over the one stream.
func (l *loader) configSource(
	s *resource.Scope, path string, c *corev3.ConfigSource, stream *corev3.ApiConfigSource, d *Dynamic,
) {
	if c == nil {
		return
	}
	if c.GetResourceApiVersion() == corev3.ApiVersion_V2 {
		s.Fail(path+".resource_api_version", "V2 is not supported; supported: V3")
	}
	switch own := c.GetApiConfigSource(); {
	case c.GetAds() != nil && stream == nil:
		s.Fail(path+".ads", "needs dynamic_resources.ads_config, which says where the control plane is")
	case own != nil && resource.Target(own) != d.Stream.target():
		s.Fail(path+".api_config_source", fmt.Sprintf("goes to %q, but there is one xDS stream, to %q; write ads: {}",
			resource.Target(own), d.Stream.target()))
	case own != nil:
		s.Note(path+".api_config_source", fmt.Sprintf("read over one aggregated stream to %q", d.Stream.target()))
	case c.GetConfigSourceSpecifier() == nil:
		s.Fail(path, "needs a source; write ads: {}")
	}
}

// stream reads where the one xDS stream goes, and how.
func (l *loader) stream(s *resource.Scope, path string, d *Dynamic, m *corev3.ApiConfigSource) {
	switch m.GetApiType() {
	case corev3.ApiConfigSource_GRPC:
	case corev3.ApiConfigSource_DELTA_GRPC:
		s.Fail(path+".api_type", "DELTA_GRPC is not supported yet; supported: GRPC (state of the world)")
	default:
		s.Fail(path+".api_type", fmt.Sprintf("%s is not supported; supported: GRPC", m.GetApiType()))
	}
	if m.GetTransportApiVersion() == corev3.ApiVersion_V2 {
		s.Fail(path+".transport_api_version", "V2 is not supported; supported: V3")
	}
	if n := len(m.GetGrpcServices()); n != 1 {
		s.Fail(path+".grpc_services", fmt.Sprintf("must have exactly 1 item, not %d", n))
		return
	}
	g := m.GetGrpcServices()[0]
	gp := path + ".grpc_services[0]"
	d.Stream.NodeOnFirstOnly = m.GetSetNodeOnFirstMessageOnly()
	for i, h := range g.GetInitialMetadata() {
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		if strings.Contains(value, "%") {
			s.Note(fmt.Sprintf("%s.initial_metadata[%d]", gp, i), "the value is sent as it is: it is not a format")
		}
		d.Stream.Metadata = append(d.Stream.Metadata, Header{strings.ToLower(h.GetKey()), value})
	}
	switch {
	case g.GetEnvoyGrpc() != nil:
		d.Stream.Cluster = g.GetEnvoyGrpc().GetClusterName()
		d.Stream.Authority = g.GetEnvoyGrpc().GetAuthority()
		d.Stream.MaxMessageBytes = int(g.GetEnvoyGrpc().GetMaxReceiveMessageLength().GetValue())
		l.streamCluster(s, gp+".envoy_grpc.cluster_name", d.Stream.Cluster)
	case g.GetGoogleGrpc() != nil:
		d.Stream.Target = g.GetGoogleGrpc().GetTargetUri()
	}
}

// streamCluster checks that the cluster of the control plane is there from the start.
func (l *loader) streamCluster(s *resource.Scope, path, name string) {
	var names []string
	for _, c := range l.config.Bootstrap.GetStaticResources().GetClusters() {
		if c.GetName() == name {
			if c.GetEdsClusterConfig() != nil {
				s.Fail(path, fmt.Sprintf("%q is a cluster of type EDS, whose endpoints would come over this very stream; "+
					"use STATIC or STRICT_DNS", name))
			}
			return
		}
		names = append(names, c.GetName())
	}
	if name == "" {
		return // the generated rules said so
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
