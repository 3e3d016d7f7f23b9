// SPDX-License-Identifier: Apache-2.0

// Package protomatch reads Envoy's matchers, of strings, of header fields and of shares of requests, into mesh's. It is for
// xds/resource and for the Parse of extensions, beside package protofields, whose table AddFields completes.
//
// Errors are *registry.FieldError, with paths relative to the matcher, or several joined.
package protomatch

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// MaxProgram is how large a regular expression may compile to that says nothing of it, in instructions.
const MaxProgram = 100

// Regex compiles an anchored regular expression, as Envoy's full match is; max bounds its program. nil comes with an error
// only.
func Regex(m *matcherv3.RegexMatcher, max int) (*regexp.Regexp, error) {
	return Compile(m, max, `\A(?:`, `)\z`)
}

// Compile compiles a regular expression between before and after. It checks the size of the program before that is built:
// the text may come from a tenant.
func Compile(m *matcherv3.RegexMatcher, max int, before, after string) (*regexp.Regexp, error) {
	if m.GetRegex() == "" {
		return nil, registry.Errorf("regex", "must not be empty")
	}
	parsed, err := syntax.Parse(m.GetRegex(), syntax.Perl)
	if err != nil {
		return nil, registry.Errorf("regex", "%s", regexText(err))
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, registry.Errorf("regex", "%s", regexText(err))
	}
	if own := m.GetGoogleRe2().GetMaxProgramSize(); own != nil {
		max = int(own.GetValue())
	}
	if n := len(prog.Inst); n > max {
		return nil, registry.Errorf("regex", "compiles to %d instructions, of which %d are allowed; raise the runtime key "+
			"re2.max_program_size.error_level to allow more", n, max)
	}
	re, err := regexp.Compile(before + m.GetRegex() + after)
	if err != nil {
		return nil, registry.Errorf("regex", "%s", regexText(err))
	}
	return re, nil
}

func regexText(err error) string {
	text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	if e, ok := err.(*syntax.Error); ok && e.Code == syntax.ErrInvalidPerlOp {
		text += " (the syntax is RE2's: no look-around, no back-references)"
	}
	return text
}

// String reads a string matcher; max bounds the program of a regular expression.
func String(m *matcherv3.StringMatcher, max int) (mesh.StringMatch, error) {
	out := mesh.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	var err error
	switch x := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		out.Kind, out.Value = mesh.MatchExact, x.Exact
	case *matcherv3.StringMatcher_Prefix:
		out.Kind, out.Value = mesh.MatchPrefix, x.Prefix
	case *matcherv3.StringMatcher_Suffix:
		out.Kind, out.Value = mesh.MatchSuffix, x.Suffix
	case *matcherv3.StringMatcher_Contains:
		out.Kind, out.Value = mesh.MatchContains, x.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		out.Kind = mesh.MatchRegex
		out.Regex, err = Regex(x.SafeRegex, max)
		err = Within("safe_regex", err)
		if out.IgnoreCase {
			err = errors.Join(err, registry.Errorf("ignore_case", "does nothing for safe_regex; write (?i) in the expression"))
		}
	}
	if out.IgnoreCase {
		out.Value = strings.ToLower(out.Value)
	}
	return out, err
}

// Strings reads a list of string matchers, that of the field.
func Strings(field string, list []*matcherv3.StringMatcher, max int) (out []mesh.StringMatch, err error) {
	for i, m := range list {
		one, e := String(m, max)
		out, err = append(out, one), errors.Join(err, Within(fmt.Sprintf("%s[%d]", field, i), e))
	}
	return out, err
}

// Header reads a matcher of a header field; max bounds the program of a regular expression.
func Header(m *routev3.HeaderMatcher, max int) (out mesh.HeaderMatch, err error) {
	out = mesh.HeaderMatch{
		Name:           strings.ToLower(m.GetName()),
		Invert:         m.GetInvertMatch(),
		MissingAsEmpty: m.GetTreatMissingHeaderAsEmpty(),
	}
	set := func(k mesh.StringMatchKind, v string) {
		out.String = mesh.StringMatch{Kind: k, Value: v}
	}
	switch x := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_ExactMatch:
		set(mesh.MatchExact, x.ExactMatch)
	case *routev3.HeaderMatcher_PrefixMatch:
		set(mesh.MatchPrefix, x.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		set(mesh.MatchSuffix, x.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		set(mesh.MatchContains, x.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.String.Kind = mesh.MatchRegex
		out.String.Regex, err = Regex(x.SafeRegexMatch, max)
		err = Within("safe_regex_match", err)
	case *routev3.HeaderMatcher_StringMatch:
		out.String, err = String(x.StringMatch, max)
		err = Within("string_match", err)
	case *routev3.HeaderMatcher_RangeMatch:
		out.Kind = mesh.HeaderRange
		out.RangeStart, out.RangeEnd = x.RangeMatch.GetStart(), x.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_PresentMatch:
		out.Kind, out.Present = mesh.HeaderPresent, x.PresentMatch
	default: // a matcher without a test asks for presence
		out.Kind, out.Present = mesh.HeaderPresent, true
	}
	return out, err
}

// Headers reads a list of matchers of header fields, that of the field.
func Headers(field string, list []*routev3.HeaderMatcher, max int) (out []mesh.HeaderMatch, err error) {
	for i, m := range list {
		one, e := Header(m, max)
		out, err = append(out, one), errors.Join(err, Within(fmt.Sprintf("%s[%d]", field, i), e))
	}
	return out, err
}

// Fraction reads a share of requests. A missing one is none of them.
func Fraction(f *typev3.FractionalPercent) *mesh.Fraction {
	den := uint32(100)
	switch f.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		den = 10_000
	case typev3.FractionalPercent_MILLION:
		den = 1_000_000
	}
	return &mesh.Fraction{Numerator: f.GetNumerator(), Denominator: den}
}

// Within puts a field in front of the paths of the errors of the message in it; nil stays nil.
func Within(field string, err error) error {
	if err == nil {
		return nil
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range list.Unwrap() {
			out = append(out, Within(field, e))
		}
		return errors.Join(out...)
	}
	var fe *registry.FieldError
	if !errors.As(err, &fe) {
		return registry.Errorf(field, "%v", err)
	}
	if fe.Path != "" {
		field += "." + fe.Path
	}
	return registry.Errorf(field, "%s", fe.Msg)
}

// AddFields states which parts of matchers are honoured.
func AddFields(t *protofields.Table) {
	t.Add(&matcherv3.StringMatcher{},
		protofields.Honour("exact", "prefix", "suffix", "safe_regex", "contains", "ignore_case"),
		protofields.Refuse("custom matchers are not supported", "custom"))
	t.Add(&matcherv3.RegexMatcher{}, protofields.Honour("google_re2", "regex"))
	t.Add(&matcherv3.RegexMatcher_GoogleRE2{}, protofields.Honour("max_program_size"))
	t.Add(&routev3.HeaderMatcher{}, protofields.Honour(
		"name", "exact_match", "safe_regex_match", "range_match", "present_match", "prefix_match", "suffix_match",
		"contains_match", "string_match", "invert_match", "treat_missing_header_as_empty"))
	t.Add(&typev3.Int64Range{}, protofields.Honour("start", "end"))
	t.Add(&typev3.FractionalPercent{}, protofields.Honour("numerator", "denominator"))
}
