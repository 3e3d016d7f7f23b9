// SPDX-License-Identifier: Apache-2.0

package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	casev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) httpManager(p *at, m *hcmv3.HttpConnectionManager) *mesh.HTTPManager {
	limits := s.d.opt.Limits
	h := &mesh.HTTPManager{
		StatPrefix:   m.GetStatPrefix(),
		Codec:        s.codec(p, m.GetCodecType()),
		ServerName:   orDefault(m.GetServerName(), defaultServerName),
		ServerHeader: serverHeader(m.GetServerHeaderTransformation()),
		Via:          m.GetVia(),

		StreamIdleTimeout:     s.durationOr(p, "stream_idle_timeout", m.GetStreamIdleTimeout(), defaultStreamIdle),
		RequestTimeout:        s.duration(p, "request_timeout", m.GetRequestTimeout()),
		RequestHeadersTimeout: s.durationOr(p, "request_headers_timeout", m.GetRequestHeadersTimeout(), limits.RequestHeaders),
		DrainTimeout:          s.durationOr(p, "drain_timeout", m.GetDrainTimeout(), defaultDrain),
		DelayedCloseTimeout:   s.durationOr(p, "delayed_close_timeout", m.GetDelayedCloseTimeout(), defaultDelayedClose),

		Upgrades:   s.upgrades(p, m.GetUpgradeConfigs()),
		AccessLogs: s.accessLogs(p, m.GetAccessLog()),
	}
	s.trust(p, h, m)
	s.commonHTTP(p.field("common_http_protocol_options"), h, m.GetCommonHttpProtocolOptions())
	h.MaxHeaderBytes = limits.HeaderBytes
	if kb := m.GetMaxRequestHeadersKb(); kb != nil {
		h.MaxHeaderBytes = int(kb.GetValue()) << 10
	}
	s.http1(p.field("http_protocol_options"), h, m.GetHttpProtocolOptions())
	h.HTTP2 = s.http2(p.field("http2_protocol_options"), m.GetHttp2ProtocolOptions(), inboundStreams)
	s.requestID(p.field("request_id_extension"), m.GetRequestIdExtension())
	s.routes(p, h, m)
	s.httpFilters(p, h, m.GetHttpFilters())
	return h
}

func (s *scope) codec(p *at, c hcmv3.HttpConnectionManager_CodecType) mesh.Codec {
	switch c {
	case hcmv3.HttpConnectionManager_AUTO:
		return mesh.CodecAuto
	case hcmv3.HttpConnectionManager_HTTP1:
		return mesh.CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		return mesh.CodecHTTP2
	}
	s.errorf(p.field("codec_type"), "%s is not supported; supported: AUTO, HTTP1, HTTP2", c)
	return mesh.CodecAuto
}

// trust copies what decides whom to believe and what to rewrite, with Envoy's meaning and defaults.
func (s *scope) trust(p *at, h *mesh.HTTPManager, m *hcmv3.HttpConnectionManager) {
	h.UseRemoteAddress = m.GetUseRemoteAddress().GetValue()
	h.XFFTrustedHops = int(m.GetXffNumTrustedHops())
	h.InternalAddresses = s.prefixes(p.field("internal_address_config"), "cidr_ranges", m.GetInternalAddressConfig().GetCidrRanges())
	h.SkipXFFAppend = m.GetSkipXffAppend()
	h.AppendXForwardPort = m.GetAppendXForwardedPort()
	h.GenerateRequestID = boolOr(m.GetGenerateRequestId(), true)
	h.KeepExternalID = m.GetPreserveExternalRequestId()
	h.RequestIDInAnswer = m.GetAlwaysSetRequestIdInResponse()
	h.NormalizePath = m.GetNormalizePath().GetValue()
	h.MergeSlashes = m.GetMergeSlashes()
	h.EscapedSlashes = escapedSlashes(m.GetPathWithEscapedSlashesAction())
	h.StripAnyPort = m.GetStripAnyHostPort()
	h.StripMatchingPort = m.GetStripMatchingHostPort()
	h.StripTrailingDot = m.GetStripTrailingHostDot()
	h.Proxy100Continue = m.GetProxy_100Continue()
	if h.StripAnyPort && h.StripMatchingPort {
		s.errorf(p.field("strip_any_host_port"), "excludes strip_matching_host_port; keep one of them")
	}
	switch c := m.GetForwardClientCertDetails(); c {
	case hcmv3.HttpConnectionManager_SANITIZE:
	case hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
		s.errorf(p.field("forward_client_cert_details"), "%s is not supported: x-forwarded-client-cert of a plain "+
			"connection is removed; supported: SANITIZE, FORWARD_ONLY, APPEND_FORWARD, SANITIZE_SET", c)
	default:
		if s.clientCerts {
			s.errorf(p.field("forward_client_cert_details"), "%s is not supported yet where clients show certificates; supported: "+
				"SANITIZE, which removes x-forwarded-client-cert", c)
			break
		}
		s.notef(p.field("forward_client_cert_details"), "there are no client certificates without TLS, so "+
			"x-forwarded-client-cert is removed, as Envoy does on plain connections")
	}
}

