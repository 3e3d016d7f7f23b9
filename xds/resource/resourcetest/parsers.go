// SPDX-License-Identifier: Apache-2.0

package resourcetest

import (
	"errors"

	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	internallistenerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/lb"
)

// Parsers returns extensions of every category. Those but load balancing policies only check that their message can be
// read; their configuration is the message's name.
func Parsers() *registry.Parsers {
	p := registry.NewParsers()
	registry.AddAll(p, lb.Rows())
	add := func(c registry.Category, name string, parse registry.Parse, messages ...proto.Message) {
		info := registry.Info{Category: c, Name: name, Status: registry.Stable}
		for _, m := range messages {
			info.TypeURLs = append(info.TypeURLs, string(m.ProtoReflect().Descriptor().FullName()))
		}
		p.Add(info, parse)
	}
	add(registry.ListenerFilter, "envoy.filters.listener.original_dst", plain(&originaldstv3.OriginalDst{}),
		&originaldstv3.OriginalDst{})
	add(registry.ListenerFilter, "envoy.filters.listener.tls_inspector", plain(&tlsinspectorv3.TlsInspector{}),
		&tlsinspectorv3.TlsInspector{})
	add(registry.NetworkFilter, "envoy.filters.network.connection_limit", plain(&limitv3.ConnectionLimit{}),
		&limitv3.ConnectionLimit{})
	add(registry.HTTPFilter, "envoy.filters.http.fault", fault, &faultv3.HTTPFault{})
	p.Add(registry.Info{
		Category: registry.HTTPFilter, Name: "envoy.filters.http.cors", Status: registry.Stable,
		TypeURLs:   []string{nameOf(&corsv3.Cors{}), nameOf(&corsv3.CorsPolicy{})},
		RouteTypes: []string{nameOf(&corsv3.CorsPolicy{})},
	}, plain(&corsv3.CorsPolicy{}))
	p.Add(registry.Info{
		Category: registry.HTTPFilter, Name: "envoy.filters.http.grpc_web", Status: registry.Stable, ChainOnly: true,
		TypeURLs: []string{string((&grpcwebv3.GrpcWeb{}).ProtoReflect().Descriptor().FullName())},
	}, plain(&grpcwebv3.GrpcWeb{}))
	add(registry.AccessLogger, "envoy.access_loggers.file", fileLog, &filelogv3.FileAccessLog{})
	add(registry.LogFilter, "envoy.access_loggers.extension_filters.cel", plain(&celv3.ExpressionFilter{}), &celv3.ExpressionFilter{})
	p.Add(registry.Info{
		Category: registry.Bootstrap, Name: "envoy.bootstrap.internal_listener", Status: registry.Inert,
		TypeURLs: []string{string((&internallistenerv3.InternalListener{}).ProtoReflect().Descriptor().FullName())},
	}, plain(&internallistenerv3.InternalListener{}))
	return p
}

func nameOf(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

func plain(m proto.Message) registry.Parse {
	return func(typeURL string, b []byte) (registry.Parsed, error) {
		if err := proto.Unmarshal(b, proto.Clone(m)); err != nil {
			return registry.Parsed{}, err
		}
		return registry.Parsed{Config: typeURL}, nil
	}
}

// fault names a cluster, a field without effect and errors, so that tests see where they go.
func fault(typeURL string, b []byte) (registry.Parsed, error) {
	m := &faultv3.HTTPFault{}
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	var errs []error
	if m.GetDelay().GetHeaderDelay() != nil {
		errs = append(errs, registry.Errorf("delay.header_delay", "is not supported; use fixed_delay"))
	}
	if m.GetAbort().GetHeaderAbort() != nil {
		errs = append(errs, registry.Errorf("abort.header_abort", "is not supported; use http_status"))
	}
	if err := errors.Join(errs...); err != nil {
		return registry.Parsed{}, err
	}
	out := registry.Parsed{Config: typeURL}
	if m.GetUpstreamCluster() != "" {
		out.Clusters = []string{m.GetUpstreamCluster()}
	}
	if m.GetDisableDownstreamClusterStats() {
		out.NoEffect = []string{"disable_downstream_cluster_stats"}
	}
	return out, nil
}

func fileLog(typeURL string, b []byte) (registry.Parsed, error) {
	m := &filelogv3.FileAccessLog{}
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	if m.GetPath() == "" {
		return registry.Parsed{}, registry.Errorf("path", "must not be empty")
	}
	return registry.Parsed{Config: typeURL + " " + m.GetPath()}, nil
}
