// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

const (
	managerType  = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	tcpProxyType = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
)

func (s *scope) listener(m *listenerv3.Listener) *mesh.Listener {
	var root *at
	l := &mesh.Listener{
		Name:              m.GetName(),
		Address:           s.address(root.field("address"), m.GetAddress()),
		BindToPort:        boolOr(m.GetBindToPort(), boolOr(m.GetDeprecatedV1().GetBindToPort(), true)),
		UseOriginalDst:    m.GetUseOriginalDst().GetValue(),
		Direction:         direction(m.GetTrafficDirection()),
		StatPrefix:        m.GetStatPrefix(),
		FiltersTimeout:    s.durationOr(root, "listener_filters_timeout", m.GetListenerFiltersTimeout(), defaultFiltersTimeout),
		ContinueOnTimeout: m.GetContinueOnListenerFiltersTimeout(),
		BufferLimit:       int(uint32Or(m.GetPerConnectionBufferLimitBytes(), uint32(s.d.opt.Limits.BufferBytes))),
		Backlog:           int(min(m.GetTcpBacklogSize().GetValue(), math.MaxInt32)),
		ReusePort:         boolOr(m.GetEnableReusePort(), true),
		IgnoreGlobalLimit: m.GetIgnoreGlobalConnLimit(),
		AccessLogs:        s.accessLogs(root, m.GetAccessLog()),
	}
	if l.Name == "" {
		l.Name = l.Address.String() // Envoy makes up a name; the address is one a person can use
		s.name = l.Name
	}
	l.MaxConnections = s.d.opt.Limits.ListenerConnections
	l.MaxConnectionsRuntime = s.key("envoy.resource_limits.listener." + l.Name + ".connection_limit")
	for i, f := range m.GetListenerFilters() {
		s.listenerFilter(root.item("listener_filters", i), l, f)
	}
	s.filterChains(root, l, m)
	return l
}

func direction(d corev3.TrafficDirection) mesh.Direction {
	switch d {
	case corev3.TrafficDirection_INBOUND:
		return mesh.Inbound
	case corev3.TrafficDirection_OUTBOUND:
		return mesh.Outbound
	}
	return mesh.DirectionUnspecified
}

func (s *scope) listenerFilter(p *at, l *mesh.Listener, f *listenerv3.ListenerFilter) {
	out := mesh.ListenerFilter{Extension: mesh.Extension{Name: f.GetName()}}
	ok := false
	if m := f.GetConfigDiscovery(); m != nil {
		out.Discovery = s.configDiscovery(p.field("config_discovery"), registry.ListenerFilter, anywhere, f.GetName(), m)
		ok = out.Discovery != nil
	} else {
		out.Extension, ok = s.extension(p.field("typed_config"), registry.ListenerFilter, f.GetName(), f.GetTypedConfig(), false)
	}
	if !ok {
		return
	}
	if f.GetFilterDisabled() != nil {
		out.DisabledOn = s.predicate(p.field("filter_disabled"), f.GetFilterDisabled())
	}
	l.Filters = append(l.Filters, out)
}

func (s *scope) predicate(p *at, m *listenerv3.ListenerFilterChainMatchPredicate) *mesh.ListenerPredicate {
	out := &mesh.ListenerPredicate{}
	switch x := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		out.Any = x.AnyMatch
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		out.PortStart = int(x.DestinationPortRange.GetStart())
		out.PortEnd = int(x.DestinationPortRange.GetEnd())
		if out.PortStart < 0 || out.PortEnd > 65536 || out.PortStart >= out.PortEnd {
			s.errorf(p.field("destination_port_range"), "must be a range with 0 <= start < end <= 65536")
		}
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		out.Not = s.predicate(p.field("not_match"), x.NotMatch)
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		out.And = s.predicates(p.field("and_match"), x.AndMatch.GetRules())
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		out.Or = s.predicates(p.field("or_match"), x.OrMatch.GetRules())
	}
	return out
}

