// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// lbMetadata is the namespace of endpoint metadata that load balancing and retry predicates read.
const lbMetadata = "envoy.lb"

// endpoints reads a load assignment whose addresses are IP addresses or unix sockets.
func (s *scope) endpoints(p *at, m *endpointv3.ClusterLoadAssignment) *mesh.EndpointSet {
	set := &mesh.EndpointSet{
		Version:          s.version,
		Overprovisioning: s.assignment(p, m),
	}
	for i, l := range m.GetEndpoints() {
		lp := p.item("endpoints", i)
		out := mesh.LocalityEndpoints{LocalityGroup: s.localityGroup(lp, l)}
		if n := len(l.GetLbEndpoints()); n > 0 {
			out.Endpoints = make([]mesh.Endpoint, 0, n)
		}
		for j, e := range l.GetLbEndpoints() {
			ep := lp.item("lb_endpoints", j)
			end := s.endpointTemplate(ep, e)
			end.Address = s.address(ep.field("endpoint").field("address"), e.GetEndpoint().GetAddress())
			if sa := e.GetEndpoint().GetAddress().GetSocketAddress(); sa.GetPortSpecifier() != nil && sa.GetPortValue() == 0 {
				s.errorf(ep.field("endpoint").field("address").field("socket_address").field("port_value"), "must not be 0")
			}
			out.Endpoints = append(out.Endpoints, end)
		}
		set.Localities = append(set.Localities, out)
	}
	return set
}

// assignment reads what concerns all endpoints and returns the overprovisioning factor in percent.
func (s *scope) assignment(p *at, m *endpointv3.ClusterLoadAssignment) uint32 {
	weights := map[uint32]uint64{}
	for i, l := range m.GetEndpoints() {
		lp := p.item("endpoints", i)
		var sum uint64
		for _, e := range l.GetLbEndpoints() {
			sum += uint64(uint32Or(e.GetLoadBalancingWeight(), 1))
		}
		if sum > math.MaxUint32 {
			s.errorf(lp.field("lb_endpoints"), "the sum of the weights must be at most %d", uint32(math.MaxUint32))
		}
		weights[l.GetPriority()] += uint64(l.GetLoadBalancingWeight().GetValue())
		if weights[l.GetPriority()] > math.MaxUint32 {
			s.errorf(lp.field("load_balancing_weight"), "the sum of the weights of a priority must be at most %d",
				uint32(math.MaxUint32))
		}
	}
	return uint32Or(m.GetPolicy().GetOverprovisioningFactor(), defaultOverprovisioning)
}

func (s *scope) localityGroup(p *at, m *endpointv3.LocalityLbEndpoints) mesh.LocalityGroup {
	return mesh.LocalityGroup{
		Locality: Locality(m.GetLocality()),
		Priority: m.GetPriority(),
		Weight:   m.GetLoadBalancingWeight().GetValue(),
	}
}

// Locality reads a locality.
func Locality(m *corev3.Locality) mesh.Locality {
	return mesh.Locality{Region: m.GetRegion(), Zone: m.GetZone(), SubZone: m.GetSubZone()}
}

// endpointTemplate reads an endpoint without its address.
func (s *scope) endpointTemplate(p *at, m *endpointv3.LbEndpoint) mesh.Endpoint {
	e := m.GetEndpoint()
	out := mesh.Endpoint{
		Hostname:      e.GetHostname(),
		Health:        mesh.HealthStatus(min(max(m.GetHealthStatus(), 0), corev3.HealthStatus_DEGRADED)),
		Weight:        uint32Or(m.GetLoadBalancingWeight(), 1),
		CheckPort:     uint16(min(e.GetHealthCheckConfig().GetPortValue(), 65535)),
		CheckHost:     e.GetHealthCheckConfig().GetHostname(),
		NoActiveCheck: e.GetHealthCheckConfig().GetDisableActiveHealthCheck(),
	}
	if e == nil {
		s.errorf(p.field("endpoint"), isRequired)
	}
	s.endpointMetadata(p.field("metadata"), &out, m.GetMetadata())
	return out
}

func (s *scope) endpointMetadata(p *at, e *mesh.Endpoint, m *corev3.Metadata) {
	if m == nil {
		return
	}
	for key := range m.GetTypedFilterMetadata() {
		s.notef(p.entry("typed_filter_metadata", key), "nothing here reads it")
	}
	for space, fields := range m.GetFilterMetadata() {
		if space != lbMetadata {
			s.notef(p.entry("filter_metadata", space), "nothing here reads it; %s is read", lbMetadata)
			continue
		}
		for key, v := range fields.GetFields() {
			s.lbValue(p.entry("filter_metadata", space), e, key, v)
		}
	}
}

func (s *scope) lbValue(p *at, e *mesh.Endpoint, key string, v *structpb.Value) {
	switch x := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		if e.Metadata == nil {
			e.Metadata = map[string]string{}
		}
		e.Metadata[key] = x.StringValue
	case *structpb.Value_BoolValue:
		if key != "canary" {
			s.notef(p.field(key), "values that are not strings are not read")
			return
		}
		e.Canary = x.BoolValue
	default:
		s.notef(p.field(key), "values that are not strings are not read")
	}
}

func addEndpointFields(t *protofields.Table) {
	t.Add(&endpointv3.ClusterLoadAssignment{},
		protofields.Honour("cluster_name", "endpoints", "policy"),
		protofields.Ignore("an endpoint is named by its place; endpoint_name is not supported", "named_endpoints"))
	t.Add(&endpointv3.ClusterLoadAssignment_Policy{}, protofields.Honour("overprovisioning_factor"),
		protofields.Refuse("dropping a share of the requests is not supported", "drop_overloads"),
		protofields.Refuse("endpoints stay until the control plane removes them", "endpoint_stale_after"),
		protofields.Refuse("the health of a priority counts hosts, not weights", "weighted_priority_health"))
	t.Add(&endpointv3.LocalityLbEndpoints{},
		protofields.Honour("locality", "lb_endpoints", "load_balancing_weight", "priority"),
		protofields.Ignore("nothing here reads locality metadata", "metadata"),
		protofields.Ignore("Envoy does not read it either", "proximity"),
		protofields.Refuse("write the endpoints in lb_endpoints", "load_balancer_endpoints", "leds_cluster_locality_config"))
	t.Add(&endpointv3.LbEndpoint{},
		protofields.Honour("endpoint", "health_status", "load_balancing_weight"),
		protofields.Opaque("metadata"),
		protofields.Refuse("write the endpoint in its place", "endpoint_name"))
	t.Add(&endpointv3.Endpoint{},
		protofields.Honour("address", "health_check_config", "hostname"),
		protofields.Ignore("endpoints are named by their addresses in statistics", "observability_name"),
		protofields.Refuse("an endpoint has one address; add an endpoint for each", "additional_addresses"))
	t.Add(&endpointv3.Endpoint_HealthCheckConfig{},
		protofields.Honour("port_value", "hostname", "disable_active_health_check"),
		protofields.Refuse("checks go to the endpoint's own address; use port_value", "address"))
}
