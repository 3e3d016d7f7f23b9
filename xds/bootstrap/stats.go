// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/xds/resource"
)

// maxStatsRegex bounds the expressions of stats_config, in instructions. They are of the operator, and istiod's are larger
// than what a tenant may write.
const maxStatsRegex = 1000

// defaultTags are Envoy's expressions for the tags of what is counted here, for stats_tags that only name one.
var defaultTags = map[string]string{
	"envoy.cluster_name":             `^cluster\.((.*?)\.)`,
	"envoy.http_conn_manager_prefix": `^(?:|listener\..*?\.)http\.((.*?)\.)`,
	"envoy.listener_address":         `^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`,
	"envoy.tcp_prefix":               `^tcp\.((.*?)\.)\w+?$`,
	"envoy.response_code":            `_rq(_(\d{3}))$`,
	"envoy.response_code_class":      `_rq_((\d))xx$`,
	"envoy.ssl_cipher":               `^listener\..*?\.ssl\.cipher(\.(.*?))$`,
	"envoy.ssl_cipher_suite":         `^cluster\..*?\.ssl\.ciphers(\.(.*?))$`,
	"envoy.ssl_curve":                `\.ssl\.curves(\.(.*?))$`,
	"envoy.ssl_version":              `\.ssl\.versions(\.(.*?))$`,
	"envoy.grpc_bridge_service":      `^cluster\..*?\.grpc\.((.*)\.)`,
	"envoy.grpc_bridge_method":       `^cluster\..*?\.grpc\..*\.((.*?)\.)`,
	"envoy.fault_downstream_cluster": `^http\..*?\.fault\.((.*?)\.)`,
}

// naming reads how statistics are named; nil where nothing is said. fixed are the tags of the command line.
func naming(s *resource.Scope, m *metricsv3.StatsConfig, fixed []stats.Tag) *stats.Naming {
	if m == nil && len(fixed) == 0 {
		return nil
	}
	n := &stats.Naming{Fixed: slices.Clone(fixed), NoDefaults: m.GetUseAllDefaultTags() != nil && !m.GetUseAllDefaultTags().GetValue()}
	for i, t := range m.GetStatsTags() {
		path := fmt.Sprintf("stats_config.stats_tags[%d]", i)
		if t.GetTagName() == "" {
			s.Fail(path+".tag_name", "must not be empty")
		}
		if v, fixed := t.GetTagValue().(*metricsv3.TagSpecifier_FixedValue); fixed {
			n.Fixed = append(n.Fixed, stats.Tag{Name: t.GetTagName(), Value: v.FixedValue})
			continue
		}
		if re := tagRegex(s, path, t, n.NoDefaults); re != nil {
			n.Tags = append(n.Tags, stats.TagRule{Name: t.GetTagName(), Regex: re})
		}
	}
	n.Keep = matcher(s, m.GetStatsMatcher())
	for i, b := range m.GetHistogramBucketSettings() {
		path := fmt.Sprintf("stats_config.histogram_bucket_settings[%d]", i)
		if match := name(s, path+".match", b.GetMatch()); match != nil {
			n.Buckets = append(n.Buckets, stats.BucketRule{Match: match, Bounds: slices.Sorted(slices.Values(b.GetBuckets()))})
		}
	}
	return n
}

// tagRegex returns the expression of a tag, nil where there is nothing to do or it is wrong.
func tagRegex(s *resource.Scope, path string, t *metricsv3.TagSpecifier, alone bool) *regexp.Regexp {
	expr := t.GetRegex()
	if expr == "" {
		def, known := defaultTags[t.GetTagName()]
		switch {
		case !alone: // it is there with all the others
			return nil
		case !known && strings.HasPrefix(t.GetTagName(), "envoy."):
			s.Note(path, "no effect: nothing is counted here that has this tag of Envoy's")
			return nil
		case !known:
			s.Fail(path, "needs a regex or a fixed_value: "+t.GetTagName()+" is none of Envoy's own tags")
			return nil
		}
		return regexp.MustCompile(def)
	}
	re, err := TagRegex(expr)
	if err != nil {
		s.Fail(path+".regex", err.Error())
	}
	return re
}

// lookahead begins a test of what follows, dot is the one of istiod's expressions.
const (
	lookahead = `(?=`
	dot       = `(?=\.)`
)

