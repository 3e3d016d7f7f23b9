// SPDX-License-Identifier: Apache-2.0

package grpcstats

import (
	"reflect"
	"slices"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func allow(services ...*corepb.GrpcMethodList_Service) *statspb.FilterConfig_IndividualMethodStatsAllowlist {
	return &statspb.FilterConfig_IndividualMethodStatsAllowlist{IndividualMethodStatsAllowlist: &corepb.GrpcMethodList{Services: services}}
}

func TestParse(t *testing.T) {
	t.Parallel()
	service := func(name string, methods ...string) *corepb.GrpcMethodList_Service {
		return &corepb.GrpcMethodList_Service{Name: name, MethodNames: methods}
	}
	none := map[string]map[string]bool{}
	for _, c := range []struct {
		name     string
		in       *statspb.FilterConfig
		want     Config
		noEffect []string
		refused  string
	}{
		{"empty", &statspb.FilterConfig{}, Config{Methods: none}, nil, ""},
		{
			"everything but a list", &statspb.FilterConfig{
				PerMethodStatSpecifier: &statspb.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(true)},
				EnableUpstreamStats:    true, ReplaceDotsInGrpcServiceName: true, EmitFilterState: true,
			}, Config{All: true, UpstreamTime: true, ReplaceDots: true, KeepMessages: true, Methods: none}, nil, "",
		},
		{
			"a list", &statspb.FilterConfig{PerMethodStatSpecifier: allow(service("a.B", "C", "D"), service("a.B", "E"), service("x", "y"))},
			Config{Methods: map[string]map[string]bool{"a.B": {"C": true, "D": true, "E": true}, "x": {"y": true}}}, nil, "",
		},
		{
			"no methods", &statspb.FilterConfig{PerMethodStatSpecifier: allow(service("a.B"))}, Config{}, nil,
			"individual_method_stats_allowlist.services[0].method_names: must have at least 1 item",
		},
		{
			"no name", &statspb.FilterConfig{PerMethodStatSpecifier: allow(service("a", "b"), service("", "C"))}, Config{}, nil,
			"individual_method_stats_allowlist.services[1].name: must not be empty",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := proto.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parse(typeURL, b)
			if c.refused != "" {
				if err == nil || err.Error() != c.refused {
					t.Errorf("refused with %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got.Config, c.want) || !slices.Equal(got.NoEffect, c.noEffect) {
				t.Errorf("%+v, %v, without effect %v", got.Config, err, got.NoEffect)
			}
		})
	}
}

// TestFields: every message that can be reached has rules, and what is not known is refused.
func TestFields(t *testing.T) {
	t.Parallel()
	if left := fields.Uncovered(&statspb.FilterConfig{}); len(left) > 0 {
		t.Errorf("no rules for %v", left)
	}
	if _, err := parse(typeURL, []byte{0xf8, 0x07, 1}); err == nil {
		t.Error("a field that nobody knows is taken")
	}
	if _, err := parse(typeURL, []byte{0xff}); err == nil {
		t.Error("what is no message is taken")
	}
}
