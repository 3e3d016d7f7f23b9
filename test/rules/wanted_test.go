// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// wanted are the extensions that the control planes of today send, by the place where they stand: a bootstrap with %s for
// the type. Names without a slash before them go on after "envoy.extensions.".
var wanted = []struct {
	place, text, types string
}{
	{"listener filters", listenerWith(`listener_filters: [{name: x, typed_config: {"@type": %s}}], filter_chains: [` + tcpChain + `]`), `
		filters.listener.original_dst.v3.OriginalDst filters.listener.tls_inspector.v3.TlsInspector
		filters.listener.http_inspector.v3.HttpInspector`},
	{"network filters", listenerWith(`filter_chains: [{filters: [{name: x, typed_config: {"@type": %s}}, ` + tcpFilter + `]}]`), `
		filters.network.http_connection_manager.v3.HttpConnectionManager filters.network.tcp_proxy.v3.TcpProxy
		filters.network.rbac.v3.RBAC filters.network.connection_limit.v3.ConnectionLimit
		filters.network.sni_cluster.v3.SniCluster filters.network.set_filter_state.v3.Config
		filters.network.direct_response.v3.Config filters.network.echo.v3.Echo
		/envoy.tcp.metadataexchange.config.MetadataExchange /envoy.extensions.network_filters.peer_metadata.Config`},
	{"HTTP filters", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [{name: x, typed_config: {"@type": %s}}, `+router+`]`) + `]}]`), `
		filters.http.router.v3.Router filters.http.rbac.v3.RBAC filters.http.fault.v3.HTTPFault filters.http.cors.v3.Cors
		filters.http.grpc_stats.v3.FilterConfig /istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig
		/stats.PluginConfig /io.istio.http.peer_metadata.Config`},
	{"filters of a route", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [`+router+`], route_config: {typed_per_filter_config: {x: {"@type": %s}}}`) + `]}]`), `
		filters.http.rbac.v3.RBACPerRoute filters.http.cors.v3.CorsPolicy filters.http.fault.v3.HTTPFault`},
	{"request ids", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [`+router+`], request_id_extension: {typed_config: {"@type": %s}}`) + `]}]`), `
		request_id.uuid.v3.UuidRequestIdConfig`},
	{"header forms", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [`+router+`], http_protocol_options: {header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {"@type": %s}}}}`) + `]}]`), `
		http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig`},
	{"access logs", listenerWith(`access_log: [{name: x, typed_config: {"@type": %s}}], filter_chains: [` + tcpChain + `]`), `
		access_loggers.file.v3.FileAccessLog access_loggers.stream.v3.StdoutAccessLog access_loggers.stream.v3.StderrAccessLog
		access_loggers.grpc.v3.HttpGrpcAccessLogConfig access_loggers.grpc.v3.TcpGrpcAccessLogConfig`},
	{"transport sockets of listeners", listenerWith(`filter_chains: [{transport_socket: {name: x, typed_config: {"@type": %s}}, filters: [` + tcpFilter + `]}]`), `
		transport_sockets.tls.v3.DownstreamTlsContext transport_sockets.raw_buffer.v3.RawBuffer`},
	{"transport sockets of clusters", clusterWith(`transport_socket: {name: x, typed_config: {"@type": %s}}`), `
		transport_sockets.tls.v3.UpstreamTlsContext transport_sockets.raw_buffer.v3.RawBuffer`},
	{"protocol options", clusterWith(`typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": %s}}`), `
		upstreams.http.v3.HttpProtocolOptions upstreams.tcp.v3.TcpProtocolOptions`},
	{"load balancing", clusterWith(`load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {"@type": %s}}}]}`), `
		load_balancing_policies.least_request.v3.LeastRequest load_balancing_policies.round_robin.v3.RoundRobin
		load_balancing_policies.random.v3.Random load_balancing_policies.ring_hash.v3.RingHash
		load_balancing_policies.maglev.v3.Maglev load_balancing_policies.wrr_locality.v3.WrrLocality
		load_balancing_policies.cluster_provided.v3.ClusterProvided load_balancing_policies.override_host.v3.OverrideHost`},
	{"cluster types", clusterWith(`cluster_type: {name: x, typed_config: {"@type": %s}}`), `
		clusters.dns.v3.DnsCluster`},
	{"retry predicates", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [`+router+`], route_config: {virtual_hosts: [{name: a, domains: ["*"], retry_policy: {retry_host_predicate: [{name: x, typed_config: {"@type": %s}}]}}]}`) + `]}]`), `
		retry.host.previous_hosts.v3.PreviousHostsPredicate retry.host.omit_host_metadata.v3.OmitHostMetadataConfig`},
	// The field is refused whatever its type.
	{"retry_priority", listenerWith(`filter_chains: [{filters: [` + httpWith(`http_filters: [`+router+`], route_config: {virtual_hosts: [{name: a, domains: ["*"], retry_policy: {retry_priority: {name: x, typed_config: {"@type": %s}}}}]}`) + `]}]`), `
		retry.priority.previous_priorities.v3.PreviousPrioritiesConfig`},
	{"bootstrap extensions", `bootstrap_extensions: [{name: x, typed_config: {"@type": %s}}]`, `
		bootstrap.internal_listener.v3.InternalListener /istio.workload.BootstrapExtension`},
	{"regex engines", `default_regex_engine: {name: x, typed_config: {"@type": %s}}`, `regex_engines.v3.GoogleRE2`},
	{"resource monitors", `overload_manager: {resource_monitors: [{name: x, typed_config: {"@type": %s}}]}`, `
		resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig`},
}

const (
	ext       = "type.googleapis.com/envoy.extensions."
	tcpFilter = `{name: tcp, typed_config: {"@type": ` + ext + `filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}}`
	tcpChain  = `{filters: [` + tcpFilter + `]}`
	router    = `{name: router, typed_config: {"@type": ` + ext + `filters.http.router.v3.Router}}`
)

func listenerWith(rest string) string {
	return `static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, ` + rest + `}], clusters: [{name: a}]}`
}

func clusterWith(rest string) string {
	return `static_resources: {clusters: [{name: a, ` + rest + `}]}`
}

func httpWith(rest string) string {
	return `{name: http, typed_config: {"@type": ` + ext + `filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, ` + rest + `}}`
}

// TestWantedExtensions: each extension that control planes send is taken, and is in an example below configs/, or it is
// refused with its name.
func TestWantedExtensions(t *testing.T) {
	t.Parallel()
	examples, parsers := exampleText(t), app.NewExtensions(io.Discard).Parsers()
	for _, w := range wanted {
		for _, name := range strings.Fields(w.types) {
			full, whole := strings.CutPrefix(name, "/")
			if !whole {
				full = "envoy.extensions." + name
			}
			t.Run(w.place+"/"+full, func(t *testing.T) {
				t.Parallel()
				r := bootstrap.Validate(bootstrap.Options{YAML: fmt.Sprintf(w.text, "type.googleapis.com/"+full), Parsers: parsers})
				if !refuses(r, full) && !refuses(r, w.place) && !strings.Contains(examples, "type.googleapis.com/"+full) {
					t.Errorf("neither refused by its name nor in an example below configs/\n%s", r.Text())
				}
			})
		}
	}
}

// refuses reports whether an error names an extension that is not there.
func refuses(r bootstrap.Report, name string) bool {
	return slices.ContainsFunc(r.Issues, func(i bootstrap.Issue) bool {
		known := i.Message
		if at := strings.Index(known, "supported: "); at >= 0 {
			known = known[:at] // what follows is what there is
		}
		return i.Severity == bootstrap.SeverityError && strings.Contains(known, name)
	})
}

// exampleText is all that stands in the examples.
func exampleText(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, glob := range []string{"*.yaml", "*/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(root, "configs", glob))
		if err != nil || len(files) == 0 {
			t.Fatal("no examples", err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
	}
	return all.String()
}