// TagRegex compiles the regular expression of a tag. Envoy's are ECMAScript's; what RE2 cannot do is refused by name, but
// for a look-ahead at the end, and one at a dot: they become what they look at where that stays outside of the groups.
func TagRegex(expr string) (*regexp.Regexp, error) {
	text := expr
	for at := looks(text); at >= 0; at = looks(text) {
		end := closes(text, at)
		if end < 0 {
			break // it is no regular expression
		}
		ahead, rest := text[at:end], text[end:]
		closing := len(rest) - len(strings.TrimLeft(rest, ")"))
		tail := rest[closing:]
		switch {
		case tail == "" || strings.HasPrefix(tail, "|") && depth(text[:at]) == closing:
			tail = "(?:" + ahead[len(lookahead):] + tail
		case ahead == dot && strings.HasPrefix(tail, `\.`) && !quantified(tail[2:]):
		case ahead == dot && strings.HasPrefix(tail, `.*?\.`) && !quantified(tail[5:]):
			tail = `\.(?:.*?\.)??` + tail[5:]
		case ahead == dot && strings.HasPrefix(tail, `.*\.`) && !quantified(tail[4:]):
			tail = `\.(?:.*\.)?` + tail[4:]
		default:
			return nil, fmt.Errorf("has the look-ahead %s before %q, which cannot be rewritten here; write what is to follow", ahead, tail)
		}
		text = text[:at] + rest[:closing] + tail
	}
	for _, x := range []struct{ syntax, name string }{
		{"(?!", "negative look-ahead"}, {"(?<=", "look-behind"}, {"(?<!", "negative look-behind"},
	} {
		if strings.Contains(text, x.syntax) {
			return nil, fmt.Errorf("has %s, %s, which RE2 does not have", x.syntax, x.name)
		}
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	var e *syntax.Error
	switch {
	case errors.As(err, &e) && e.Code == syntax.ErrInvalidEscape && len(e.Expr) == 2 && e.Expr[1] >= '1' && e.Expr[1] <= '9':
		return nil, fmt.Errorf("has the back-reference %s, which RE2 does not have", e.Expr)
	case errors.As(err, &e):
		return nil, fmt.Errorf("is no regular expression: %s: %s", e.Code, e.Expr)
	case err != nil:
		return nil, fmt.Errorf("is no regular expression: %w", err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(prog.Inst) > maxStatsRegex {
		return nil, fmt.Errorf("compiles to more than the %d instructions allowed", maxStatsRegex)
	}
	return regexp.Compile(text)
}

// quantified reports whether a text begins with a quantifier of what is before it.
func quantified(s string) bool { return s != "" && strings.IndexByte("*+?{", s[0]) >= 0 }

// depth counts the groups that are open at the end of an expression.
func depth(expr string) (n int) {
	for _, d := range groups(expr) {
		n += d
	}
	return n
}

// looks returns the index of the first look-ahead, -1 where there is none.
func looks(expr string) int {
	for i := range groups(expr) {
		if strings.HasPrefix(expr[i:], lookahead) {
			return i
		}
	}
	return -1
}

// closes returns the index behind the group that begins at an index, -1 where it does not end.
func closes(expr string, at int) int {
	n := 0
	for i, d := range groups(expr[at:]) {
		if n += d; n == 0 {
			return at + i + 1
		}
	}
	return -1
}

// groups yields the places where groups begin (1) and end (-1).
func groups(expr string) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		class := false
		for i := 0; i < len(expr); i++ {
			d := 0
			switch c := expr[i]; {
			case c == '\\':
				i++
			case class:
				class = c != ']'
			case c == '[':
				class = true
			case c == '(':
				d = 1
			case c == ')':
				d = -1
			}
			if d != 0 && !yield(i, d) {
				return
			}
		}
	}
}

// matcher returns what says which statistics are shown; nil where all are.
func matcher(s *resource.Scope, m *metricsv3.StatsMatcher) func(string) bool {
	const path = "stats_config.stats_matcher."
	switch x := m.GetStatsMatcher().(type) {
	case *metricsv3.StatsMatcher_RejectAll:
		return func(string) bool { return !x.RejectAll }
	case *metricsv3.StatsMatcher_InclusionList:
		return anyName(s, path+"inclusion_list", x.InclusionList)
	case *metricsv3.StatsMatcher_ExclusionList:
		excluded := anyName(s, path+"exclusion_list", x.ExclusionList)
		return func(n string) bool { return !excluded(n) }
	}
	return nil
}

// anyName returns a test for names that match one of a list.
func anyName(s *resource.Scope, path string, m *matcherv3.ListStringMatcher) func(string) bool {
	var tests []func(string) bool
	for i, p := range m.GetPatterns() {
		if test := name(s, fmt.Sprintf("%s.patterns[%d]", path, i), p); test != nil {
			tests = append(tests, test)
		}
	}
	return func(n string) bool {
		return slices.ContainsFunc(tests, func(test func(string) bool) bool { return test(n) })
	}
}

// name returns a test of a name, nil where it is wrong.
func name(s *resource.Scope, path string, m *matcherv3.StringMatcher) func(string) bool {
	t, err := protomatch.String(m, maxStatsRegex)
	if err != nil {
		s.Fail(path, err.Error())
		return nil
	}
	return t.Test
}

func addStatsFields(t *protofields.Table) {
	t.Add(&metricsv3.StatsConfig{},
		protofields.Honour("stats_tags", "use_all_default_tags", "stats_matcher", "histogram_bucket_settings"),
		protofields.Refuse("set use_all_default_tags to false and name the tags", "allow_default_tag_overrides=false"))
	t.Add(&metricsv3.TagSpecifier{}, protofields.Honour("tag_name", "regex", "fixed_value"))
	t.Add(&metricsv3.StatsMatcher{}, protofields.Honour("reject_all", "exclusion_list", "inclusion_list"))
	t.Add(&matcherv3.ListStringMatcher{}, protofields.Honour("patterns"))
	t.Add(&metricsv3.HistogramBucketSettings{}, protofields.Honour("match", "buckets"),
		protofields.Ignore("histograms have steps of a fixed width", "bins"))
}
