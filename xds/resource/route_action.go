// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"math"
	"net/http"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) routeAction(p *at, r *mesh.Route, m *routev3.RouteAction) *mesh.RouteAction {
	a := &mesh.RouteAction{
		NotFoundStatus:       notFoundStatus(m.GetClusterNotFoundResponseCode()),
		PrefixRewrite:        m.GetPrefixRewrite(),
		HostRewrite:          s.hostRewrite(p, m),
		AppendXForwardedHost: m.GetAppendXForwardedHost(),
		Timeout:              s.durationOr(p, "timeout", m.GetTimeout(), defaultRouteTimeout),
		Retry:                s.retryPolicy(p.field("retry_policy"), m.GetRetryPolicy()),
		Upgrades:             s.routeUpgrades(p, m.GetUpgradeConfigs()),
	}
	if m.GetPriority() == corev3.RoutingPriority_HIGH {
		a.Priority = mesh.PriorityHigh
	}
	if d := m.GetIdleTimeout(); d != nil {
		v := s.duration(p, "idle_timeout", d)
		a.IdleTimeout = &v
	}
	if d := m.GetMaxStreamDuration().GetMaxStreamDuration(); d != nil {
		v := s.duration(p.field("max_stream_duration"), "max_stream_duration", d)
		a.MaxStreamDuration = &v
	}
	s.grpcTimeouts(p, a, m)
	if rw := m.GetRegexRewrite(); rw != nil {
		a.RegexRewrite = s.rewrite(p.field("regex_rewrite"), rw)
		if a.PrefixRewrite != "" {
			s.errorf(p.field("regex_rewrite"), "excludes prefix_rewrite; keep one of them")
		}
	}
	if a.PrefixRewrite != "" && (r.Match.Kind == mesh.PathRegex || r.Match.Kind == mesh.PathConnect) {
		s.notef(p.field("prefix_rewrite"), "the match has no prefix, so the whole path is replaced, as in Envoy")
	}
	s.targets(p, a, m)
	return a
}

// grpcTimeouts reads both ways to say what is made of the grpc-timeout header. Where there is a max_stream_duration, the
// older way has no effect, as in Envoy.
func (s *scope) grpcTimeouts(p *at, a *mesh.RouteAction, m *routev3.RouteAction) {
	optional := func(p *at, field string, d *durationpb.Duration) *time.Duration {
		if d == nil {
			return nil
		}
		v := s.duration(p, field, d)
		return &v
	}
	g := &a.GRPC
	//lint:ignore SA1019 Envoy still reads the deprecated fields.
	g.Max, g.Offset = optional(p, "max_grpc_timeout", m.GetMaxGrpcTimeout()), s.duration(p, "grpc_timeout_offset", m.GetGrpcTimeoutOffset())
	d := m.GetMaxStreamDuration()
	if d == nil {
		return
	}
	g.Durations = true
	dp := p.field("max_stream_duration")
	g.HeaderMax = optional(dp, "grpc_timeout_header_max", d.GetGrpcTimeoutHeaderMax())
	g.HeaderOffset = s.duration(dp, "grpc_timeout_header_offset", d.GetGrpcTimeoutHeaderOffset())
	switch {
	case g.Max != nil:
		s.notef(p.field("max_grpc_timeout"), "max_stream_duration takes its place, as in Envoy")
	case m.GetTimeout() != nil:
		s.notef(p.field("timeout"), "max_stream_duration takes its place, as in Envoy")
	}
}

// targets reads the cluster, or the clusters, that a route forwards to.
func (s *scope) targets(p *at, a *mesh.RouteAction, m *routev3.RouteAction) {
	switch x := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		a.Clusters = []mesh.WeightedCluster{{Name: x.Cluster, Weight: 1}}
		a.TotalWeight = 1
		s.clusters = append(s.clusters, x.Cluster)
	case *routev3.RouteAction_ClusterHeader:
		a.ClusterHeader = strings.ToLower(x.ClusterHeader)
	case *routev3.RouteAction_WeightedClusters:
		s.weightedClusters(p.field("weighted_clusters"), a, x.WeightedClusters)
	}
}