func (s *scope) predicates(p *at, list []*listenerv3.ListenerFilterChainMatchPredicate) []*mesh.ListenerPredicate {
	out := make([]*mesh.ListenerPredicate, 0, len(list))
	for i, m := range list {
		out = append(out, s.predicate(p.item("rules", i), m))
	}
	return out
}

func (s *scope) filterChains(p *at, l *mesh.Listener, m *listenerv3.Listener) {
	if len(m.GetFilterChains()) == 0 && m.GetDefaultFilterChain() == nil {
		s.errorf(p.field("filter_chains"), "must have at least 1 item, or default_filter_chain must be set")
	}
	seen := chainMatches{}
	for i, c := range m.GetFilterChains() {
		cp := p.item("filter_chains", i)
		chain := s.filterChain(cp, c)
		seen.add(s, cp.field("filter_chain_match"), i, chain.Match)
		l.Chains = append(l.Chains, chain)
	}
	if c := m.GetDefaultFilterChain(); c != nil {
		cp := p.field("default_filter_chain")
		l.DefaultChain = s.filterChain(cp, c)
		if c.GetFilterChainMatch() != nil {
			s.notef(cp.field("filter_chain_match"), "the default chain takes what no other chain matches, as in Envoy")
			l.DefaultChain.Match = mesh.ChainMatch{}
		}
	}
}

func (s *scope) filterChain(p *at, m *listenerv3.FilterChain) *mesh.FilterChain {
	c := &mesh.FilterChain{
		Name:  m.GetName(),
		Key:   contentKey(m),
		Match: s.chainMatch(p.field("filter_chain_match"), m.GetFilterChainMatch()),
	}
	s.loaded = nil
	c.TLS = s.transportSocket(p.field("transport_socket"), m.GetTransportSocket(), false)
	s.clientCerts = c.TLS != nil && (c.TLS.Validation != nil || c.TLS.ValidationSecret != "")
	if c.TLS != nil {
		c.HandshakeTimeout = s.handshakeTimeout(p, m)
	}
	for i, f := range m.GetFilters() {
		where := inside
		if i == len(m.GetFilters())-1 {
			where = atEnd
		}
		s.networkFilter(p.item("filters", i), c, f, where)
	}
	if c.HTTP == nil && c.TCP == nil && c.Discovery == nil {
		s.errorf(p.field("filters"), "must end with %s or %s", managerType, tcpProxyType)
	}
	if s.loaded != nil {
		c.Key += hex.EncodeToString(s.loaded)
	}
	return c
}

// handshakeTimeout reads how long a handshake may take. Envoy sets no limit by default, which lets clients hold
// connections for nothing.
func (s *scope) handshakeTimeout(p *at, m *listenerv3.FilterChain) time.Duration {
	d := s.durationOr(p, "transport_socket_connect_timeout", m.GetTransportSocketConnectTimeout(), mesh.DefaultHandshakeTimeout)
	if d == 0 {
		return mesh.DefaultHandshakeTimeout
	}
	return d
}

// contentKey is equal for equal messages. Any is compared by its bytes, as it came.
func contentKey(m *listenerv3.FilterChain) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "" // unequal to itself in no way that matters: the chain drains once too often
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

func (s *scope) networkFilter(p *at, c *mesh.FilterChain, f *listenerv3.Filter, where position) {
	if c.HTTP != nil || c.TCP != nil {
		s.errorf(p, "no filter may follow the one that ends the chain")
		return
	}
	if f.GetConfigDiscovery() != nil {
		s.discoveredNetworkFilter(p, c, f, where)
		return
	}
	tp := p.field("typed_config")
	switch t := unwrap(f.GetTypedConfig()); {
	case f.GetTypedConfig() == nil:
		s.errorf(tp, isRequired)
	case slices.Contains(terminals[registry.NetworkFilter], t.name):
		switch x := s.terminal(tp, t).(type) {
		case *mesh.HTTPManager:
			c.HTTP = x
		case *mesh.TCPProxy:
			c.TCP = x
		default:
			c.TCP = &mesh.TCPProxy{} // one error is enough
		}
	default:
		ext, ok := s.extension(tp, registry.NetworkFilter, f.GetName(), f.GetTypedConfig(), false, terminals[registry.NetworkFilter]...)
		if ok {
			c.Filters = append(c.Filters, ext)
		}
	}
}

