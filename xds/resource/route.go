// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/mesh"
)

// routeTable reads a route configuration, whether it is a resource or stands in a connection manager.
func (s *scope) routeTable(p *at, m *routev3.RouteConfiguration) *mesh.RouteTable {
	t := &mesh.RouteTable{
		Name:                m.GetName(),
		Version:             s.version,
		Headers:             s.headerOps(p, m),
		MostSpecificWins:    m.GetMostSpecificHeaderMutationsWins(),
		InternalOnlyHeaders: lower(m.GetInternalOnlyHeaders()),
		MaxDirectBody:       int(uint32Or(m.GetMaxDirectResponseBodySizeBytes(), defaultDirectBody)),
		IgnorePort:          m.GetIgnorePortInHostMatching(),
		PerFilter:           s.perFilter(p, m.GetTypedPerFilterConfig(), nil),
		Static:              s.d.opt.Static,
	}
	if m.GetVhds() != nil {
		s.vhds(p.field("vhds"), t, m.GetVhds())
	}
	d := domains{}
	for i, v := range m.GetVirtualHosts() {
		vp := p.item("virtual_hosts", i)
		s.domains(vp, v, d)
		t.Hosts = append(t.Hosts, s.virtualHost(vp, t, v))
	}
	return t
}

// domains maps the domains of a table, in lower case, to the virtual host that has them.
type domains map[string]string

// domains checks that no domain of a virtual host is taken: which of two virtual hosts served it would be chance.
func (s *scope) domains(p *at, v *routev3.VirtualHost, d domains) {
	for i, name := range v.GetDomains() {
		name = strings.ToLower(name)
		if owner, taken := d[name]; taken {
			s.errorf(p.item("domains", i), "%q is already a domain of virtual host %q; a domain may be given once", name, owner)
			continue
		}
		d[name] = v.GetName()
		if i := strings.IndexByte(name, '*'); i > 0 && i < len(name)-1 || strings.Count(name, "*") > 1 {
			s.notef(p.item("domains", i), "%q matches nothing but itself: a * stands for something at one end only", name)
		}
	}
}

func (s *scope) virtualHost(p *at, t *mesh.RouteTable, m *routev3.VirtualHost) *mesh.VirtualHost {
	v := &mesh.VirtualHost{
		Name:                   m.GetName(),
		Domains:                lower(m.GetDomains()),
		Headers:                s.headerOps(p, m),
		Retry:                  s.retryPolicy(p.field("retry_policy"), m.GetRetryPolicy()),
		RequireTLS:             tlsRequirement(m.GetRequireTls()),
		AttemptCountInRequest:  m.GetIncludeRequestAttemptCount(),
		AttemptCountInResponse: m.GetIncludeAttemptCountInResponse(),
	}
	var fallback *mesh.Fallback
	v.PerFilter = s.perFilter(p, m.GetTypedPerFilterConfig(), &fallback)
	s.cors(p, m.GetCors(), &v.PerFilter)
	if len(m.GetRoutes()) > 0 {
		v.Routes = make([]*mesh.Route, 0, len(m.GetRoutes()))
	}
	for i, r := range m.GetRoutes() {
		route := s.route(p.item("routes", i), t, r)
		if route.Fallback == nil && route.Forward != nil {
			route.Fallback = fallback
		}
		v.Routes = append(v.Routes, route)
	}
	return v
}

func tlsRequirement(r routev3.VirtualHost_TlsRequirementType) mesh.RequireTLS {
	switch r {
	case routev3.VirtualHost_EXTERNAL_ONLY:
		return mesh.TLSExternalOnly
	case routev3.VirtualHost_ALL:
		return mesh.TLSAll
	}
	return mesh.TLSNotRequired
}

func (s *scope) route(p *at, t *mesh.RouteTable, m *routev3.Route) *mesh.Route {
	r := &mesh.Route{
		Name:    m.GetName(),
		Match:   s.routeMatch(p.field("match"), m.GetMatch()),
		Headers: s.headerOps(p, m),
	}
	r.PerFilter = s.perFilter(p, m.GetTypedPerFilterConfig(), &r.Fallback)
	switch x := m.GetAction().(type) {
	case *routev3.Route_Route:
		r.Forward = s.routeAction(p.field("route"), r, x.Route)
		s.cors(p.field("route"), x.Route.GetCors(), &r.PerFilter)
	case *routev3.Route_Redirect:
		r.Redirect = s.redirect(p.field("redirect"), x.Redirect)
	case *routev3.Route_DirectResponse:
		r.Direct = s.directResponse(p.field("direct_response"), t, x.DirectResponse)
	}
	if r.Fallback != nil && r.Forward == nil {
		s.errorf(p.entry("typed_per_filter_config", fallbackKey), "needs a route that forwards to a cluster")
	}
	return r
}

