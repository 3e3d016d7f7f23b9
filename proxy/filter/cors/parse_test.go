// SPDX-License-Identifier: Apache-2.0

package cors

import (
	"reflect"
	"slices"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
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

func TestParse(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, c := range []struct {
		name     string
		in       *corspb.CorsPolicy
		want     *Policy
		noEffect []string
		refused  string
	}{
		{"empty", &corspb.CorsPolicy{}, &Policy{}, nil, ""},
		{
			"everything", &corspb.CorsPolicy{
				AllowOriginStringMatch: []*matcherpb.StringMatcher{{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: "https://"}}},
				AllowMethods:           "a", AllowHeaders: "b", ExposeHeaders: "c", MaxAge: "d",
				AllowCredentials: wrapperspb.Bool(true), AllowPrivateNetworkAccess: wrapperspb.Bool(false), ForwardNotMatchingPreflights: wrapperspb.Bool(false),
				FilterEnabled: &corepb.RuntimeFractionalPercent{DefaultValue: &typepb.FractionalPercent{Numerator: 5}, RuntimeKey: "key"},
				ShadowEnabled: &corepb.RuntimeFractionalPercent{DefaultValue: &typepb.FractionalPercent{Numerator: 1, Denominator: typepb.FractionalPercent_MILLION}},
			}, &Policy{
				Origins:      []mesh.StringMatch{{Kind: mesh.MatchPrefix, Value: "https://"}},
				AllowMethods: "a", AllowHeaders: "b", ExposeHeaders: "c", MaxAge: "d",
				Credentials: &yes, PrivateNetwork: &no, ForwardPreflights: &no,
				Enabled: &mesh.Fraction{Numerator: 5, Denominator: 100, Runtime: key("key")}, Shadow: &mesh.Fraction{Numerator: 1, Denominator: 1_000_000},
			}, nil, "",
		},
		{
			"a pattern", &corspb.CorsPolicy{AllowOriginStringMatch: []*matcherpb.StringMatcher{
				{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: "x"}},
				{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: "("}}},
			}}, nil, nil, "allow_origin_string_match[1].safe_regex.regex: missing closing ): `(`",
		},
		{
			"no default", &corspb.CorsPolicy{FilterEnabled: &corepb.RuntimeFractionalPercent{RuntimeKey: "key"}}, nil, nil,
			"filter_enabled.default_value: is required",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := proto.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parse(keys{}, policyType, b)
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
	if left := append(fields.Uncovered(&corspb.CorsPolicy{}), fields.Uncovered(&corspb.Cors{})...); len(left) > 0 {
		t.Errorf("no rules for %v", left)
	}
	if p, err := parse(keys{}, typeURL, nil); err != nil || p.Config != nil {
		t.Errorf("%+v, %v", p, err)
	}
	for _, of := range []string{typeURL, policyType} {
		if _, err := parse(keys{}, of, []byte{0xf8, 0x07, 1}); err == nil {
			t.Errorf("%s: a field that nobody knows is taken", of)
		}
	}
}
