// SPDX-License-Identifier: Apache-2.0

package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	casev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

const routerType = "envoy.extensions.filters.http.router.v3.Router"

// httpFilters reads the filters in order. The last one, and only that, is the router.
func (s *scope) httpFilters(p *at, h *mesh.HTTPManager, list []*hcmv3.HttpFilter) {
	if len(list) == 0 {
		s.errorf(p.field("http_filters"), "must end with the router filter (%s)", routerType)
	}
	for i, f := range list {
		fp := p.item("http_filters", i)
		last := i == len(list)-1
		router := typeOf(f) == routerType
		switch {
		case router && !last:
			s.errorf(fp, "the router filter must be the last one")
		case router:
			s.router(fp, h, f)
		case last && f.GetConfigDiscovery() != nil:
			s.discoveredRouter(fp, h, f)
		default:
			s.httpFilter(fp, h, f)
			if last {
				s.errorf(p.field("http_filters"), "must end with the router filter (%s)", routerType)
			}
		}
	}
}

func typeOf(f *hcmv3.HttpFilter) string { return unwrap(f.GetTypedConfig()).name }

func (s *scope) httpFilter(p *at, h *mesh.HTTPManager, f *hcmv3.HttpFilter) {
	if f.GetConfigDiscovery() != nil {
		s.discovered(p, h, f)
		return
	}
	if info, known := s.d.opt.Parsers.Lookup(registry.HTTPFilter, typeOf(f)); known && !info.InChain(typeOf(f)) {
		s.errorf(p.field("typed_config"), "%s is for typed_per_filter_config; here it is %s", typeOf(f), info.TypeURLs[0])
		return
	}
	ext, ok := s.extension(p.field("typed_config"), registry.HTTPFilter, f.GetName(), f.GetTypedConfig(), f.GetIsOptional(), routerType)
	if !ok {
		return
	}
	ext.Disabled = f.GetDisabled()
	h.Filters = append(h.Filters, ext)
}

func (s *scope) router(p *at, h *mesh.HTTPManager, f *hcmv3.HttpFilter) {
	s.notDisabled(p, f)
	if r, ok := s.terminal(p.field("typed_config"), unwrap(f.GetTypedConfig())).(mesh.Router); ok {
		h.Router = r
	}
}

func (s *scope) notDisabled(p *at, f *hcmv3.HttpFilter) {
	if f.GetDisabled() {
		s.errorf(p.field("disabled"), "the router filter cannot be disabled")
	}
}

const badMessage = "a malformed HTTP/1 message always ends its connection"

