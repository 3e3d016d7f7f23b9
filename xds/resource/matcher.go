// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/mesh"
)

// regex compiles an anchored regular expression, as Envoy's full match is; nil after an error.
func (s *scope) regex(p *at, m *matcherv3.RegexMatcher) *regexp.Regexp {
	re, err := protomatch.Regex(m, s.d.opt.Limits.RegexProgram)
	return taken(s, p, re, err)
}

// taken returns what was read, and reports what is wrong with it.
func taken[T any](s *scope, p *at, v T, err error) T {
	if err != nil {
		s.extensionError(p, err)
	}
	return v
}

// rewrite reads a regex_rewrite and its like.
func (s *scope) rewrite(p *at, m *matcherv3.RegexMatchAndSubstitute) *mesh.RegexRewrite {
	re, err := protomatch.Compile(m.GetPattern(), s.d.opt.Limits.RegexProgram, "", "")
	if err != nil {
		s.extensionError(p.field("pattern"), err)
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
	out, err := protomatch.String(m, s.d.opt.Limits.RegexProgram)
	return taken(s, p, out, err)
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
	out, err := protomatch.Header(m, s.d.opt.Limits.RegexProgram)
	return taken(s, p, out, err)
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
	protomatch.AddFields(t)
	t.Add(&matcherv3.RegexMatchAndSubstitute{}, protofields.Honour("pattern", "substitution"))
	t.Add(&routev3.QueryParameterMatcher{}, protofields.Honour("name", "string_match", "present_match"))
	t.Add(&typev3.Int32Range{}, protofields.Honour("start", "end"))
	t.Add(&typev3.Percent{}, protofields.Honour("value"))
	t.Add(&corev3.RuntimeFractionalPercent{}, protofields.Honour("default_value", "runtime_key"))
}