func (s *scope) commonHTTP(p *at, h *mesh.HTTPManager, m *corev3.HttpProtocolOptions) {
	h.IdleTimeout = s.durationOr(p, "idle_timeout", m.GetIdleTimeout(), defaultIdle)
	h.MaxConnectionDuration = s.duration(p, "max_connection_duration", m.GetMaxConnectionDuration())
	h.MaxStreamDuration = s.duration(p, "max_stream_duration", m.GetMaxStreamDuration())
	h.MaxHeaderCount = int(uint32Or(m.GetMaxHeadersCount(), uint32(s.d.opt.Limits.HeaderCount)))
	h.MaxRequestsPerConnection = int(m.GetMaxRequestsPerConnection().GetValue())
	switch m.GetHeadersWithUnderscoresAction() {
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		h.Underscores = mesh.UnderscoresReject
	case corev3.HttpProtocolOptions_DROP_HEADER:
		h.Underscores = mesh.UnderscoresDrop
	}
	if m.GetMaxResponseHeadersKb() != nil {
		s.notef(p.field("max_response_headers_kb"), "it is a cluster's option, as in Envoy")
	}
}

func (s *scope) http1(p *at, h *mesh.HTTPManager, m *corev3.Http1ProtocolOptions) {
	h.AcceptHTTP10 = m.GetAcceptHttp_10()
	h.DefaultHost = m.GetDefaultHostForHttp_10()
	h.EnableTrailers = m.GetEnableTrailers()
	s.headerCase(p.field("header_key_format"), m.GetHeaderKeyFormat())
	if m.GetSendFullyQualifiedUrl() {
		s.notef(p.field("send_fully_qualified_url"), "it is a cluster's option, as in Envoy")
	}
}

// headerCase accepts the one format of header names that there is: as they came.
func (s *scope) headerCase(p *at, m *corev3.Http1ProtocolOptions_HeaderKeyFormat) {
	if m.GetStatefulFormatter() == nil {
		return
	}
	p = p.field("stateful_formatter")
	c, t := &casev3.PreserveCaseFormatterConfig{}, unwrap(m.GetStatefulFormatter().GetTypedConfig())
	if !isType(t, c) {
		s.errorf(p, "not supported: header names go on as they came; use PreserveCaseFormatterConfig, or leave it out")
		return
	}
	s.message(p.field("typed_config"), t, c)
}

func (s *scope) upgrades(p *at, list []*hcmv3.HttpConnectionManager_UpgradeConfig) []mesh.Upgrade {
	var out []mesh.Upgrade
	for i, u := range list {
		out = s.upgrade(p.item("upgrade_configs", i), out, u.GetUpgradeType(), boolOr(u.GetEnabled(), true))
	}
	return out
}

func (s *scope) requestID(p *at, m *hcmv3.RequestIDExtension) {
	if m == nil {
		return
	}
	p = p.field("typed_config")
	t := unwrap(m.GetTypedConfig())
	if !isType(t, &uuidv3.UuidRequestIdConfig{}) {
		s.errorf(p, "%s", s.unknownType(registry.RequestID, "request id", t.name,
			"envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"))
		return
	}
	s.message(p, t, &uuidv3.UuidRequestIdConfig{})
}

func (s *scope) routes(p *at, h *mesh.HTTPManager, m *hcmv3.HttpConnectionManager) {
	switch x := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		name := x.Rds.GetRouteConfigName()
		h.RouteTable = s.from(p.field("rds").field("config_source"), mesh.KindRouteTable, name,
			"http."+m.GetStatPrefix()+".rds."+name, x.Rds.GetConfigSource())
		if name == "" {
			s.errorf(p.field("rds").field("route_config_name"), "must not be empty")
			return
		}
		s.tables = append(s.tables, h.RouteTable)
	case *hcmv3.HttpConnectionManager_RouteConfig:
		h.Routes = s.inlineTable(p.field("route_config"), x.RouteConfig)
	case *hcmv3.HttpConnectionManager_ScopedRoutes:
		h.Scoped = s.scopedRoutes(p.field("scoped_routes"), x.ScopedRoutes, m.GetStatPrefix())
	}
}

func serverHeader(t hcmv3.HttpConnectionManager_ServerHeaderTransformation) mesh.ServerHeader {
	switch t {
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		return mesh.ServerAppendIfAbsent
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		return mesh.ServerPassThrough
	}
	return mesh.ServerOverwrite
}

func escapedSlashes(a hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction) mesh.EscapedSlashes {
	switch a {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		return mesh.SlashesReject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		return mesh.SlashesUnescapeRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		return mesh.SlashesUnescapeForward
	}
	return mesh.SlashesKeep
}