func addListenerFields(t *protofields.Table) {
	t.Add(&listenerv3.Listener{},
		protofields.Honour("name", "address", "stat_prefix", "filter_chains", "use_original_dst", "default_filter_chain",
			"per_connection_buffer_limit_bytes", "deprecated_v1", "listener_filters", "listener_filters_timeout",
			"continue_on_listener_filters_timeout", "traffic_direction", "enable_reuse_port", "access_log",
			"tcp_backlog_size", "bind_to_port", "ignore_global_conn_limit"),
		protofields.Ignore("nothing here reads listener metadata", "metadata"),
		protofields.Ignore("there is one accept loop for the process", "connection_balance_config",
			"max_connections_to_accept_per_socket_event"),
		protofields.Ignore("use enable_reuse_port", "reuse_port"),
		protofields.Ignore("a full buffer stops reading until it is written", "per_connection_buffer_high_watermark_timeout"),
		protofields.Ignore("all statistics are kept", "stats_matcher"),
		protofields.Ignore("a listener drains when it is removed, changed, or when the process is told to",
			"drain_type"),
		protofields.Ignore("the listener falls under the overload rules", "bypass_overload_manager"),
		protofields.Refuse("one address only; add a listener for each", "additional_addresses"),
		protofields.Refuse("matcher trees are not supported; use filter_chain_match", "filter_chain_matcher"),
		protofields.Refuse("filter chain discovery is not supported", "fcds_config"),
		protofields.Refuse("TPROXY is not supported; use use_original_dst with a redirection", "transparent=false"),
		protofields.Refuse("an address that the machine does not have cannot be bound", "freebind=false"),
		protofields.Refuse("socket options are not supported", "socket_options", "tcp_keepalive={}", "enable_mptcp"),
		protofields.Refuse("TCP fast open is not supported", "tcp_fast_open_queue_length=0"),
		protofields.Refuse("UDP is not supported", "udp_listener_config"),
		protofields.Refuse("API listeners are for embedding Envoy", "api_listener"),
		protofields.Refuse("internal listeners are not supported", "internal_listener"))
	t.Add(&listenerv3.Listener_DeprecatedV1{}, protofields.Honour("bind_to_port"))
	t.Add(&listenerv3.FilterChain{},
		protofields.Honour("filter_chain_match", "filters", "transport_socket", "transport_socket_connect_timeout", "name"),
		protofields.Ignore("nothing here reads filter chain metadata", "metadata"),
		protofields.Refuse("the PROXY protocol is not supported", "use_proxy_proto=false"))
	t.Add(&listenerv3.Filter{}, protofields.Honour("name", "typed_config", "config_discovery"))
	t.Add(&listenerv3.ListenerFilter{}, protofields.Honour("name", "typed_config", "filter_disabled", "config_discovery"))
	t.Add(&listenerv3.ListenerFilterChainMatchPredicate{},
		protofields.Honour("or_match", "and_match", "not_match", "any_match", "destination_port_range"))
	t.Add(&listenerv3.ListenerFilterChainMatchPredicate_MatchSet{}, protofields.Honour("rules"))
	t.Add(&listenerv3.FilterChainMatch{},
		protofields.Honour("destination_port", "prefix_ranges", "direct_source_prefix_ranges", "source_type",
			"source_prefix_ranges", "source_ports", "server_names", "transport_protocol", "application_protocols"),
		protofields.Refuse("Envoy does not implement it either; use prefix_ranges", "address_suffix", "suffix_len"))
}
