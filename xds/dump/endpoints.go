// SPDX-License-Identifier: Apache-2.0

package dump

import (
	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

func (r *renderer) endpoints() proto.Message {
	out := &adminpb.EndpointsConfigDump{}
	for _, e := range r.in.Endpoints {
		if !r.shown(e.Cluster) {
			continue
		}
		config, version, at := r.assignment(e), "", r.in.Started
		if e.Resource != nil {
			version, at = e.Resource.Version, e.Resource.At
		}
		if e.Static {
			out.StaticEndpointConfigs = append(out.StaticEndpointConfigs, &adminpb.EndpointsConfigDump_StaticEndpointConfig{
				EndpointConfig: config, LastUpdated: stamp(at),
			})
			continue
		}
		out.DynamicEndpointConfigs = append(out.DynamicEndpointConfigs, &adminpb.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: version, EndpointConfig: config, LastUpdated: stamp(at),
		})
	}
	return out
}

// assignment returns the resource of endpoints, or makes one of what was found.
func (r *renderer) assignment(e Endpoints) *anypb.Any {
	if e.Resource != nil {
		return r.resource(resource.EndpointsType, e.Resource.Raw)
	}
	m := &endpointpb.ClusterLoadAssignment{ClusterName: e.Cluster}
	for _, l := range e.Set.Localities {
		m.Endpoints = append(m.Endpoints, locality(l))
	}
	if o := e.Set.Overprovisioning; o > 0 {
		m.Policy = &endpointpb.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(o)}
	}
	a, err := anypb.New(m)
	if err != nil && r.err == nil {
		r.err = err
	}
	return a
}

func locality(l mesh.LocalityEndpoints) *endpointpb.LocalityLbEndpoints {
	out := &endpointpb.LocalityLbEndpoints{Priority: l.Priority}
	if l.Locality != (mesh.Locality{}) {
		out.Locality = &corepb.Locality{Region: l.Locality.Region, Zone: l.Locality.Zone, SubZone: l.Locality.SubZone}
	}
	if l.Weight > 0 {
		out.LoadBalancingWeight = wrapperspb.UInt32(l.Weight)
	}
	for _, e := range l.Endpoints {
		lb := &endpointpb.LbEndpoint{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{
				Address: address(e.Address), Hostname: e.Hostname,
			}},
			HealthStatus: corepb.HealthStatus(e.Health), // the numbers are the same, by intention
		}
		if e.Weight > 0 {
			lb.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
		}
		out.LbEndpoints = append(out.LbEndpoints, lb)
	}
	return out
}

func address(a mesh.Address) *corepb.Address {
	if a.Pipe != "" {
		return &corepb.Address{Address: &corepb.Address_Pipe{Pipe: &corepb.Pipe{Path: a.Pipe}}}
	}
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address:       a.IP.Addr().String(),
		PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.IP.Port())},
	}}}
}
