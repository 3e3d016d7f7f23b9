// SPDX-License-Identifier: Apache-2.0

package bootstrap_test

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// TestControlPlaneExample takes the way from the sample bootstrap of go-control-plane to the resources that its example
// server sends, with routes over a stream of their own and with everything over one.
func TestControlPlaneExample(t *testing.T) {
	t.Parallel()
	const sample = `
node: {cluster: test-cluster, id: test-id}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds_cluster}}]
    set_node_on_first_message_only: true
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
  - name: xds_cluster
    connect_timeout: 1s
    http2_protocol_options: {}
    load_assignment:
      cluster_name: xds_cluster
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 18000}}}}]}]
`
	c, err := bootstrap.Load(bootstrap.Options{YAML: sample, Parsers: resourcetest.Parsers()})
	if err != nil {
		t.Fatal(err)
	}
	d := resource.New(c.Resource)
	ownStream := &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			TransportApiVersion: corev3.ApiVersion_V3, ApiType: corev3.ApiConfigSource_GRPC, SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds_cluster"},
			}}},
		}},
	}
	ads := &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
	for _, source := range []*corev3.ConfigSource{ownStream, ads} {
		l := decode(t, d, resource.ListenerType, exampleListener(t, source))
		if len(l.Refs.RouteTables) != 1 || sourcekey.Name(l.Refs.RouteTables[0]) != "local_route" {
			t.Errorf("listener refers to %+v", l.Refs)
		}
	}
	r := decode(t, d, resource.RouteType, exampleRoutes())
	if len(r.Refs.Clusters) != 1 || r.Refs.Clusters[0] != "example_proxy_cluster" {
		t.Errorf("routes refer to %+v", r.Refs)
	}
	logical := exampleCluster(clusterv3.Cluster_LOGICAL_DNS)
	logical.LoadAssignment = exampleEndpoints("www.envoyproxy.io")
	if v := decode(t, d, resource.ClusterType, logical).Value.(*mesh.Cluster); !v.DNS.FirstOnly || len(v.DNS.Targets) != 1 {
		t.Errorf("cluster resolves %+v", v.DNS)
	}
	eds := exampleCluster(clusterv3.Cluster_EDS)
	eds.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}
	if refs := decode(t, d, resource.ClusterType, eds).Refs; refs.Endpoints != "example_proxy_cluster" {
		t.Errorf("cluster refers to %+v", refs)
	}
	e := decode(t, d, resource.EndpointsType, exampleEndpoints("10.0.0.1"))
	if v := e.Value.(*mesh.EndpointSet); len(v.Localities) != 1 || v.Version != "7" {
		t.Errorf("endpoints %+v", v)
	}
}

func decode(t *testing.T, d *resource.Decoder, typeURL string, m proto.Message) resource.Decoded {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Decode(typeURL, b, "7")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func exampleCluster(kind clusterv3.Cluster_DiscoveryType) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 "example_proxy_cluster",
		ConnectTimeout:       durationpb.New(5 * time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: kind},
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		DnsLookupFamily:      clusterv3.Cluster_V4_ONLY,
	}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Protocol: corev3.SocketAddress_TCP, Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func exampleEndpoints(host string) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: "example_proxy_cluster",
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(host, 80)}},
		}}}},
	}
}

func exampleRoutes() *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: "local_route",
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "local_service", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier:     &routev3.RouteAction_Cluster{Cluster: "example_proxy_cluster"},
					HostRewriteSpecifier: &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: "www.envoyproxy.io"},
				}},
			}},
		}},
	}
}

func exampleListener(t *testing.T, source *corev3.ConfigSource) *listenerv3.Listener {
	t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	manager := &hcmv3.HttpConnectionManager{
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		StatPrefix: "http",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
			Rds: &hcmv3.Rds{ConfigSource: source, RouteConfigName: "local_route"},
		},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: "http-router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
		}},
	}
	return &listenerv3.Listener{
		Name: "listener_0", Address: socketAddress("0.0.0.0", 10000),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "http-connection-manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(manager)},
		}}}},
	}
}