func (s *scope) routeMatch(p *at, m *routev3.RouteMatch) mesh.RouteMatch {
	out := mesh.RouteMatch{
		IgnoreCase: m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue(),
		Headers:    s.headerMatches(p, "headers", m.GetHeaders()),
		Query:      s.queryMatches(p, m.GetQueryParameters()),
		GRPCOnly:   m.GetGrpc() != nil,
	}
	switch x := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.Kind, out.Path = mesh.PathPrefix, x.Prefix
	case *routev3.RouteMatch_Path:
		out.Kind, out.Path = mesh.PathExact, x.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.Kind, out.Path = mesh.PathSeparatedPrefix, x.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		out.Kind, out.Regex = mesh.PathRegex, s.regex(p.field("safe_regex"), x.SafeRegex)
		if out.IgnoreCase {
			s.notef(p.field("case_sensitive"), "does nothing for safe_regex, as in Envoy; write (?i) in the expression")
			out.IgnoreCase = false
		}
	case *routev3.RouteMatch_ConnectMatcher_:
		out.Kind = mesh.PathConnect
	}
	if f := m.GetRuntimeFraction(); f != nil {
		out.Fraction = protomatch.Fraction(f.GetDefaultValue())
		out.Fraction.Runtime = s.key(f.GetRuntimeKey())
	}
	return out
}

func lower(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = strings.ToLower(v)
	}
	return out
}

const (
	noMirror     = "mirroring is not supported"
	noRateLimit  = "rate limits are not supported"
	noSubsets    = "subset load balancing is not supported"
	noSpecifiers = "route specifiers are not supported"
	noHedging    = "hedging is not supported; use retry_policy with per_try_timeout"
	noTracing    = "tracing is not supported"
	onlyData     = "nothing here reads route metadata"
	retryBuffer  = "request bodies are kept for retries up to 64 KiB"
	noRouteStats = "statistics are kept by cluster and connection manager, not by route"
	noHashing    = "no load balancing policy here hashes"
)

func addRouteFields(t *protofields.Table) {
	t.Add(&routev3.RouteConfiguration{},
		protofields.Honour("name", "virtual_hosts", "vhds", "internal_only_headers", "response_headers_to_add",
			"response_headers_to_remove", "request_headers_to_add", "request_headers_to_remove",
			"most_specific_header_mutations_wins", "max_direct_response_body_size_bytes",
			"ignore_port_in_host_matching", "typed_per_filter_config"),
		protofields.Ignore("a route whose cluster is missing waits for it, then answers as cluster_not_found_response_code "+
			"says; the clusters of the bootstrap are checked", "validate_clusters=false"),
		protofields.Ignore(onlyData, "metadata"),
		protofields.Refuse("cluster specifier plug-ins are not supported", "cluster_specifier_plugins"),
		protofields.Refuse(noMirror, "request_mirror_policies"),
		protofields.Refuse(noSpecifiers, "route_specifiers"),
		protofields.Refuse("virtual hosts are chosen by the authority only", "vhost_header"),
		protofields.Refuse("path parameters are part of the path", "ignore_path_parameters_in_path_matching"))
	t.Add(&routev3.VirtualHost{},
		protofields.Honour("name", "domains", "routes", "require_tls", "request_headers_to_add",
			"request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
			"typed_per_filter_config", "include_request_attempt_count", "include_attempt_count_in_response",
			"retry_policy", "cors"),
		protofields.Ignore(noRouteStats, "virtual_clusters"),
		protofields.Ignore(onlyData, "metadata"),
		protofields.Ignore(retryBuffer, "per_request_buffer_limit_bytes", "request_body_buffer_limit"),
		protofields.Refuse("matcher trees are not supported; use routes", "matcher"),
		protofields.Refuse(noRateLimit, "rate_limits"),
		protofields.Refuse("retry policy plug-ins are not supported; use retry_policy", "retry_policy_typed_config"),
		protofields.Refuse(noHedging, "hedge_policy={}"),
		protofields.Refuse("x-envoy-is-timeout-retry is not supported", "include_is_timeout_retry_header"),
		protofields.Refuse(noMirror, "request_mirror_policies"),
		protofields.Refuse(noSpecifiers, "route_specifiers"))
	t.Add(&routev3.Route{},
		protofields.Honour("name", "match", "route", "redirect", "direct_response", "typed_per_filter_config",
			"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
			"response_headers_to_remove"),
		protofields.Ignore(onlyData, "metadata"),
		protofields.Ignore(noTracing, "decorator", "tracing"),
		protofields.Ignore(retryBuffer, "per_request_buffer_limit_bytes", "request_body_buffer_limit"),
		protofields.Ignore(noRouteStats, "stat_prefix"),
		protofields.Refuse("only a filter could answer; use route, redirect or direct_response",
			"filter_action", "non_forwarding_action"),
		protofields.Refuse(noSpecifiers, "route_specifiers"))
	t.Add(&routev3.RouteMatch{},
		protofields.Honour("prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "case_sensitive",
			"runtime_fraction", "headers", "query_parameters", "grpc"),
		protofields.Refuse("path matching plug-ins are not supported", "path_match_policy"),
		protofields.Refuse("matching on the TLS session is not supported", "tls_context"),
		protofields.Refuse("matching on metadata and filter state is not supported", "dynamic_metadata", "filter_state"),
		protofields.Refuse("matching on cookies is not supported; match the cookie header", "cookies"))
	t.Add(&routev3.RouteMatch_GrpcRouteMatchOptions{})
	t.Add(&routev3.RouteMatch_ConnectMatcher{})
	addRouteActionFields(t)
}
