// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"fmt"
	"net/netip"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	runtimepb "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// adsSource is "over this stream".
func adsSource() *corepb.ConfigSource {
	return &corepb.ConfigSource{
		ResourceApiVersion:    corepb.ApiVersion_V3,
		ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
	}
}

// StreamSource is "over a stream for this type alone, to this static cluster": GRPC, or DELTA_GRPC.
func StreamSource(api corepb.ApiConfigSource_ApiType, cluster string) *corepb.ConfigSource {
	return &corepb.ConfigSource{
		ResourceApiVersion: corepb.ApiVersion_V3,
		ConfigSourceSpecifier: &corepb.ConfigSource_ApiConfigSource{ApiConfigSource: &corepb.ApiConfigSource{
			ApiType: api, TransportApiVersion: corepb.ApiVersion_V3,
			GrpcServices: []*corepb.GrpcService{{TargetSpecifier: &corepb.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corepb.GrpcService_EnvoyGrpc{ClusterName: cluster},
			}}},
		}},
	}
}

// PollSource is "by REST, from this static cluster, this often".
func PollSource(cluster string, every time.Duration) *corepb.ConfigSource {
	return &corepb.ConfigSource{
		ResourceApiVersion: corepb.ApiVersion_V3,
		ConfigSourceSpecifier: &corepb.ConfigSource_ApiConfigSource{ApiConfigSource: &corepb.ApiConfigSource{
			ApiType: corepb.ApiConfigSource_REST, TransportApiVersion: corepb.ApiVersion_V3,
			ClusterNames: []string{cluster}, RefreshDelay: durationpb.New(every),
		}},
	}
}

// FileSource is "from this file".
func FileSource(path string) *corepb.ConfigSource {
	return &corepb.ConfigSource{
		ResourceApiVersion: corepb.ApiVersion_V3,
		ConfigSourceSpecifier: &corepb.ConfigSource_PathConfigSource{
			PathConfigSource: &corepb.PathConfigSource{Path: path},
		},
	}
}

// From makes the endpoints of clusters, and the routes of listeners, come from a source. It changes the resources.
func From(c *corepb.ConfigSource, resources ...types.Resource) []types.Resource {
	for _, r := range resources {
		switch r := r.(type) {
		case *clusterpb.Cluster:
			if r.GetEdsClusterConfig() != nil {
				r.EdsClusterConfig.EdsConfig = c
			}
		case *listenerpb.Listener:
			f := r.GetFilterChains()[0].GetFilters()[0]
			hcm := &hcmpb.HttpConnectionManager{}
			if err := f.GetTypedConfig().UnmarshalTo(hcm); err != nil {
				panic(err) // only of listeners that are not from Listener
			}
			hcm.GetRds().ConfigSource = c
			f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: mustAny(hcm)}
		}
	}
	return resources
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

// Runtime is a layer of the runtime with one value.
func Runtime(name, key string, value float64) *runtimepb.Runtime {
	return &runtimepb.Runtime{Name: name, Layer: &structpb.Struct{Fields: map[string]*structpb.Value{
		key: structpb.NewNumberValue(value),
	}}}
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
