// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"encoding/hex"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) healthChecks(p *at, list []*corev3.HealthCheck) []mesh.HealthCheck {
	var out []mesh.HealthCheck
	for i, m := range list {
		hp := p.item("health_checks", i)
		if i > 0 {
			s.errorf(hp, "check %q: only one health check per cluster is supported", m.GetName())
		}
		out = append(out, s.healthCheck(hp, m))
	}
	return out
}

func (s *scope) healthCheck(p *at, m *corev3.HealthCheck) mesh.HealthCheck {
	h := mesh.HealthCheck{
		Timeout:            s.duration(p, "timeout", m.GetTimeout()),
		Interval:           s.duration(p, "interval", m.GetInterval()),
		InitialJitter:      s.duration(p, "initial_jitter", m.GetInitialJitter()),
		IntervalJitter:     s.duration(p, "interval_jitter", m.GetIntervalJitter()),
		IntervalJitterPct:  m.GetIntervalJitterPercent(),
		UnhealthyThreshold: m.GetUnhealthyThreshold().GetValue(),
		HealthyThreshold:   m.GetHealthyThreshold().GetValue(),
		NoTrafficInterval:  s.durationOr(p, "no_traffic_interval", m.GetNoTrafficInterval(), defaultNoTrafficInterval),
		UnhealthyInterval:  s.duration(p, "unhealthy_interval", m.GetUnhealthyInterval()),
		ReuseConnection:    boolOr(m.GetReuseConnection(), true),
		ALPN:               m.GetTlsOptions().GetAlpnProtocols(),
		AltPort:            uint16(min(m.GetAltPort().GetValue(), 65535)),
	}
	h.UnhealthyEdgeInterval = s.durationOr(p, "unhealthy_edge_interval", m.GetUnhealthyEdgeInterval(), h.UnhealthyInterval)
	h.HealthyEdgeInterval = s.duration(p, "healthy_edge_interval", m.GetHealthyEdgeInterval())
	switch x := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		h.HTTP = s.httpCheck(p.field("http_health_check"), x.HttpHealthCheck)
	case *corev3.HealthCheck_TcpHealthCheck_:
		h.TCP = s.tcpCheck(p.field("tcp_health_check"), x.TcpHealthCheck)
	case *corev3.HealthCheck_GrpcHealthCheck_:
		h.GRPC = s.grpcCheck(p.field("grpc_health_check"), x.GrpcHealthCheck)
	}
	return h
}

// grpcNeedsHTTP2 looks at checks over gRPC of a cluster that is spoken to in HTTP/1.1 alone. They could be made all the
// same, but Envoy refuses them: where the cluster speaks no HTTP/2, its hosts serve no gRPC.
func (s *scope) grpcNeedsHTTP2(p *at, c *mesh.Cluster) {
	for i := range c.HealthChecks {
		if c.HealthChecks[i].GRPC != nil && c.HTTP.Protocol == mesh.UpstreamHTTP1 {
			s.errorf(p.item("health_checks", i).field("grpc_health_check"), "the cluster must speak HTTP/2: add "+
				"explicit_http_config {http2_protocol_options {}} to its typed_extension_protocol_options")
		}
	}
}

func (s *scope) httpCheck(p *at, m *corev3.HealthCheck_HttpHealthCheck) *mesh.HTTPHealthCheck {
	h := &mesh.HTTPHealthCheck{
		Host:      m.GetHost(),
		Path:      m.GetPath(),
		Method:    "GET",
		Add:       s.checkHeaders(p, "request_headers_to_add", m.GetRequestHeadersToAdd()),
		Remove:    s.headersToRemove(p, "request_headers_to_remove", m.GetRequestHeadersToRemove()),
		Expected:  s.statusRanges(p, "expected_statuses", m.GetExpectedStatuses()),
		Retriable: s.statusRanges(p, "retriable_statuses", m.GetRetriableStatuses()),
	}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = m.GetMethod().String()
	}
	switch t := m.GetCodecClientType(); t {
	case typev3.CodecClientType_HTTP1:
	case typev3.CodecClientType_HTTP2:
		h.HTTP2 = true
	default:
		s.errorf(p.field("codec_client_type"), "%s is not supported; supported: HTTP1, HTTP2", t)
	}
	if n := m.GetServiceNameMatcher(); n != nil {
		sm := s.stringMatch(p.field("service_name_matcher"), n)
		h.ServiceName = &sm
	}
	return h
}

