// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) cluster(m *clusterv3.Cluster) *mesh.Cluster {
	var root *at
	c := &mesh.Cluster{
		Name:                  m.GetName(),
		StatName:              m.GetAltStatName(),
		Version:               s.version,
		ConnectTimeout:        s.durationOr(root, "connect_timeout", m.GetConnectTimeout(), defaultConnectTimeout),
		PanicThreshold:        defaultPanicThreshold,
		BindSource:            s.bindSource(root.field("upstream_bind_config"), m.GetUpstreamBindConfig()),
		KeepAlive:             keepAlive(m.GetUpstreamConnectionOptions().GetTcpKeepalive()),
		BufferLimit:           int(uint32Or(m.GetPerConnectionBufferLimitBytes(), uint32(s.d.opt.Limits.BufferBytes))),
		IgnoreHealthOnRemoval: m.GetIgnoreHealthOnHostRemoval(),
		CloseOnHealthFailure:  m.GetCloseConnectionsOnHostHealthFailure(),
		Outlier:               s.outlier(root.field("outlier_detection"), m.GetOutlierDetection()),
		HealthChecks:          s.healthChecks(root, m.GetHealthChecks()),
		Preconnect:            m.GetPreconnectPolicy().GetPerUpstreamPreconnectRatio().GetValue(),
		Predict:               m.GetPreconnectPolicy().GetPredictivePreconnectRatio().GetValue(),
	}
	if t := m.GetCommonLbConfig().GetHealthyPanicThreshold(); t != nil {
		c.PanicThreshold = t.GetValue()
	}
	s.discovery(root, c, m)
	s.clusterMetadata(root.field("metadata"), c, m.GetMetadata())
	s.policy(root, c, m)
	if t := c.Policy.TypeURL; c.Predict > 1 && t != lb.RoundRobinType && t != lb.RandomType {
		s.notef(root.field("preconnect_policy").field("predictive_preconnect_ratio"),
			"no effect: %s goes by the load of the moment, and does not say which host comes next", c.Policy.Name)
	}
	s.circuitBreakers(root.field("circuit_breakers"), c, m.GetCircuitBreakers())
	c.TLS = s.transportSocket(root.field("transport_socket"), m.GetTransportSocket(), true)
	s.upstreamHTTP(root, c, m)
	s.grpcNeedsHTTP2(root, c)
	s.autoSNI(root, m, c.TLS != nil)
	return c
}

func (s *scope) bindSource(p *at, m *corev3.BindConfig) netip.AddrPort {
	if m.GetSourceAddress() == nil {
		return netip.AddrPort{}
	}
	return s.socketAddress(p.field("source_address"), m.GetSourceAddress()).IP
}

func keepAlive(m *corev3.TcpKeepalive) *mesh.TCPKeepAlive {
	if m == nil {
		return nil
	}
	seconds := func(v *wrapperspb.UInt32Value) time.Duration {
		return time.Duration(v.GetValue()) * time.Second
	}
	return &mesh.TCPKeepAlive{
		Probes:   int(m.GetKeepaliveProbes().GetValue()),
		Time:     seconds(m.GetKeepaliveTime()),
		Interval: seconds(m.GetKeepaliveInterval()),
	}
}

// clusterMetadata reads Meshtap's own extensions. Everything else in a cluster's metadata is for others.
func (s *scope) clusterMetadata(p *at, c *mesh.Cluster, m *corev3.Metadata) {
	for _, key := range sortedKeys(m.GetTypedFilterMetadata()) {
		ep := p.entry("typed_filter_metadata", key)
		switch a := m.GetTypedFilterMetadata()[key]; key {
		case breakerKey:
			c.Breaker = s.breaker(ep, a)
		case endpointsKey:
			s.ownEndpoints(ep, c, a)
		default:
			s.notef(ep, "nothing here reads it; Meshtap's own keys are %q and %q", breakerKey, endpointsKey)
		}
	}
	for _, key := range sortedKeys(m.GetFilterMetadata()) {
		if key == breakerKey || key == endpointsKey {
			s.errorf(p.entry("filter_metadata", key), "stands in typed_filter_metadata, not in filter_metadata")
			continue
		}
		s.notef(p.entry("filter_metadata", key), "nothing here reads cluster metadata")
	}
}