func addHTTPFields(t *protofields.Table) {
	t.Add(&hcmv3.HttpConnectionManager{},
		protofields.Honour("codec_type", "stat_prefix", "rds", "route_config", "scoped_routes", "http_filters",
			"common_http_protocol_options", "http_protocol_options", "server_name", "server_header_transformation",
			"http2_protocol_options", "max_request_headers_kb", "stream_idle_timeout", "request_timeout", "request_headers_timeout",
			"drain_timeout", "delayed_close_timeout", "access_log", "use_remote_address", "xff_num_trusted_hops",
			"skip_xff_append", "via", "generate_request_id", "preserve_external_request_id",
			"always_set_request_id_in_response", "forward_client_cert_details", "proxy_100_continue", "upgrade_configs",
			"normalize_path", "merge_slashes", "path_with_escaped_slashes_action", "request_id_extension",
			"strip_matching_host_port", "strip_any_host_port",
			"strip_trailing_host_dot", "append_x_forwarded_port", "internal_address_config"),
		protofields.Ignore(badMessage, "stream_error_on_invalid_http_message"),
		protofields.Ignore("HTTP/3 is not spoken", "http3_protocol_options"),
		protofields.Ignore("stalled writes are bounded by the idle timeouts", "stream_flush_timeout"),
		protofields.Ignore("connections drain without jitter", "drain_timeout_jitter"),
		protofields.Ignore("a connection past its duration ends after the request in flight, with connection: close",
			"http1_safe_max_connection_duration"),
		protofields.Ignore("there are no client certificates without TLS", "set_current_client_cert_details"),
		protofields.Ignore("the PROXY protocol is not supported", "add_proxy_protocol_connection_state"),
		protofields.Ignore("statistics of route resolution are not kept", "record_route_resolution_stats"),
		protofields.Observe(noTracing, "tracing"),
		protofields.Observe("a request is logged when it ends",
			"access_log_flush_interval", "flush_access_log_on_new_request", "access_log_options={}"),
		protofields.Refuse("user-agent is left as it is", "add_user_agent=false"),
		protofields.Refuse("the scheme follows the connection", "scheme_header_transformation={}", "forward_proto_config"),
		protofields.Refuse("the client's address comes from the connection and x-forwarded-for",
			"original_ip_detection_extensions"),
		protofields.Refuse("header mutation before routing is not supported", "early_header_mutation_extensions"),
		protofields.Refuse("forward_client_cert_details holds for all requests alike", "forward_client_cert_matcher"),
		protofields.Refuse("an address keeps its family", "represent_ipv4_remote_address_as_ipv4_mapped_ipv6"),
		protofields.Refuse("local replies cannot be changed", "local_reply_config={}"),
		protofields.Refuse("use normalize_path and merge_slashes", "path_normalization_options"),
		protofields.Refuse("the proxy-status header is not supported", "proxy_status_config"),
		protofields.Refuse("headers are validated strictly", "typed_header_validation_config"),
		protofields.Refuse("x-envoy-local-overloaded is not supported", "append_local_overload"))
	t.Add(&hcmv3.HttpConnectionManager_InternalAddressConfig{}, protofields.Honour("cidr_ranges"),
		protofields.Refuse("clients on unix sockets are not told apart", "unix_sockets"))
	t.Add(&corev3.Http1ProtocolOptions_HeaderKeyFormat{}, protofields.Honour("stateful_formatter"),
		protofields.Refuse("header names go on as they came", "proper_case_words"))
	t.Add(&casev3.PreserveCaseFormatterConfig{},
		protofields.Ignore("the standard phrases are sent; nothing is to depend on them (RFC 9112 section 4)", "forward_reason_phrase"),
		protofields.Ignore("names of headers that are added have small letters", "formatter_type_on_envoy_headers"))
	t.Add(&hcmv3.HttpFilter{}, protofields.Honour("name", "typed_config", "is_optional", "disabled", "config_discovery"))
	t.Add(&hcmv3.Rds{}, protofields.Honour("config_source", "route_config_name"))
	t.Add(&hcmv3.HttpConnectionManager_UpgradeConfig{}, protofields.Honour("upgrade_type", "enabled"),
		protofields.Refuse("filters of their own for upgrades are not supported", "filters"))
	t.Add(&hcmv3.RequestIDExtension{}, protofields.Honour("typed_config"))
	t.Add(&uuidv3.UuidRequestIdConfig{},
		protofields.Ignore("the request id carries a trace reason", "pack_trace_reason=true"),
		protofields.Ignore(noTracing, "use_request_id_for_trace_sampling"))
	t.Add(&corev3.HttpProtocolOptions{},
		protofields.Honour("idle_timeout", "max_connection_duration", "max_headers_count", "max_response_headers_kb",
			"max_stream_duration", "headers_with_underscores_action", "max_requests_per_connection"),
		protofields.Ignore("connections end without jitter", "max_connection_duration_jitter"))
	t.Add(&corev3.Http1ProtocolOptions{},
		protofields.Honour("accept_http_10", "default_host_for_http_10", "enable_trailers",
			"header_key_format", "send_fully_qualified_url"),
		protofields.Ignore(badMessage, "override_stream_error_on_invalid_http_message"),
		protofields.Ignore("there is one parser", "use_balsa_parser"),
		protofields.Refuse("absolute URLs are always understood", "allow_absolute_url=true"),
		protofields.Refuse("Content-Length with Transfer-Encoding is an attack", "allow_chunked_length"),
		protofields.Refuse("methods are any token; leave it out", "allow_custom_methods"),
		protofields.Refuse("use upgrade_configs", "ignore_http_11_upgrade"))
	t.Add(&routerv3.Router{},
		protofields.Honour("suppress_envoy_headers"),
		protofields.Ignore("statistics are always kept", "dynamic_stats", "suppress_grpc_request_failure_code_stats"),
		protofields.Ignore(noTracing, "start_child_span"),
		protofields.Ignore("there is no early data", "reject_connect_request_early_data"),
		protofields.Observe("attempts are part of the access log of the request", "upstream_log", "upstream_log_options={}"),
		protofields.Refuse("x-envoy-* headers that cannot be read are ignored", "strict_check_headers"),
		protofields.Refuse("x-envoy-expected-rq-timeout-ms of a client is replaced", "respect_expected_rq_timeout"),
		protofields.Refuse("upstream filters are not supported", "upstream_http_filters"))
}
