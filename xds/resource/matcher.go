// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"regexp"
	"regexp/syntax"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// regex compiles an anchored regular expression, as Envoy's full match is; nil after an error.
func (s *scope) regex(p *at, m *matcherv3.RegexMatcher) *regexp.Regexp {
	return s.compile(p, m, `\A(?:`, `)\z`)
}

// compile checks the size of the compiled program before it is built: the text may come from a tenant.
func (s *scope) compile(p *at, m *matcherv3.RegexMatcher, before, after string) *regexp.Regexp {
	if m.GetRegex() == "" {
		s.errorf(p.field("regex"), "must not be empty")
		return nil
	}
	parsed, err := syntax.Parse(m.GetRegex(), syntax.Perl)
	if err != nil {
		s.errorf(p.field("regex"), "%s", regexText(err))
		return nil
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		s.errorf(p.field("regex"), "%s", regexText(err))
		return nil
	}
	max := s.d.opt.Limits.RegexProgram
	if own := m.GetGoogleRe2().GetMaxProgramSize(); own != nil {
		max = int(own.GetValue())
	}
	if n := len(prog.Inst); n > max {
		s.errorf(p.field("regex"), "compiles to %d instructions, of which %d are allowed; raise the runtime key "+
			"re2.max_program_size.error_level to allow more", n, max)
		return nil
	}
	re, err := regexp.Compile(before + m.GetRegex() + after)
	if err != nil {
		s.errorf(p.field("regex"), "%s", regexText(err))
		return nil
	}
	return re
}

func regexText(err error) string {
	text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	if e, ok := err.(*syntax.Error); ok && e.Code == syntax.ErrInvalidPerlOp {
		text += " (the syntax is RE2's: no look-around, no back-references)"
	}
	return text
}

// rewrite reads a regex_rewrite and its like.
func (s *scope) rewrite(p *at, m *matcherv3.RegexMatchAndSubstitute) *mesh.RegexRewrite {
	re := s.compile(p.field("pattern"), m.GetPattern(), "", "")
	if re == nil {
		return nil
	}
	sub := m.GetSubstitution()
	for i := 0; i < len(sub); i++ {
		if sub[i] != '\\' {
			continue
		}
		i++
		switch {
		case i < len(sub) && sub[i] == '\\':
		case i < len(sub) && sub[i] >= '0' && sub[i] <= '9':
			if group := int(sub[i] - '0'); group > re.NumSubexp() {
				s.errorf(p.field("substitution"), `\%d: the pattern has %d groups`, group, re.NumSubexp())
				return nil
			}
		default:
			s.errorf(p.field("substitution"), `a backslash must be followed by a digit or a backslash`)
			return nil
		}
	}
	return &mesh.RegexRewrite{Pattern: re, Substitution: sub}
}

func (s *scope) stringMatch(p *at, m *matcherv3.StringMatcher) mesh.StringMatch {
	out := mesh.StringMatch{IgnoreCase: m.GetIgnoreCase()}
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
		out.Kind, out.Regex = mesh.MatchRegex, s.regex(p.field("safe_regex"), x.SafeRegex)
		if out.IgnoreCase {
			s.errorf(p.field("ignore_case"), "does nothing for safe_regex; write (?i) in the expression")
		}
	}
	if out.IgnoreCase {
		out.Value = strings.ToLower(out.Value)
	}
	return out
}

func (s *scope) headerMatches(p *at, field string, list []*routev3.HeaderMatcher) []mesh.HeaderMatch {
	if len(list) == 0 {
		return nil
	}
	out := make([]mesh.HeaderMatch, 0, len(list))
	for i, m := range list {
		out = append(out, s.headerMatch(p.item(field, i), m))
	}
	return out
}

func (s *scope) headerMatch(p *at, m *routev3.HeaderMatcher) mesh.HeaderMatch {
	out := mesh.HeaderMatch{
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
		out.String = mesh.StringMatch{
			Kind: mesh.MatchRegex, Regex: s.regex(p.field("safe_regex_match"), x.SafeRegexMatch),
		}
	case *routev3.HeaderMatcher_StringMatch:
		out.String = s.stringMatch(p.field("string_match"), x.StringMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		out.Kind = mesh.HeaderRange
		out.RangeStart, out.RangeEnd = x.RangeMatch.GetStart(), x.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_PresentMatch:
		out.Kind, out.Present = mesh.HeaderPresent, x.PresentMatch
	default: // a matcher without a test asks for presence
		out.Kind, out.Present = mesh.HeaderPresent, true
	}
	return out
}

func (s *scope) queryMatches(p *at, list []*routev3.QueryParameterMatcher) []mesh.QueryMatch {
	var out []mesh.QueryMatch
	for i, m := range list {
		q := mesh.QueryMatch{Name: m.GetName()}
		switch x := m.GetQueryParameterMatchSpecifier().(type) {
		case *routev3.QueryParameterMatcher_StringMatch:
			sm := s.stringMatch(p.item("query_parameters", i).field("string_match"), x.StringMatch)
			q.String = &sm
		case *routev3.QueryParameterMatcher_PresentMatch:
			q.Present = x.PresentMatch
		default:
			q.Present = true
		}
		out = append(out, q)
	}
	return out
}

// addMatchFields states which matchers are honoured.
func addMatchFields(t *protofields.Table) {
	t.Add(&matcherv3.StringMatcher{},
		protofields.Honour("exact", "prefix", "suffix", "safe_regex", "contains", "ignore_case"),
		protofields.Refuse("custom matchers are not supported", "custom"))
	t.Add(&matcherv3.RegexMatcher{}, protofields.Honour("google_re2", "regex"))
	t.Add(&matcherv3.RegexMatcher_GoogleRE2{}, protofields.Honour("max_program_size"))
	t.Add(&matcherv3.RegexMatchAndSubstitute{}, protofields.Honour("pattern", "substitution"))
	t.Add(&routev3.HeaderMatcher{}, protofields.Honour(
		"name", "exact_match", "safe_regex_match", "range_match", "present_match", "prefix_match", "suffix_match",
		"contains_match", "string_match", "invert_match", "treat_missing_header_as_empty"))
	t.Add(&routev3.QueryParameterMatcher{}, protofields.Honour("name", "string_match", "present_match"))
	t.Add(&typev3.Int64Range{}, protofields.Honour("start", "end"))
	t.Add(&typev3.Int32Range{}, protofields.Honour("start", "end"))
	t.Add(&typev3.Percent{}, protofields.Honour("value"))
	t.Add(&typev3.FractionalPercent{}, protofields.Honour("numerator", "denominator"))
	t.Add(&corev3.RuntimeFractionalPercent{}, protofields.Honour("default_value"),
		protofields.Ignore(noRuntime, "runtime_key"))
}