func addClusterFields(t *protofields.Table) {
	t.Add(&clusterv3.Cluster{},
		protofields.Honour("name", "alt_stat_name", "type", "cluster_type", "eds_cluster_config", "connect_timeout",
			"per_connection_buffer_limit_bytes", "lb_policy", "load_assignment", "health_checks",
			"max_requests_per_connection", "circuit_breakers", "common_http_protocol_options", "http_protocol_options",
			"http2_protocol_options", "protocol_selection", "typed_extension_protocol_options", "dns_refresh_rate",
			"dns_failure_refresh_rate", "respect_dns_ttl", "dns_lookup_family", "dns_resolvers",
			"use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config", "outlier_detection",
			"cleanup_interval", "upstream_bind_config", "original_dst_lb_config", "common_lb_config",
			"transport_socket", "upstream_connection_options", "close_connections_on_host_health_failure",
			"ignore_health_on_host_removal", "load_balancing_policy", "preconnect_policy"),
		// The decoder looks at these itself.
		protofields.Opaque("upstream_http_protocol_options", "metadata", "least_request_lb_config", "round_robin_lb_config"),
		protofields.Ignore("look-ups are made without jitter", "dns_jitter"),
		protofields.Ignore("all statistics are kept", "stats_matcher", "track_cluster_stats"),
		protofields.Ignore("statistics of timeout budgets are not kept", "track_timeout_budgets"),
		protofields.Ignore("a cluster serves once its endpoints are known or 15 s have passed", "wait_for_warm_on_init"),
		protofields.Ignore("a full buffer stops reading until it is written", "per_connection_buffer_high_watermark_timeout"),
		protofields.Observe("load reports are not sent", "lrs_server", "lrs_report_endpoint_metrics"),
		protofields.Refuse("transport sockets by endpoint are not supported; use transport_socket",
			"transport_socket_matches", "transport_socket_matcher"),
		protofields.Refuse(noSubsets, "lb_subset_config={}"),
		protofields.Refuse("RING_HASH is not supported; use LEAST_REQUEST", "ring_hash_lb_config"),
		protofields.Refuse("MAGLEV is not supported; use LEAST_REQUEST", "maglev_lb_config"),
		protofields.Refuse("upstream network filters are not supported", "filters"),
		protofields.Refuse("generic upstreams are not supported", "upstream_config"),
		protofields.Refuse("connections are pooled for all clients", "connection_pool_per_downstream_connection"),
		protofields.Refuse("requests wait in order for a connection", "queuing_policies"))
	t.Add(&clusterv3.Cluster_PreconnectPolicy{},
		protofields.Honour("per_upstream_preconnect_ratio", "predictive_preconnect_ratio"))
	t.Add(&clusterv3.Cluster_CommonLbConfig{},
		protofields.Honour("healthy_panic_threshold"),
		protofields.Ignore("endpoint updates are applied at once", "update_merge_window"),
		protofields.Ignore(noHashing, "consistent_hashing_lb_config"),
		protofields.Refuse("zone aware load balancing is not supported", "zone_aware_lb_config"),
		protofields.Refuse("locality weighted load balancing is not supported; leave it out to balance by the weights of "+
			"endpoints", "locality_weighted_lb_config"),
		protofields.Refuse("a new host takes requests at once", "ignore_new_hosts_until_first_hc"),
		protofields.Refuse("connections to hosts that stay are kept", "close_connections_on_host_set_change"),
		protofields.Refuse("host overrides are not supported", "override_host_status"))
	t.Add(&corev3.BindConfig{}, protofields.Honour("source_address"),
		protofields.Refuse("an address that the machine does not have cannot be bound", "freebind=false"),
		protofields.Refuse("socket options are not supported", "socket_options"),
		protofields.Refuse("there is one source address, whose family the endpoints must have",
			"extra_source_addresses", "additional_source_addresses", "local_address_selector"),
		protofields.Refuse("network namespaces are not supported", "validate_network_namespaces"))
	t.Add(&clusterv3.UpstreamConnectionOptions{}, protofields.Honour("tcp_keepalive"),
		protofields.Ignore("it is for the logs of Envoy's filters", "set_local_interface_name_on_upstream_connections"),
		protofields.Ignore("an endpoint has one address", "happy_eyeballs_config"))
}