// checkHeaders reads what a check adds to its requests.
func (s *scope) checkHeaders(p *at, field string, list []*corev3.HeaderValueOption) []mesh.HeaderAdd {
	out := s.headersToAdd(p, field, list)
	for i, add := range out {
		if add.Literal == "" && len(add.Value) > 0 {
			s.errorf(p.item(field, i).field("header").field("value"), "a check has no request to make the value from: only "+
				"text without %%...%% operators is allowed, and %%%% for a percent sign")
		}
	}
	return out
}

func (s *scope) grpcCheck(p *at, m *corev3.HealthCheck_GrpcHealthCheck) *mesh.GRPCHealthCheck {
	return &mesh.GRPCHealthCheck{
		Service: m.GetServiceName(), Authority: m.GetAuthority(),
		Metadata: s.checkHeaders(p, "initial_metadata", m.GetInitialMetadata()),
	}
}

func (s *scope) statusRanges(p *at, field string, list []*typev3.Int64Range) []mesh.StatusRange {
	var out []mesh.StatusRange
	for i, r := range list {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			s.errorf(p.item(field, i), "must be a range with 100 <= start < end <= 600")
			continue
		}
		out = append(out, mesh.StatusRange{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	return out
}

func (s *scope) tcpCheck(p *at, m *corev3.HealthCheck_TcpHealthCheck) *mesh.TCPHealthCheck {
	t := &mesh.TCPHealthCheck{}
	if m.GetSend() != nil {
		t.Send = s.payload(p.field("send"), m.GetSend())
	}
	for i, r := range m.GetReceive() {
		t.Receive = append(t.Receive, s.payload(p.item("receive", i), r))
	}
	return t
}

func (s *scope) payload(p *at, m *corev3.HealthCheck_Payload) []byte {
	switch x := m.GetPayload().(type) {
	case *corev3.HealthCheck_Payload_Text:
		b, err := hex.DecodeString(x.Text)
		if err != nil {
			s.errorf(p.field("text"), "%q is not hexadecimal, such as 50494e47 for PING", x.Text)
		}
		return b
	case *corev3.HealthCheck_Payload_Binary:
		return append([]byte(nil), x.Binary...)
	}
	return nil
}

func addHealthCheckFields(t *protofields.Table) {
	t.Add(&corev3.HealthCheck{},
		protofields.Honour("name", "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent",
			"unhealthy_threshold", "healthy_threshold", "alt_port", "reuse_connection", "http_health_check",
			"tcp_health_check", "grpc_health_check", "no_traffic_interval", "unhealthy_interval", "unhealthy_edge_interval",
			"healthy_edge_interval", "tls_options"),
		protofields.Ignore("changes of health are events of the tap and lines of the log", "event_log_path",
			"event_logger", "always_log_health_check_failures", "always_log_health_check_success"),
		protofields.Ignore("a cluster has one transport socket", "transport_socket_match_criteria"),
		protofields.Observe("health check events are not sent to a service", "event_service"),
		protofields.Refuse("hosts without traffic are checked at no_traffic_interval, healthy or not",
			"no_traffic_healthy_interval"),
		protofields.Refuse("health check plug-ins are not supported; use http_health_check, grpc_health_check or tcp_health_check",
			"custom_health_check"))
	t.Add(&corev3.HealthCheck_HttpHealthCheck{},
		protofields.Honour("host", "path", "request_headers_to_add", "request_headers_to_remove", "expected_statuses",
			"retriable_statuses", "codec_client_type", "service_name_matcher", "method"),
		protofields.Ignore("the body of an answer is not looked at", "response_buffer_size"),
		protofields.Refuse("Envoy does not send a body either", "send={}"),
		protofields.Refuse("the body of an answer is not looked at", "receive"),
		protofields.Refuse("a check speaks what codec_client_type says; leave it out", "use_alpn_protocol=false"))
	t.Add(&corev3.HealthCheck_TlsOptions{}, protofields.Honour("alpn_protocols"))
	t.Add(&corev3.HealthCheck_GrpcHealthCheck{}, protofields.Honour("service_name", "authority", "initial_metadata"))
	t.Add(&corev3.HealthCheck_TcpHealthCheck{}, protofields.Honour("send", "receive"),
		protofields.Refuse("the PROXY protocol is not supported", "proxy_protocol_config"))
	t.Add(&corev3.HealthCheck_Payload{}, protofields.Honour("text", "binary"))
}
