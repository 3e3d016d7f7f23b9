// SPDX-License-Identifier: Apache-2.0

package resource

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

const optionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// upstreamHTTP reads how HTTP is spoken to a cluster: from the typed options, or from the older fields of the cluster.
func (s *scope) upstreamHTTP(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	c.HTTP = mesh.UpstreamHTTP{
		IdleTimeout:              defaultIdle,
		MaxRequestsPerConnection: int(m.GetMaxRequestsPerConnection().GetValue()),
		MaxHeaderBytes:           s.d.opt.Limits.HeaderBytes,
		MaxHeaderCount:           s.d.opt.Limits.HeaderCount,
		HTTP2:                    s.http2(p.field("http2_protocol_options"), m.GetHttp2ProtocolOptions(), outboundStreams),
	}
	for _, key := range sortedKeys(m.GetTypedExtensionProtocolOptions()) {
		ep := p.entry("typed_extension_protocol_options", key)
		o := &upstreamhttpv3.HttpProtocolOptions{}
		t := unwrap(m.GetTypedExtensionProtocolOptions()[key])
		if key != optionsKey || !isType(t, o) {
			s.errorf(ep, "%s under the name %q is not supported; supported: %s under its own name", t.name, key, optionsKey)
			continue
		}
		if s.message(ep, t, o) {
			s.httpOptions(ep, c, o)
		}
		s.oldHTTP(p, m)
		return
	}
	s.commonUpstream(p.field("common_http_protocol_options"), &c.HTTP, m.GetCommonHttpProtocolOptions())
	s.upstreamHTTP1(p.field("http_protocol_options"), m.GetHttpProtocolOptions())
	if m.GetHttp2ProtocolOptions() != nil {
		c.HTTP.Protocol = mesh.UpstreamHTTP2
	}
	if m.GetProtocolSelection() == clusterv3.Cluster_USE_DOWNSTREAM_PROTOCOL {
		c.HTTP.Protocol = mesh.UpstreamAsDownstream
	}
}

// oldHTTP reports the fields of the cluster that the typed options replace.
func (s *scope) oldHTTP(p *at, m *clusterv3.Cluster) {
	for field, set := range map[string]bool{
		"common_http_protocol_options": m.GetCommonHttpProtocolOptions() != nil,
		"http_protocol_options":        m.GetHttpProtocolOptions() != nil,
		"http2_protocol_options":       m.GetHttp2ProtocolOptions() != nil,
	} {
		if set {
			s.notef(p.field(field), "typed_extension_protocol_options counts, as in Envoy")
		}
	}
}

func (s *scope) httpOptions(p *at, c *mesh.Cluster, m *upstreamhttpv3.HttpProtocolOptions) {
	s.commonUpstream(p.field("common_http_protocol_options"), &c.HTTP, m.GetCommonHttpProtocolOptions())
	switch x := m.GetUpstreamProtocolOptions().(type) {
	case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		ep := p.field("explicit_http_config")
		switch y := x.ExplicitHttpConfig.GetProtocolConfig().(type) {
		case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
			s.upstreamHTTP1(ep.field("http_protocol_options"), y.HttpProtocolOptions)
		case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
			c.HTTP.Protocol = mesh.UpstreamHTTP2
			c.HTTP.HTTP2 = s.http2(ep.field("http2_protocol_options"), y.Http2ProtocolOptions, outboundStreams)
		}
	case *upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		c.HTTP.Protocol = mesh.UpstreamAsDownstream
		dp, m := p.field("use_downstream_protocol_config"), x.UseDownstreamProtocolConfig
		s.upstreamHTTP1(dp.field("http_protocol_options"), m.GetHttpProtocolOptions())
		c.HTTP.HTTP2 = s.http2(dp.field("http2_protocol_options"), m.GetHttp2ProtocolOptions(), outboundStreams)
	case *upstreamhttpv3.HttpProtocolOptions_AutoConfig:
		c.HTTP.Protocol = mesh.UpstreamNegotiated
		if c.TLS == nil {
			s.errorf(p.field("auto_config"), "needs a transport_socket with TLS: the protocol is chosen by ALPN; use explicit_http_config")
		}
		ap, m := p.field("auto_config"), x.AutoConfig
		s.upstreamHTTP1(ap.field("http_protocol_options"), m.GetHttpProtocolOptions())
		c.HTTP.HTTP2 = s.http2(ap.field("http2_protocol_options"), m.GetHttp2ProtocolOptions(), outboundStreams)
	}
}

