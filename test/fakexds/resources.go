// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"fmt"
	"net/netip"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// adsSource is "over this stream".
func adsSource() *corepb.ConfigSource {
	return &corepb.ConfigSource{
		ResourceApiVersion:    corepb.ApiVersion_V3,
		ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
	}
}

// EDSCluster returns a cluster whose endpoints come by EDS.
func EDSCluster(name string) *clusterpb.Cluster {
	return &clusterpb.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(5e9),
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig:     &clusterpb.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
	}
}

// StaticCluster returns a cluster with its endpoints in it.
func StaticCluster(name string, endpoints ...netip.AddrPort) *clusterpb.Cluster {
	return &clusterpb.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(5e9),
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC},
		LoadAssignment:       Endpoints(name, endpoints...),
	}
}

// Endpoints returns the endpoints of a cluster, all in one locality.
func Endpoints(cluster string, endpoints ...netip.AddrPort) *endpointpb.ClusterLoadAssignment {
	out := &endpointpb.ClusterLoadAssignment{ClusterName: cluster}
	if len(endpoints) == 0 {
		return out
	}
	l := &endpointpb.LocalityLbEndpoints{}
	for _, e := range endpoints {
		l.LbEndpoints = append(l.LbEndpoints, &endpointpb.LbEndpoint{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: address(e)}},
		})
	}
	out.Endpoints = []*endpointpb.LocalityLbEndpoints{l}
	return out
}

func address(a netip.AddrPort) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// Listener returns an HTTP listener that takes its routes by RDS.
func Listener(name string, at netip.AddrPort, routes string) *listenerpb.Listener {
	hcm := &hcmpb.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmpb.HttpConnectionManager_Rds{Rds: &hcmpb.Rds{
			ConfigSource: adsSource(), RouteConfigName: routes,
		}},
		HttpFilters: []*hcmpb.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmpb.HttpFilter_TypedConfig{TypedConfig: mustAny(&routerpb.Router{})},
		}},
	}
	return &listenerpb.Listener{
		Name:    name,
		Address: address(at),
		FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: mustAny(hcm)},
		}}}},
	}
}

// Routes returns a table that sends "/<cluster>" to each cluster, and everything else to the first one.
func Routes(name string, clusters ...string) *routepb.RouteConfiguration {
	vh := &routepb.VirtualHost{Name: "all", Domains: []string{"*"}}
	for i := range clusters {
		c := clusters[len(clusters)-1-i]
		prefix := fmt.Sprintf("/%s", c)
		if i == len(clusters)-1 {
			prefix = "/"
		}
		vh.Routes = append(vh.Routes, &routepb.Route{
			Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: prefix}},
			Action: &routepb.Route_Route{Route: &routepb.RouteAction{
				ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: c},
			}},
		})
	}
	return &routepb.RouteConfiguration{Name: name, VirtualHosts: []*routepb.VirtualHost{vh}}
}

func mustAny(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		panic(err) // only for messages that cannot be marshalled, which these can
	}
	return out
}
