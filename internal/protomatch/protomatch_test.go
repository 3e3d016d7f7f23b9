// SPDX-License-Identifier: Apache-2.0

package protomatch_test

import (
	"errors"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

func exact(s string, ignoreCase bool) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}, IgnoreCase: ignoreCase}
}

func regex(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: s}}}
}

func header(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

// Every kind of matcher is read by the scripts of xds/resource; here is what is left.
func TestStrings(t *testing.T) {
	t.Parallel()
	got, err := protomatch.Strings("f", []*matcherv3.StringMatcher{exact("A", true), regex("a+")}, protomatch.MaxProgram)
	if err != nil || len(got) != 2 || got[0] != (mesh.StringMatch{Value: "a", IgnoreCase: true}) || got[1].Kind != mesh.MatchRegex ||
		!got[1].Regex.MatchString("aa") || got[1].Regex.MatchString("aab") {
		t.Errorf("%+v, %v", got, err)
	}
	got2, err := protomatch.Headers("f", []*routev3.HeaderMatcher{header("X-A", exact("v", false))}, protomatch.MaxProgram)
	if err != nil || got2[0] != (mesh.HeaderMatch{Name: "x-a", String: mesh.StringMatch{Value: "v"}}) {
		t.Errorf("%+v, %v", got2, err)
	}
}

// TestErrors: each error has its own path, through every list.
func TestErrors(t *testing.T) {
	t.Parallel()
	both := regex("(")
	both.IgnoreCase = true
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{
			"a list of headers", func() error {
				_, err := protomatch.Headers("headers", []*routev3.HeaderMatcher{header("a", regex("(")), header("a", exact("v", false)), header("b", both)}, 100)
				return err
			}(), []string{"headers[0].string_match.safe_regex.regex", "headers[2].string_match.safe_regex.regex", "headers[2].string_match.ignore_case"},
		},
		{
			"too large", func() error {
				_, err := protomatch.Strings("s", []*matcherv3.StringMatcher{regex("a{50}")}, 10)
				return err
			}(), []string{"s[0].safe_regex.regex"},
		},
		{"no error", protomatch.Within("x", nil), nil},
		{"an error of another kind", protomatch.Within("x", errors.New("bad")), []string{"x"}},
		{"an error without a path", protomatch.Within("x", registry.Errorf("", "bad")), []string{"x"}},
	} {
		var got []string
		var collect func(error)
		collect = func(err error) {
			if list, ok := err.(interface{ Unwrap() []error }); ok {
				for _, e := range list.Unwrap() {
					collect(e)
				}
				return
			}
			var fe *registry.FieldError
			if errors.As(err, &fe) {
				got = append(got, fe.Path)
			}
		}
		collect(c.err)
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
}

func TestFraction(t *testing.T) {
	t.Parallel()
	for in, want := range map[*typev3.FractionalPercent]mesh.Fraction{
		nil:            {Denominator: 100},
		{Numerator: 5}: {Numerator: 5, Denominator: 100},
		{Numerator: 5, Denominator: typev3.FractionalPercent_TEN_THOUSAND}: {Numerator: 5, Denominator: 10_000},
		{Numerator: 5, Denominator: typev3.FractionalPercent_MILLION}:      {Numerator: 5, Denominator: 1_000_000},
	} {
		if got := *protomatch.Fraction(in); got != want {
			t.Errorf("%v: %v", in, got)
		}
	}
}

// TestFields: every message that can be reached has rules.
func TestFields(t *testing.T) {
	t.Parallel()
	table := protofields.New()
	protomatch.AddFields(table)
	if left := append(table.Uncovered(&routev3.HeaderMatcher{}), table.Uncovered(&typev3.FractionalPercent{})...); len(left) > 0 {
		t.Errorf("no rules for %v", left)
	}
}