func (s *scope) weightedClusters(p *at, a *mesh.RouteAction, m *routev3.WeightedCluster) {
	var total uint64
	for i, c := range m.GetClusters() {
		cp := p.item("clusters", i)
		w := mesh.WeightedCluster{
			Name:        c.GetName(),
			Weight:      c.GetWeight().GetValue(),
			Headers:     s.headerOps(cp, c),
			PerFilter:   s.perFilter(cp, c.GetTypedPerFilterConfig(), nil),
			HostRewrite: c.GetHostRewriteLiteral(),
		}
		if prefix := m.GetRuntimeKeyPrefix(); prefix != "" {
			w.Runtime = s.key(prefix + "." + w.Name)
		}
		if w.Name == "" {
			s.errorf(cp.field("name"), isRequired)
		}
		if c.GetWeight() == nil {
			s.errorf(cp.field("weight"), isRequired)
		}
		total += uint64(w.Weight)
		a.Clusters = append(a.Clusters, w)
		s.clusters = append(s.clusters, w.Name)
	}
	s.totalWeight(p.field("clusters"), total)
	a.TotalWeight = uint32(total)
	if want := m.GetTotalWeight(); want != nil && uint64(want.GetValue()) != total {
		s.notef(p.field("total_weight"), "the sum of the weights counts, as in Envoy")
	}
}

func (s *scope) totalWeight(p *at, total uint64) {
	switch {
	case total == 0:
		s.errorf(p, "the sum of the weights must be more than 0")
	case total > math.MaxUint32:
		s.errorf(p, "the sum of the weights must be at most %d", uint32(math.MaxUint32))
	}
}

func notFoundStatus(c routev3.RouteAction_ClusterNotFoundResponseCode) int {
	switch c {
	case routev3.RouteAction_NOT_FOUND:
		return http.StatusNotFound
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}

func (s *scope) hostRewrite(p *at, m *routev3.RouteAction) mesh.HostRewrite {
	switch x := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		return mesh.HostRewrite{Kind: mesh.HostLiteral, Value: x.HostRewriteLiteral}
	case *routev3.RouteAction_AutoHostRewrite:
		if x.AutoHostRewrite.GetValue() {
			return mesh.HostRewrite{Kind: mesh.HostAuto}
		}
	case *routev3.RouteAction_HostRewriteHeader:
		return mesh.HostRewrite{Kind: mesh.HostFromHeader, Value: strings.ToLower(x.HostRewriteHeader)}
	case *routev3.RouteAction_HostRewritePathRegex:
		re := s.rewrite(p.field("host_rewrite_path_regex"), x.HostRewritePathRegex)
		return mesh.HostRewrite{Kind: mesh.HostFromPath, Regex: re}
	}
	return mesh.HostRewrite{}
}

func (s *scope) routeUpgrades(p *at, list []*routev3.RouteAction_UpgradeConfig) []mesh.Upgrade {
	var out []mesh.Upgrade
	for i, u := range list {
		out = s.upgrade(p.item("upgrade_configs", i), out, u.GetUpgradeType(), boolOr(u.GetEnabled(), true))
	}
	return out
}

func (s *scope) upgrade(p *at, list []mesh.Upgrade, typ string, enabled bool) []mesh.Upgrade {
	typ = strings.ToLower(typ)
	for _, u := range list {
		if u.Type == typ {
			s.errorf(p.field("upgrade_type"), "%q is given twice", typ)
			return list
		}
	}
	return append(list, mesh.Upgrade{Type: typ, Enabled: enabled})
}

func (s *scope) redirect(p *at, m *routev3.RedirectAction) *mesh.Redirect {
	r := &mesh.Redirect{
		Status:     redirectStatus(m.GetResponseCode()),
		Host:       m.GetHostRedirect(),
		Port:       int(m.GetPortRedirect()),
		StripQuery: m.GetStripQuery(),
	}
	if r.Port > 65535 {
		s.errorf(p.field("port_redirect"), "must be at most 65535")
	}
	switch x := m.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		r.HTTPS = x.HttpsRedirect
	case *routev3.RedirectAction_SchemeRedirect:
		r.Scheme = x.SchemeRedirect
	}
	switch x := m.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		r.Path = x.PathRedirect
	case *routev3.RedirectAction_PrefixRewrite:
		r.PrefixRewrite = x.PrefixRewrite
	case *routev3.RedirectAction_RegexRewrite:
		r.RegexRewrite = s.rewrite(p.field("regex_rewrite"), x.RegexRewrite)
	}
	return r
}

