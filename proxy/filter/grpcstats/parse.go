// SPDX-License-Identifier: Apache-2.0

package grpcstats

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/proxy/filter"
)

const typeURL = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"

// Rows returns the filter for the table of extensions.
func Rows() []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.grpc_stats", TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "untrusted", Example: "grpc.yaml", ChainOnly: true,
		},
		Parse: parse,
		Build: New,
	}}
}

// fields says which fields of the message are honoured.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&statspb.FilterConfig{},
		protofields.Honour("stats_for_all_methods", "individual_method_stats_allowlist", "enable_upstream_stats",
			"replace_dots_in_grpc_service_name", "emit_filter_state"))
	t.Add(&corepb.GrpcMethodList{}, protofields.Honour("services"))
	t.Add(&corepb.GrpcMethodList_Service{}, protofields.Honour("name", "method_names"))
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	m := &statspb.FilterConfig{}
	p, err := fields.Decode(b, m)
	if err != nil {
		return p, err
	}
	c := Config{
		All: m.GetStatsForAllMethods().GetValue(), UpstreamTime: m.GetEnableUpstreamStats(),
		ReplaceDots: m.GetReplaceDotsInGrpcServiceName(), KeepMessages: m.GetEmitFilterState(),
		Methods: map[string]map[string]bool{},
	}
	for _, s := range m.GetIndividualMethodStatsAllowlist().GetServices() {
		if c.Methods[s.GetName()] == nil {
			c.Methods[s.GetName()] = map[string]bool{}
		}
		for _, name := range s.GetMethodNames() {
			c.Methods[s.GetName()][name] = true
		}
	}
	p.Config = c
	return p, nil
}
