// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"os"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpcpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	tracingpb "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

const (
	typeHTTPService = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
	typeTCPService  = "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig"
)

// Envoy's defaults.
const (
	defaultFlushInterval = time.Second
	defaultBufferBytes   = 16 << 10
)

// serviceRows returns the loggers that send to access log services.
func serviceRows() []registry.Row[Builder] {
	row := func(name, typeURL string, parse registry.Parse) registry.Row[Builder] {
		return registry.Row[Builder]{
			Info: registry.Info{
				Category: registry.AccessLogger, Name: name, TypeURLs: []string{typeURL},
				Status: registry.Alpha, Posture: "data-plane-agnostic", Example: "als.yaml",
			},
			Parse: parse,
			Build: newService,
		}
	}
	return []registry.Row[Builder]{
		row("envoy.access_loggers.http_grpc", typeHTTPService, parseHTTPService),
		row("envoy.access_loggers.tcp_grpc", typeTCPService, parseTCPService),
	}
}

// serviceFields says which fields of the messages are honoured.
var serviceFields = func() *protofields.Table {
	const again = "a broken stream is opened again with growing pauses"
	t := protofields.New()
	t.Add(&grpcpb.HttpGrpcAccessLogConfig{}, protofields.Honour("common_config", "additional_request_headers_to_log",
		"additional_response_headers_to_log", "additional_response_trailers_to_log"))
	t.Add(&grpcpb.TcpGrpcAccessLogConfig{}, protofields.Honour("common_config"))
	t.Add(&grpcpb.CommonGrpcAccessLogConfig{},
		protofields.Honour("log_name", "grpc_service", "buffer_flush_interval", "buffer_size_bytes", "custom_tags"),
		protofields.Opaque("transport_api_version"),
		protofields.Ignore(again, "grpc_stream_retry_policy"),
		protofields.Refuse("there are no filter state objects", "filter_state_objects_to_log"))
	t.Add(&corepb.GrpcService{}, protofields.Honour("envoy_grpc", "google_grpc", "initial_metadata"),
		protofields.Ignore("the stream stays open, as in Envoy", "timeout=0s"),
		protofields.Ignore(again, "retry_policy"))
	t.Add(&corepb.GrpcService_EnvoyGrpc{}, protofields.Honour("cluster_name", "authority"),
		protofields.Ignore(again, "retry_policy"),
		protofields.Ignore("nothing that comes back is read", "max_receive_message_length"),
		protofields.Ignore("no x-envoy-* headers are sent", "skip_envoy_headers"))
	t.Add(&corepb.GrpcService_GoogleGrpc{}, protofields.Honour("target_uri"),
		protofields.Ignore("there are no statistics by gRPC client", "stat_prefix"),
		protofields.Ignore("gRPC's own limits apply", "per_stream_buffer_limit_bytes", "channel_args"),
		protofields.Refuse("credentials are not supported here; use envoy_grpc and a cluster with TLS", "channel_credentials",
			"channel_credentials_plugin", "call_credentials", "call_credentials_plugin", "credentials_factory_name", "config"))
	t.Add(&corepb.HeaderValue{}, protofields.Honour("key", "value"),
		protofields.Refuse("write the value as text", "raw_value"))
	t.Add(&tracingpb.CustomTag{}, protofields.Honour("tag", "literal", "environment", "request_header"),
		protofields.Refuse("there is no metadata", "metadata"),
		protofields.Refuse("formats are not supported; use literal, environment or request_header", "value"),
		protofields.Refuse("a tag is text", "value_type"))
	t.Add(&tracingpb.CustomTag_Literal{}, protofields.Honour("value"))
	t.Add(&tracingpb.CustomTag_Environment{}, protofields.Honour("name", "default_value"))
	t.Add(&tracingpb.CustomTag_Header{}, protofields.Honour("name", "default_value"))
	return t
}()

func parseHTTPService(_ string, b []byte) (registry.Parsed, error) {
	m := &grpcpb.HttpGrpcAccessLogConfig{}
	p, err := serviceFields.Decode(b, m)
	if err != nil {
		return p, err
	}
	c, err := commonService(als.HTTP, m.GetCommonConfig())
	c.Extra.RequestHeaders = lower(m.GetAdditionalRequestHeadersToLog())
	c.Extra.ResponseHeaders = lower(m.GetAdditionalResponseHeadersToLog())
	c.Extra.ResponseTrailers = lower(m.GetAdditionalResponseTrailersToLog())
	return finishService(p, c, err)
}

func parseTCPService(_ string, b []byte) (registry.Parsed, error) {
	m := &grpcpb.TcpGrpcAccessLogConfig{}
	p, err := serviceFields.Decode(b, m)
	if err != nil {
		return p, err
	}
	c, err := commonService(als.TCP, m.GetCommonConfig())
	return finishService(p, c, err)
}

func finishService(p registry.Parsed, c ServiceConfig, err error) (registry.Parsed, error) {
	if err != nil {
		return registry.Parsed{}, err
	}
	// The service's cluster is not waited for, as in Envoy: entries wait until there is one.
	p.Config = c
	return p, nil
}

func commonService(kind als.Kind, m *grpcpb.CommonGrpcAccessLogConfig) (c ServiceConfig, err error) {
	if v := m.GetTransportApiVersion(); v != corepb.ApiVersion_V3 && v != corepb.ApiVersion_AUTO {
		return c, registry.Errorf("common_config.transport_api_version", "%s is not supported; supported: V3", v)
	}
	c.Kind, c.LogName, c.FlushInterval, c.BufferBytes = kind, m.GetLogName(), defaultFlushInterval, defaultBufferBytes
	if d := m.GetBufferFlushInterval(); d != nil {
		c.FlushInterval = d.AsDuration()
	}
	if n := m.GetBufferSizeBytes(); n != nil {
		c.BufferBytes = int(n.GetValue())
	}
	g := m.GetGrpcService()
	c.Cluster, c.Address = g.GetEnvoyGrpc().GetClusterName(), g.GetGoogleGrpc().GetTargetUri()
	c.Authority = g.GetEnvoyGrpc().GetAuthority()
	for i, h := range g.GetInitialMetadata() {
		if strings.ContainsAny(h.GetKey()+h.GetValue(), "\r\n\x00") || strings.HasPrefix(h.GetKey(), ":") {
			return c, registry.Errorf(fmt.Sprintf("common_config.grpc_service.initial_metadata[%d]", i), "must be a header")
		}
		c.Metadata += strings.ToLower(h.GetKey()) + "\n" + h.GetValue() + "\n"
	}
	for _, t := range m.GetCustomTags() {
		c.Extra.Tags = append(c.Extra.Tags, customTag(t))
	}
	return c, nil
}

// customTag reads a tag. The environment does not change.
func customTag(m *tracingpb.CustomTag) als.Tag {
	t := als.Tag{Name: m.GetTag(), Value: m.GetLiteral().GetValue()}
	if e := m.GetEnvironment(); e != nil {
		var ok bool
		if t.Value, ok = os.LookupEnv(e.GetName()); !ok {
			t.Value = e.GetDefaultValue()
		}
	}
	if h := m.GetRequestHeader(); h != nil {
		t.Header, t.Value = strings.ToLower(h.GetName()), h.GetDefaultValue()
	}
	return t
}

func lower(names []string) (out []string) {
	for _, n := range names {
		out = append(out, strings.ToLower(n))
	}
	return out
}
