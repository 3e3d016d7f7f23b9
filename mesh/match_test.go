// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"regexp"
	"testing"
)

func TestStringMatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		m    StringMatch
		s    string
		want bool
	}{
		{StringMatch{Kind: MatchExact, Value: "abc"}, "abc", true},
		{StringMatch{Kind: MatchExact, Value: "abc"}, "ABC", false},
		{StringMatch{Kind: MatchExact, Value: "abc", IgnoreCase: true}, "ABC", true},
		{StringMatch{Kind: MatchExact, Value: "abc"}, "abcd", false},
		{StringMatch{Kind: MatchPrefix, Value: "ab"}, "abc", true},
		{StringMatch{Kind: MatchPrefix, Value: "bc"}, "abc", false},
		{StringMatch{Kind: MatchSuffix, Value: "bc"}, "abc", true},
		{StringMatch{Kind: MatchSuffix, Value: "ab"}, "abc", false},
		{StringMatch{Kind: MatchContains, Value: "b", IgnoreCase: true}, "aBc", true},
		{StringMatch{Kind: MatchContains, Value: "B"}, "abc", false},
		{StringMatch{Kind: MatchRegex, Regex: regexp.MustCompile("^(?:a.c)$")}, "abc", true},
		{StringMatch{Kind: MatchRegex, Regex: regexp.MustCompile("^(?:a.c)$")}, "abcd", false},
	} {
		if got := tc.m.Test(tc.s); got != tc.want {
			t.Errorf("%+v on %q: %v, want %v", tc.m, tc.s, got, tc.want)
		}
	}
}
