// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// maxName is the longest DNS name (RFC 1035 section 2.3.4), in its textual form.
const maxName = 253

// dns reads the DNS fields of a cluster.
func (s *scope) dns(p *at, m *clusterv3.Cluster) *mesh.DNS {
	d := s.defaultDNS()
	d.Family, d.RespectTTL = mesh.DNSFamily(m.GetDnsLookupFamily()), m.GetRespectDnsTtl()
	s.refresh(p, d, m.GetDnsRefreshRate(), m.GetDnsFailureRefreshRate())
	if len(m.GetDnsResolvers()) > 0 || m.GetUseTcpForDnsLookups() {
		d.Resolvers = s.resolvers(p, "dns_resolvers", m.GetDnsResolvers())
		d.UseTCP = m.GetUseTcpForDnsLookups()
	}
	if c := m.GetDnsResolutionConfig(); c != nil {
		cp := p.field("dns_resolution_config")
		d.Resolvers = s.resolvers(cp, "resolvers", c.GetResolvers())
		resolverOptions(d, c.GetDnsResolverOptions())
	}
	s.resolver(p.field("typed_dns_resolver_config"), d, m.GetTypedDnsResolverConfig())
	return d
}

// defaultDNS is what the bootstrap says of all DNS clusters.
func (s *scope) defaultDNS() *mesh.DNS {
	o := s.d.opt.DNS
	return &mesh.DNS{Resolvers: o.Resolvers, UseTCP: o.UseTCP, NoSearch: o.NoSearch}
}

// dnsCluster reads the typed configuration that holds the same.
func (s *scope) dnsCluster(p *at, m *dnsclusterv3.DnsCluster) *mesh.DNS {
	d := s.defaultDNS()
	d.Family, d.RespectTTL = dnsClusterFamily(m), m.GetRespectDnsTtl()
	s.refresh(p, d, m.GetDnsRefreshRate(), m.GetDnsFailureRefreshRate())
	s.resolver(p.field("typed_dns_resolver_config"), d, m.GetTypedDnsResolverConfig())
	return d
}

// dnsClusterFamily maps an enum that has a value for "unspecified" to one that has none.
func dnsClusterFamily(m *dnsclusterv3.DnsCluster) mesh.DNSFamily {
	if v := m.GetDnsLookupFamily(); v > 0 {
		return mesh.DNSFamily(v - 1)
	}
	return mesh.FamilyAuto
}

// refreshRate is Cluster.RefreshRate and DnsCluster.RefreshRate.
type refreshRate interface {
	GetBaseInterval() *durationpb.Duration
	GetMaxInterval() *durationpb.Duration
}

func (s *scope) refresh(p *at, d *mesh.DNS, rate *durationpb.Duration, failure refreshRate) {
	d.Refresh = s.durationOr(p, "dns_refresh_rate", rate, defaultDNSRefresh)
	fp := p.field("dns_failure_refresh_rate")
	d.FailureBase = s.durationOr(fp, "base_interval", failure.GetBaseInterval(), d.Refresh)
	d.FailureMax = d.FailureBase
	if failure.GetBaseInterval() != nil {
		d.FailureMax = s.durationOr(fp, "max_interval", failure.GetMaxInterval(), 10*d.FailureBase)
	}
	if d.FailureMax < d.FailureBase {
		s.errorf(fp.field("max_interval"), "must not be less than base_interval (%v)", d.FailureBase)
	}
}

func (s *scope) resolvers(p *at, field string, list []*corev3.Address) []netip.AddrPort {
	var out []netip.AddrPort
	for i, a := range list {
		rp := p.item(field, i)
		if a.GetSocketAddress() == nil {
			s.errorf(rp, "must be a socket_address")
			continue
		}
		sp := rp.field("socket_address")
		ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
		if err != nil {
			s.errorf(sp.field("address"), "%q is not an IP address", a.GetSocketAddress().GetAddress())
			continue
		}
		port := a.GetSocketAddress().GetPortValue()
		if port == 0 {
			port = 53
		}
		out = append(out, netip.AddrPortFrom(ip, uint16(min(port, 65535))))
	}
	return out
}