func (s *scope) commonUpstream(p *at, u *mesh.UpstreamHTTP, m *corev3.HttpProtocolOptions) {
	u.IdleTimeout = s.durationOr(p, "idle_timeout", m.GetIdleTimeout(), defaultIdle)
	u.MaxConnectionDuration = s.duration(p, "max_connection_duration", m.GetMaxConnectionDuration())
	u.MaxStreamDuration = s.duration(p, "max_stream_duration", m.GetMaxStreamDuration())
	u.MaxHeaderCount = int(uint32Or(m.GetMaxHeadersCount(), uint32(u.MaxHeaderCount)))
	if kb := m.GetMaxResponseHeadersKb(); kb != nil {
		u.MaxHeaderBytes = int(kb.GetValue()) << 10
	}
	if n := m.GetMaxRequestsPerConnection(); n != nil {
		u.MaxRequestsPerConnection = int(n.GetValue())
	}
	if m.GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW {
		s.notef(p.field("headers_with_underscores_action"), "it is a connection manager's option, as in Envoy")
	}
}

// upstreamHTTP1 looks at options that a listener and a cluster share the message of.
func (s *scope) upstreamHTTP1(p *at, m *corev3.Http1ProtocolOptions) {
	for field, set := range map[string]bool{
		"accept_http_10":           m.GetAcceptHttp_10(),
		"default_host_for_http_10": m.GetDefaultHostForHttp_10() != "",
	} {
		if set {
			s.notef(p.field(field), "it is a connection manager's option, as in Envoy")
		}
	}
	s.headerCase(p.field("header_key_format"), m.GetHeaderKeyFormat())
	if m.GetSendFullyQualifiedUrl() {
		s.errorf(p.field("send_fully_qualified_url"), "requests are sent with a path; leave it out")
	}
}

func addUpstreamHTTPFields(t *protofields.Table) {
	t.Add(&upstreamhttpv3.HttpProtocolOptions{},
		protofields.Honour("common_http_protocol_options", "explicit_http_config", "use_downstream_protocol_config", "auto_config"),
		protofields.Opaque("upstream_http_protocol_options"), // see autoSNI
		protofields.Refuse("upstream filters are not supported", "http_filters"),
		protofields.Refuse("headers are validated strictly", "header_validation_config"),
		protofields.Refuse("5xx answers are failures; leave it out", "outlier_detection={}"),
		protofields.Refuse(noMirror, "request_mirror_policies"),
		protofields.Ignore(noHashing, "hash_policy"),
		protofields.Refuse("a retry policy stands on a route or a virtual host", "retry_policy"))
	t.Add(&upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{},
		protofields.Honour("http_protocol_options", "http2_protocol_options"),
		protofields.Refuse("HTTP/3 is not supported", "http3_protocol_options"))
	t.Add(&upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{},
		protofields.Honour("http_protocol_options", "http2_protocol_options"),
		protofields.Ignore("HTTP/3 is not spoken", "http3_protocol_options"))
	t.Add(&upstreamhttpv3.HttpProtocolOptions_AutoHttpConfig{},
		protofields.Honour("http_protocol_options", "http2_protocol_options"),
		protofields.Refuse("HTTP/3 is not supported", "http3_protocol_options", "alternate_protocols_cache_options"))
}