func redirectStatus(c routev3.RedirectAction_RedirectResponseCode) int {
	switch c {
	case routev3.RedirectAction_FOUND:
		return http.StatusFound
	case routev3.RedirectAction_SEE_OTHER:
		return http.StatusSeeOther
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		return http.StatusTemporaryRedirect
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		return http.StatusPermanentRedirect
	}
	return http.StatusMovedPermanently
}

func (s *scope) directResponse(p *at, t *mesh.RouteTable, m *routev3.DirectResponseAction) *mesh.DirectResponse {
	d := &mesh.DirectResponse{Status: int(m.GetStatus())}
	if m.GetBody() != nil {
		d.Body = s.dataSource(p.field("body"), m.GetBody(), t.MaxDirectBody)
	}
	if f := m.GetBodyFormat(); f != nil {
		fp := p.field("body_format").field("text_format_source")
		text := f.GetTextFormat()
		if f.GetTextFormatSource() != nil {
			text = string(s.dataSource(fp, f.GetTextFormatSource(), t.MaxDirectBody))
		}
		d.Format, _ = s.format(fp, text)
	}
	return d
}

func addRouteActionFields(t *protofields.Table) {
	t.Add(&routev3.RouteAction{},
		protofields.Honour("cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code",
			"prefix_rewrite", "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header",
			"host_rewrite_path_regex", "append_x_forwarded_host", "timeout", "idle_timeout", "retry_policy", "priority",
			"upgrade_configs", "max_stream_duration", "max_grpc_timeout", "grpc_timeout_offset", "cors"),
		protofields.Ignore(noHashing, "hash_policy"),
		protofields.Ignore("rate limits are not supported", "include_vh_rate_limits"),
		protofields.Ignore("stalled writes are bounded by the idle timeout", "flush_timeout"),
		protofields.Refuse("cluster specifier plug-ins are not supported",
			"cluster_specifier_plugin", "inline_cluster_specifier_plugin"),
		protofields.Refuse(noSubsets, "metadata_match={}"),
		protofields.Refuse("use prefix_rewrite or regex_rewrite", "path_rewrite_policy", "path_rewrite"),
		protofields.Refuse("use host_rewrite_literal", "host_rewrite"),
		protofields.Refuse("requests are never sent, nor taken, as TLS early data", "early_data_policy"),
		protofields.Refuse("retry policy plug-ins are not supported; use retry_policy", "retry_policy_typed_config"),
		protofields.Refuse(noMirror, "request_mirror_policies"),
		protofields.Refuse(noRateLimit, "rate_limits"),
		protofields.Refuse("internal redirects are not supported", "internal_redirect_policy",
			"internal_redirect_action", "max_internal_redirects"),
		protofields.Refuse(noHedging, "hedge_policy={}"))
	t.Add(&routev3.RouteAction_MaxStreamDuration{}, protofields.Honour("max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset"))
	t.Add(&routev3.RouteAction_UpgradeConfig{}, protofields.Honour("upgrade_type", "enabled"),
		protofields.Refuse("CONNECT is forwarded, not ended here", "connect_config"))
	t.Add(&routev3.WeightedCluster{},
		protofields.Honour("clusters", "total_weight", "runtime_key_prefix"),
		protofields.Refuse("the choice is random", "header_name", "use_hash_policy=false"))
	t.Add(&routev3.WeightedCluster_ClusterWeight{},
		protofields.Honour("name", "weight", "request_headers_to_add", "request_headers_to_remove",
			"response_headers_to_add", "response_headers_to_remove", "typed_per_filter_config", "host_rewrite_literal"),
		protofields.Refuse("a split names its clusters", "cluster_header"),
		protofields.Refuse(noSubsets, "metadata_match={}"))
	t.Add(&routev3.RedirectAction{},
		protofields.Honour("https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect",
			"prefix_rewrite", "regex_rewrite", "response_code", "strip_query"),
		protofields.Refuse("use path_redirect, prefix_rewrite or regex_rewrite", "path_rewrite"))
	t.Add(&routev3.DirectResponseAction{}, protofields.Honour("status", "body", "body_format"))
	t.Add(&corev3.SubstitutionFormatString{}, protofields.Honour("text_format", "text_format_source"),
		protofields.Refuse("write the text with text_format_source", "json_format", "json_format_options={}"),
		protofields.Refuse("a direct response is text/plain; set content-type in response_headers_to_add", "content_type"),
		protofields.Refuse("missing values are written as -", "omit_empty_values"),
		protofields.Refuse("formatter plug-ins are not supported", "formatters"))
}
