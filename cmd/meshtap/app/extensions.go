// SPDX-License-Identifier: Apache-2.0

package app

import (
	"io"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/als"
	"github.com/meshtap/meshtap/eventtap/sink/file"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
	"github.com/meshtap/meshtap/eventtap/sink/stdout"
	"github.com/meshtap/meshtap/eventtap/sink/webhook"
	"github.com/meshtap/meshtap/eventtap/sink/zeromq"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/accesslog"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/filter/cors"
	"github.com/meshtap/meshtap/proxy/filter/fault"
	"github.com/meshtap/meshtap/proxy/filter/grpchttp1bridge"
	"github.com/meshtap/meshtap/proxy/filter/grpcstats"
	"github.com/meshtap/meshtap/proxy/filter/grpcweb"
	"github.com/meshtap/meshtap/proxy/filter/ondemand"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/layered"
)

// Extensions is THE table: every extension that this program knows, each row with the side that reads its configuration
// and the side that makes something of it. Nothing registers itself; what is not here does not exist, and a configuration
// that names it is refused with the list of what there is.
type Extensions struct {
	// Runtime holds the values of the keys that configurations name.
	Runtime         *layered.Runtime
	ListenerFilters []registry.Row[inspect.Build]
	HTTPFilters     []registry.Row[filter.Builder]
	Policies        []registry.Row[lb.Builder]
	AccessLogs      []registry.Row[accesslog.Builder]
	LogFilters      []registry.Row[struct{}]
	Sinks           []eventtap.SinkRow
	Tap             []registry.Row[eventtap.Builder]
	TapPolicies     []registry.Row[struct{}]
	// Inert are extensions of the bootstrap that are taken and change nothing.
	Inert []registry.Row[struct{}]
	// Core are those that are nouns of the configuration itself: xds/resource reads them, and the rooms of proxy are
	// built around them.
	Core []registry.Info
}

// NewExtensions returns the table. out is where events go that are to go to standard output.
func NewExtensions(out io.Writer) *Extensions {
	keys := layered.New()
	e := &Extensions{
		Runtime:         keys,
		ListenerFilters: inspect.Rows(),
		HTTPFilters:     httpFilters(keys),
		Policies:        lb.Rows(),
		AccessLogs:      accesslog.Rows(),
		LogFilters:      accesslog.FilterRows(),
		Inert:           bootstrap.InertRows(),
		Core:            core(),
	}
	e.Sinks = append(e.Sinks, stdout.Rows(out)...)
	e.Sinks = append(e.Sinks, file.Rows()...)
	e.Sinks = append(e.Sinks, nats.Rows()...)
	e.Sinks = append(e.Sinks, kafka.Rows()...)
	e.Sinks = append(e.Sinks, rabbitmq.Rows()...)
	e.Sinks = append(e.Sinks, zeromq.Rows()...)
	e.Sinks = append(e.Sinks, webhook.Rows()...)
	e.Sinks = append(e.Sinks, als.Rows()...)
	e.Tap, e.TapPolicies = eventtap.Rows(e.Sinks), eventtap.PolicyRows()
	return e
}

// httpFilters are those before the router, which is a Core row.
func httpFilters(keys mesh.Runtime) []registry.Row[filter.Builder] {
	rows := filter.InertRows()
	rows = append(rows, grpcstats.Rows()...)
	rows = append(rows, grpcweb.Rows()...)
	rows = append(rows, grpchttp1bridge.Rows()...)
	rows = append(rows, ondemand.Rows()...)
	rows = append(rows, cors.Rows(keys)...)
	return append(rows, fault.Rows(keys)...)
}

// Parsers returns the reading side of the table, for xds.
func (e *Extensions) Parsers() *registry.Parsers {
	p := registry.NewParsers()
	registry.AddAll(p, e.ListenerFilters)
	registry.AddAll(p, e.HTTPFilters)
	registry.AddAll(p, e.Policies)
	registry.AddAll(p, e.AccessLogs)
	registry.AddAll(p, e.LogFilters)
	registry.AddAll(p, e.Inert)
	registry.AddAll(p, e.Tap)
	registry.AddAll(p, e.TapPolicies)
	return p
}

// All returns what there is to say about every extension, for documents and /server_info.
func (e *Extensions) All() []registry.Info {
	var out []registry.Info
	out = append(out, e.Core...)
	out = appendInfos(out, e.ListenerFilters)
	out = appendInfos(out, e.HTTPFilters)
	out = appendInfos(out, e.Policies)
	out = appendInfos(out, e.AccessLogs)
	out = appendInfos(out, e.LogFilters)
	out = appendInfos(out, e.Inert)
	out = appendInfos(out, e.Tap)
	out = appendInfos(out, e.TapPolicies)
	return appendInfos(out, e.Sinks)
}

func appendInfos[B any](out []registry.Info, rows []registry.Row[B]) []registry.Info {
	for _, r := range rows {
		out = append(out, r.Info)
	}
	return out
}

func core() []registry.Info {
	row := func(c registry.Category, name, posture, example string, types ...string) registry.Info {
		return registry.Info{Category: c, Name: name, TypeURLs: types, Status: registry.Stable, Posture: posture, Example: example}
	}
	const any, both = "data-plane-agnostic", "untrusted"
	return []registry.Info{
		row(registry.NetworkFilter, "envoy.filters.network.http_connection_manager", both, "static.yaml", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
		row(registry.NetworkFilter, "envoy.filters.network.tcp_proxy", both, "tcp.yaml", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
		row(registry.HTTPFilter, "envoy.filters.http.router", both, "static.yaml", "envoy.extensions.filters.http.router.v3.Router"),
		row(registry.TransportSocket, "envoy.transport_sockets.raw_buffer", both, "static.yaml", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
		row(registry.UpstreamOptions, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", any, "static.yaml", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
		row(registry.RetryPredicate, "envoy.retry_host_predicates.previous_hosts", any, "retries.yaml", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
		row(registry.RequestID, "envoy.request_id.uuid", any, "static.yaml", "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"),
		row(registry.ClusterMetadata, "io.meshtap.breaker", any, "breaker.yaml", "meshtap.breaker.v1.Breaker"),
		row(registry.ClusterMetadata, "io.meshtap.endpoints", any, "xds-files.yaml", "meshtap.endpoints.v1.Endpoints"),
		row(registry.HTTPFilter, "io.meshtap.fallback", any, "breaker.yaml", "meshtap.fallback.v1.Fallback"),
	}
}