// resolver reads the typed resolver. There is one resolver here; of the options of Envoy's, those that say whom and
// how to ask are honoured.
func (s *scope) resolver(p *at, d *mesh.DNS, m *corev3.TypedExtensionConfig) {
	if m == nil {
		return
	}
	p = p.field("typed_config")
	cares, system := &caresv3.CaresDnsResolverConfig{}, &getaddrinfov3.GetAddrInfoDnsResolverConfig{}
	switch t := unwrap(m.GetTypedConfig()); {
	case isType(t, cares):
		if s.message(p, t, cares) {
			d.Resolvers = s.resolvers(p, "resolvers", cares.GetResolvers())
			resolverOptions(d, cares.GetDnsResolverOptions())
		}
	case isType(t, system):
		s.message(p, t, system)
	default:
		s.errorf(p, "DNS resolver %q (%s) is not supported; supported: %s, %s", m.GetName(), orDefault(t.name, "no type"),
			cares.ProtoReflect().Descriptor().FullName(), system.ProtoReflect().Descriptor().FullName())
	}
}

func resolverOptions(d *mesh.DNS, o *corev3.DnsResolverOptions) {
	d.UseTCP = o.GetUseTcpForDnsLookups()
	d.NoSearch = o.GetNoDefaultSearchDomain()
}

// dnsTargets reads the names of a load assignment.
func (s *scope) dnsTargets(p *at, d *mesh.DNS, m *endpointv3.ClusterLoadAssignment) {
	d.Overprovisioning = s.assignment(p, m)
	for i, l := range m.GetEndpoints() {
		lp := p.item("endpoints", i)
		group := s.localityGroup(lp, l)
		for j, e := range l.GetLbEndpoints() {
			ep := lp.item("lb_endpoints", j)
			sa := e.GetEndpoint().GetAddress().GetSocketAddress()
			sp := ep.field("endpoint").field("address").field("socket_address")
			if sa == nil {
				s.errorf(sp, "is required in a DNS cluster")
				continue
			}
			host := strings.TrimSuffix(sa.GetAddress(), ".")
			if host == "" || len(host) > maxName || strings.ContainsAny(host, " /\x00") {
				s.errorf(sp.field("address"), "%q is neither a DNS name nor an IP address", sa.GetAddress())
			}
			t := mesh.DNSTarget{Host: sa.GetAddress(), Port: s.port(sp, sa), Locality: i, Group: group}
			t.Endpoint = s.endpointTemplate(ep, e)
			d.Targets = append(d.Targets, t)
		}
	}
}

func addDNSFields(t *protofields.Table) {
	t.Add(&corev3.DnsResolutionConfig{}, protofields.Honour("resolvers", "dns_resolver_options"))
	t.Add(&corev3.DnsResolverOptions{}, protofields.Honour("use_tcp_for_dns_lookups", "no_default_search_domain"))
	t.Add(&dnsclusterv3.DnsCluster{},
		protofields.Honour("dns_refresh_rate", "dns_failure_refresh_rate", "respect_dns_ttl",
			"typed_dns_resolver_config", "dns_lookup_family", "all_addresses_in_single_endpoint"),
		protofields.Ignore("look-ups are made without jitter", "dns_jitter"),
		protofields.Ignore("a time to live under 1 s is taken for 1 s", "dns_min_refresh_rate"))
	t.Add(&dnsclusterv3.DnsCluster_RefreshRate{}, protofields.Honour("base_interval", "max_interval"))
	t.Add(&caresv3.CaresDnsResolverConfig{},
		protofields.Honour("resolvers", "dns_resolver_options"),
		protofields.Ignore("it tunes the c-ares library, which is not used", "use_resolvers_as_fallback",
			"filter_unroutable_families", "udp_max_queries", "query_timeout_seconds", "query_tries", "rotate_nameservers",
			"edns0_max_payload_size", "max_udp_channel_duration", "reinit_channel_on_timeout", "qcache_max_ttl"))
	t.Add(&getaddrinfov3.GetAddrInfoDnsResolverConfig{},
		protofields.Ignore("it tunes getaddrinfo, which is not used", "num_retries", "num_resolver_threads"))
}
