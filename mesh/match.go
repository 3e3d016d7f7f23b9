// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"regexp"
	"strings"
)

// StringMatch is a test of one string. Exactly one of Exact, Prefix, Suffix, Contains and Regex decides, named by Kind.
type StringMatch struct {
	Kind StringMatchKind
	// Value is in lower case where IgnoreCase is set.
	Value string
	// Regex is compiled and anchored at both ends, as Envoy's safe_regex is.
	Regex      *regexp.Regexp
	IgnoreCase bool
}

// Test evaluates the match on a string. The request path has its own, over bytes (proxy/route).
func (m *StringMatch) Test(s string) bool {
	if m.Kind == MatchRegex {
		return m.Regex.MatchString(s)
	}
	if m.IgnoreCase {
		s = strings.ToLower(s)
	}
	switch m.Kind {
	case MatchPrefix:
		return strings.HasPrefix(s, m.Value)
	case MatchSuffix:
		return strings.HasSuffix(s, m.Value)
	case MatchContains:
		return strings.Contains(s, m.Value)
	}
	return s == m.Value
}

// StringMatchKind selects the comparison of a StringMatch.
type StringMatchKind uint8

// The kinds of StringMatch.
const (
	MatchExact StringMatchKind = iota
	MatchPrefix
	MatchSuffix
	MatchContains
	MatchRegex
)

// HeaderMatch is a test of a request header. Name is lower case. Each value of a repeated header is looked at on its
// own only where Envoy does so; otherwise values are joined with ",", as RFC 9110 section 5.3 allows.
type HeaderMatch struct {
	Name string
	Kind HeaderMatchKind
	// String is used by HeaderString.
	String StringMatch
	// RangeStart and RangeEnd are used by HeaderRange: start <= value < end, decimal.
	RangeStart, RangeEnd int64
	// Present is used by HeaderPresent.
	Present bool
	// Invert turns the answer around.
	Invert bool
	// MissingAsEmpty lets a missing header be matched as the empty string.
	MissingAsEmpty bool
}

// HeaderMatchKind selects the comparison of a HeaderMatch.
type HeaderMatchKind uint8

// The kinds of HeaderMatch.
const (
	HeaderString HeaderMatchKind = iota
	HeaderRange
	HeaderPresent
)

// QueryMatch is a test of a query parameter. Where String is nil, Present says whether it has to be there.
type QueryMatch struct {
	Name    string
	String  *StringMatch
	Present bool
}

// Fraction is a share of requests: Numerator out of Denominator (100, 10,000 or 1,000,000).
type Fraction struct {
	Numerator, Denominator uint32
	// Runtime, where it is not nil, replaces both by the value that a key has.
	Runtime RuntimeKey
}

// Covers reports whether a request is in the share, by a random number of its own.
func (f *Fraction) Covers(random uint64) bool {
	num, den := f.Numerator, f.Denominator
	if f.Runtime != nil {
		num, den = f.Runtime.Fraction(num, den)
	}
	return random%uint64(den) < uint64(num)
}
