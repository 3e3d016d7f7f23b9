// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	regexv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/regex_engines/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/xds/resource"
)

// Fields returns the table of the fields that a bootstrap may hold, for documents and for tests.
func Fields() *protofields.Table {
	t := resource.Fields()
	addFields(t)
	return t
}

func addFields(t *protofields.Table) {
	t.Add(&bootstrapv3.Bootstrap{},
		protofields.Honour("node", "static_resources", "dynamic_resources", "layered_runtime", "admin",
			"overload_manager", "bootstrap_extensions", "cluster_manager", "default_regex_engine",
			"typed_dns_resolver_config", "stats_config", "stats_flush_interval", "application_log_config"),
		protofields.Ignore("it is Envoy's own housekeeping", "flags_path", "watchdog", "watchdogs",
			"enable_dispatcher_stats", "memory_allocator_manager", "grpc_async_client_manager_config",
			"perf_tracing_file_path", "enable_worker_cpu_affinity", "fatal_actions",
			"default_socket_interface", "inline_headers"),
		protofields.Ignore("statistics are read, not pushed, and stay until what they count goes", "stats_flush_on_admin",
			"stats_eviction_interval", "deferred_stat_options"),
		protofields.Ignore("server.version is that of the build", "stats_server_version_override"),
		protofields.Refuse("use typed_dns_resolver_config", "use_tcp_for_dns_lookups", "dns_resolution_config"),
		protofields.Observe("statistics are not pushed to sinks", "stats_sinks"),
		protofields.Observe("tracing is not supported", "tracing"),
		protofields.Refuse("xdstp:// names are not supported", "node_context_params", "config_sources",
			"default_config_source"),
		protofields.Refuse("health discovery is not supported; use health_checks", "hds_config"),
		protofields.Refuse("headers begin with x-envoy-", "header_prefix"),
		protofields.Refuse("certificates come from files, inline or over SDS", "certificate_provider_instances"),
		protofields.Refuse("xDS plug-ins are not supported", "xds_delegate_extension", "xds_config_tracker_extension"))
	t.Add(&bootstrapv3.Bootstrap_StaticResources{}, protofields.Opaque("listeners", "clusters", "secrets"))
	t.Add(&bootstrapv3.Bootstrap_DynamicResources{}, protofields.Honour("lds_config", "cds_config", "ads_config"),
		protofields.Refuse("xdstp:// names are not supported", "lds_resources_locator", "cds_resources_locator"))
	t.Add(&bootstrapv3.Admin{}, protofields.Opaque("address"),
		protofields.Ignore("requests to the administration interface are not logged", "access_log",
			"access_log_path=/dev/null"),
		protofields.Ignore("profiles are answers of the administration interface", "profile_path"),
		protofields.Ignore("the administration interface has descriptors of its own", "ignore_global_conn_limit"),
		protofields.Refuse("socket options are not supported", "socket_options"),
		protofields.Refuse("paths cannot be left out", "allow_paths"))
	t.Add(&bootstrapv3.ClusterManager{},
		protofields.Ignore("ejections are events of the tap and lines of the log", "outlier_detection"),
		protofields.Ignore("clusters are made when they come", "enable_deferred_cluster_creation"),
		protofields.Observe("load reports are not sent", "load_stats_config"),
		protofields.Refuse("zone aware load balancing is not supported", "local_cluster_name"),
		protofields.Refuse("set it on each cluster", "upstream_bind_config={}"))
	t.Add(&bootstrapv3.LayeredRuntime{}, protofields.Honour("layers"))
	t.Add(&bootstrapv3.RuntimeLayer{}, protofields.Honour("name", "static_layer", "disk_layer", "admin_layer", "rtds_layer"))
	t.Add(&bootstrapv3.RuntimeLayer_DiskLayer{}, protofields.Honour("symlink_root", "subdirectory", "append_service_cluster"))
	t.Add(&bootstrapv3.RuntimeLayer_AdminLayer{})
	t.Add(&bootstrapv3.RuntimeLayer_RtdsLayer{}, protofields.Honour("name", "rtds_config"))
	addNodeFields(t)
	addStatsFields(t)
	addLogFields(t)
	t.Add(&regexv3.GoogleRE2{})
	t.Add(&overloadv3.OverloadManager{}, protofields.Honour("resource_monitors"),
		protofields.Ignore("connections are counted as they come", "refresh_interval"),
		protofields.Refuse("Meshtap bounds connections, streams, heads and bodies each by a limit of its own (docs/defaults.md)", "actions",
			"loadshed_points", "buffer_factory_config"))
	t.Add(&overloadv3.ResourceMonitor{}, protofields.Honour("name", "typed_config"))
	t.Add(&connectionsv3.DownstreamConnectionsConfig{}, protofields.Honour("max_active_downstream_connections"))
}

func addNodeFields(t *protofields.Table) {
	t.Add(&corev3.Node{},
		protofields.Honour("id", "cluster", "metadata", "locality", "user_agent_name", "user_agent_version",
			"user_agent_build_version", "client_features", "listening_addresses", "extensions"),
		protofields.Refuse("xdstp:// names are not supported", "dynamic_parameters"))
	t.Add(&corev3.BuildVersion{}, protofields.Opaque("version", "metadata"))
	t.Add(&corev3.Extension{}, protofields.Opaque("name", "category", "type_descriptor", "version", "disabled", "type_urls"))
}
