// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/mesh"
)

// keys gives runtime keys that are their names.
type keys struct{}

func (keys) Key(name string) mesh.RuntimeKey { return key(name) }

type key string

func (key) Fraction(n, d uint32) (uint32, uint32) { return n, d }
func (key) Integer(otherwise uint64) uint64       { return otherwise }
func (key) Double(otherwise float64) float64      { return otherwise }
func (key) Bool(otherwise bool) bool              { return otherwise }

// share7 is 7 of 10,000, by a runtime key.
func share7(name, header string) Share {
	return Share{mesh.Fraction{Numerator: 7, Denominator: 10_000, Runtime: key(name)}, header}
}

// none is a share of nothing.
func none(name, header string) Share {
	return Share{mesh.Fraction{Denominator: 100, Runtime: key(name)}, header}
}

func TestParse(t *testing.T) {
	t.Parallel()
	percent := &typepb.FractionalPercent{Numerator: 7, Denominator: typepb.FractionalPercent_TEN_THOUSAND}
	const (
		most, duration, status, grpc key = "fault.http.max_active_faults", "fault.http.delay.fixed_duration_ms", "fault.http.abort.http_status", "fault.http.abort.grpc_status"
		delays, aborts, limits           = "fault.http.delay.fixed_delay_percent", "fault.http.abort.abort_percent", "fault.http.rate_limit.response_percent"
	)
	for _, c := range []struct {
		name     string
		in       *faultpb.HTTPFault
		want     *Config
		noEffect []string
		refused  string
	}{
		{"empty", &faultpb.HTTPFault{}, &Config{MaxActive: math.MaxUint64, MaxActiveKey: most}, nil, ""},
		{
			"fixed", &faultpb.HTTPFault{
				Delay: &commonpb.FaultDelay{
					FaultDelaySecifier: &commonpb.FaultDelay_FixedDelay{FixedDelay: durationpb.New(1500 * time.Microsecond)}, Percentage: percent,
				},
				Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_HttpStatus{HttpStatus: 503}, Percentage: percent},
				ResponseRateLimit: &commonpb.FaultRateLimit{
					LimitType: &commonpb.FaultRateLimit_FixedLimit_{FixedLimit: &commonpb.FaultRateLimit_FixedLimit{LimitKbps: 1 << 60}}, Percentage: percent,
				},
				UpstreamCluster: "c", DownstreamNodes: []string{"n", "m"}, MaxActiveFaults: wrapperspb.UInt32(0), DisableDownstreamClusterStats: true,
				Headers: []*routepb.HeaderMatcher{{Name: "X-A", HeaderMatchSpecifier: &routepb.HeaderMatcher_PresentMatch{PresentMatch: true}}},
			}, &Config{
				Delay: &Delay{Share: share7(delays, ""), Millis: 1, Key: duration},
				Abort: &Abort{Share: share7(aborts, ""), Status: 503, Body: "fault filter abort", StatusKey: status, GRPCKey: grpc},
				Limit: &Limit{Share: share7(limits, ""), KiB: mostKiB}, MaxActiveKey: most,
				Cluster: "c", Nodes: map[string]bool{"n": true, "m": true}, NoPeers: true,
				Headers: []mesh.HeaderMatch{{Name: "x-a", Kind: mesh.HeaderPresent, Present: true}},
			}, nil, "",
		},
		{
			"by headers", &faultpb.HTTPFault{
				Delay: &commonpb.FaultDelay{FaultDelaySecifier: &commonpb.FaultDelay_HeaderDelay_{}, Percentage: percent},
				Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_HeaderAbort_{}, Percentage: percent, ResponseBody: "x"},
				ResponseRateLimit: &commonpb.FaultRateLimit{
					LimitType: &commonpb.FaultRateLimit_HeaderLimit_{HeaderLimit: &commonpb.FaultRateLimit_HeaderLimit{}},
				},
				AbortPercentRuntime: "key",
			}, &Config{
				Delay:     &Delay{Share: share7(delays, hdrDelayPercent), Header: true, Key: duration},
				Abort:     &Abort{Share: share7("key", hdrAbortPercent), Header: true, Body: "x", StatusKey: status, GRPCKey: grpc},
				Limit:     &Limit{Share: none(limits, hdrLimitPercent), Header: true},
				MaxActive: math.MaxUint64, MaxActiveKey: most,
			}, nil, "",
		},
		{
			"a grpc-status", &faultpb.HTTPFault{Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_GrpcStatus{GrpcStatus: 14}}},
			&Config{Abort: &Abort{Share: none(aborts, ""), GRPC: 14, Body: "fault filter abort", StatusKey: status, GRPCKey: grpc}, MaxActive: math.MaxUint64, MaxActiveKey: most}, nil, "",
		},
		{
			"a status that is none", &faultpb.HTTPFault{Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_HttpStatus{HttpStatus: 600}}},
			nil, nil, "abort.http_status: must be at least 200 and less than 600",
		},
		{
			"an abort with nothing", &faultpb.HTTPFault{Abort: &faultpb.FaultAbort{}}, nil, nil,
			"abort: one of http_status, grpc_status, header_abort is required",
		},
		{
			"a limit of nothing", &faultpb.HTTPFault{ResponseRateLimit: &commonpb.FaultRateLimit{
				LimitType: &commonpb.FaultRateLimit_FixedLimit_{FixedLimit: &commonpb.FaultRateLimit_FixedLimit{}},
			}}, nil, nil, "response_rate_limit.fixed_limit.limit_kbps: must be at least 1",
		},
		{
			"metadata", &faultpb.HTTPFault{FilterMetadata: &structpb.Struct{}}, nil, nil, "filter_metadata: dynamic metadata is not kept",
		},
		{
			"a header's pattern", &faultpb.HTTPFault{Headers: []*routepb.HeaderMatcher{{Name: "a", HeaderMatchSpecifier: &routepb.HeaderMatcher_StringMatch{
				StringMatch: &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: "("}}},
			}}}}, nil, nil, "headers[0].string_match.safe_regex.regex: missing closing ): `(`",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := proto.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := (parser{keys{}}).parse(b)
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
	if left := fields.Uncovered(&faultpb.HTTPFault{}); len(left) > 0 {
		t.Errorf("no rules for %v", left)
	}
	if _, err := (parser{keys{}}).parse([]byte{0xf8, 0x7f, 1}); err == nil {
		t.Error("a field that nobody knows is taken")
	}
}
