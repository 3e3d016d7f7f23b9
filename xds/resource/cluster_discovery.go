// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// discovery reads how the endpoints of a cluster are found.
func (s *scope) discovery(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	if m.GetEdsClusterConfig() != nil && m.GetType() != clusterv3.Cluster_EDS {
		s.errorf(p.field("eds_cluster_config"), "is for clusters of type EDS")
	}
	if m.GetOriginalDstLbConfig() != nil && m.GetType() != clusterv3.Cluster_ORIGINAL_DST {
		s.notef(p.field("original_dst_lb_config"), "it is for clusters of type ORIGINAL_DST")
	}
	if m.GetClusterType() != nil {
		s.clusterType(p, c, m)
		return
	}
	switch m.GetType() {
	case clusterv3.Cluster_STATIC:
		c.Discovery = mesh.Static
		c.Endpoints = s.endpoints(p.field("load_assignment"), m.GetLoadAssignment())
	case clusterv3.Cluster_EDS:
		s.edsCluster(p, c, m)
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		c.Discovery = mesh.StrictDNS
		c.DNS = s.dns(p, m)
		s.dnsTargets(p.field("load_assignment"), c.DNS, m.GetLoadAssignment())
		if m.GetType() == clusterv3.Cluster_LOGICAL_DNS {
			s.logicalDNS(p, c.DNS, m.GetLoadAssignment())
		}
	case clusterv3.Cluster_ORIGINAL_DST:
		s.originalDst(p, c, m)
	}
}

func (s *scope) edsCluster(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	c.Discovery = mesh.EDS
	ep := p.field("eds_cluster_config")
	if m.GetEdsClusterConfig() == nil {
		s.errorf(ep, "is required for type EDS")
		return
	}
	name := orDefault(m.GetEdsClusterConfig().GetServiceName(), m.GetName())
	c.EDSName = s.from(ep.field("eds_config"), mesh.KindEndpoints, name,
		"cluster."+orDefault(m.GetAltStatName(), m.GetName()), m.GetEdsClusterConfig().GetEdsConfig())
	s.eds = c.EDSName
	if m.GetLoadAssignment() != nil {
		s.notef(p.field("load_assignment"), "the endpoints of an EDS cluster come from the control plane")
	}
}

// logicalDNS reads a cluster with one name, of which the first address counts.
func (s *scope) logicalDNS(p *at, d *mesh.DNS, m *endpointv3.ClusterLoadAssignment) {
	if len(m.GetEndpoints()) != 1 || len(m.GetEndpoints()[0].GetLbEndpoints()) != 1 {
		s.errorf(p.field("load_assignment"), "must have one locality with one endpoint for type LOGICAL_DNS")
	}
	d.FirstOnly = true
	s.notef(p.field("type"), "LOGICAL_DNS takes the first address of an answer; unlike in Envoy, connections to an "+
		"earlier one are drained")
}

func (s *scope) originalDst(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	c.Discovery = mesh.OriginalDestination
	o := m.GetOriginalDstLbConfig()
	op := p.field("original_dst_lb_config")
	c.OriginalDst = &mesh.OriginalDst{
		IdleHosts: s.durationOr(p, "cleanup_interval", m.GetCleanupInterval(), defaultCleanup),
	}
	if o.GetUseHttpHeader() {
		c.OriginalDst.HTTPHeader = strings.ToLower(orDefault(o.GetHttpHeaderName(), defaultOriginalDstHeader))
	} else if o.GetHttpHeaderName() != "" {
		s.errorf(op.field("http_header_name"), "needs use_http_header: true")
	}
	if port := o.GetUpstreamPortOverride().GetValue(); port <= 65535 {
		c.OriginalDst.Port = uint16(port)
	}
	if m.GetLoadAssignment() != nil {
		s.errorf(p.field("load_assignment"), "must not be set for type ORIGINAL_DST, whose hosts come from connections")
	}
}

// clusterType reads the typed form of discovery, of which the DNS cluster is known.
func (s *scope) clusterType(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	tp := p.field("cluster_type").field("typed_config")
	d := &dnsclusterv3.DnsCluster{}
	t := unwrap(m.GetClusterType().GetTypedConfig())
	if !isType(t, d) {
		s.errorf(tp, "cluster type %q (%s) is not supported; supported: %s", m.GetClusterType().GetName(),
			orDefault(t.name, "no type"), d.ProtoReflect().Descriptor().FullName())
		return
	}
	if !s.message(tp, t, d) {
		return
	}
	c.Discovery = mesh.StrictDNS
	c.DNS = s.dnsCluster(tp, d)
	s.dnsTargets(p.field("load_assignment"), c.DNS, m.GetLoadAssignment())
	if d.GetAllAddressesInSingleEndpoint() {
		s.logicalDNS(p, c.DNS, m.GetLoadAssignment())
	}
}

func addDiscoveryFields(t *protofields.Table) {
	t.Add(&clusterv3.Cluster_EdsClusterConfig{}, protofields.Honour("eds_config", "service_name"))
	t.Add(&clusterv3.Cluster_CustomClusterType{}, protofields.Honour("name", "typed_config"))
	t.Add(&clusterv3.Cluster_OriginalDstLbConfig{},
		protofields.Honour("use_http_header", "http_header_name", "upstream_port_override"),
		protofields.Refuse("the address cannot come from metadata; use use_http_header", "metadata_key"))
	t.Add(&clusterv3.Cluster_RefreshRate{}, protofields.Honour("base_interval", "max_interval"))
}
