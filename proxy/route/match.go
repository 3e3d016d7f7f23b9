// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"unicode/utf8"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// Verdict is the answer of a matcher. Routes and allowing policies act on Yes alone. A denying policy must treat
// Undecodable as Yes, so that bytes that a pattern cannot read never decide in a client's favour.
type Verdict uint8

// The verdicts.
const (
	No Verdict = iota
	Yes
	// Undecodable: the value is not UTF-8, so that a regular expression that does not match it proves nothing. It stays
	// what it is when a matcher is inverted.
	Undecodable
)

// Not returns the verdict of the inverted matcher.
func (v Verdict) Not() Verdict {
	switch v {
	case Yes:
		return No
	case No:
		return Yes
	}
	return Undecodable
}

func verdict(ok bool) Verdict {
	if ok {
		return Yes
	}
	return No
}

// MatchString tests one value. Case is ignored for ASCII letters only, as in Envoy.
func MatchString(m *mesh.StringMatch, v []byte) Verdict {
	switch m.Kind {
	case mesh.MatchExact:
		return verdict(len(v) == len(m.Value) && hasPrefix(v, m.Value, m.IgnoreCase))
	case mesh.MatchPrefix:
		return verdict(hasPrefix(v, m.Value, m.IgnoreCase))
	case mesh.MatchSuffix:
		return verdict(len(v) >= len(m.Value) && hasPrefix(v[len(v)-len(m.Value):], m.Value, m.IgnoreCase))
	case mesh.MatchContains:
		return verdict(contains(v, m.Value, m.IgnoreCase))
	}
	if m.Regex.Match(v) {
		return Yes
	}
	if !utf8.Valid(v) {
		return Undecodable
	}
	return No
}

// MatchHeader tests a request header, or one of :method, :path, :authority (host) and :scheme. Of a field that is there
// several times, each value is tested on its own: the matcher holds if it holds for one of them, and an inverted matcher
// if it holds for none. (Envoy 1.40 does so since CVE-2026-26308; it used to join the values with commas.)
func MatchHeader(m *mesh.HeaderMatch, r *codec.Request) Verdict {
	if v, pseudo := control(r, m.Name); pseudo {
		return MatchHeaderValue(m, v)
	}
	return MatchFields(m, &r.Header)
}

// MatchFields is MatchHeader for the fields of any message, an answer's for example.
func MatchFields(m *mesh.HeaderMatch, l *header.List) Verdict {
	there, best := false, No
	l.Values(m.Name, func(v []byte) bool {
		there = true
		if one := matchValue(m, v); one == Yes || best == No {
			best = one
		}
		return best != Yes
	})
	if !there {
		return MatchHeaderValue(m, nil)
	}
	return invert(m, best)
}

// MatchHeaderValue tests the value of a field that is there at most once; nil is a missing field.
func MatchHeaderValue(m *mesh.HeaderMatch, v []byte) Verdict {
	if v == nil && !m.MissingAsEmpty {
		return verdict(m.Kind == mesh.HeaderPresent && m.Present == m.Invert)
	}
	return invert(m, matchValue(m, v))
}

func invert(m *mesh.HeaderMatch, v Verdict) Verdict {
	if m.Invert {
		return v.Not()
	}
	return v
}

func matchValue(m *mesh.HeaderMatch, v []byte) Verdict {
	switch m.Kind {
	case mesh.HeaderString:
		return MatchString(&m.String, v)
	case mesh.HeaderRange:
		n, ok := integer(v)
		return verdict(ok && n >= m.RangeStart && n < m.RangeEnd)
	}
	return verdict(m.Present)
}

// control returns a part of the request that is matched under the name of a header; pseudo is false for other names.
func control(r *codec.Request, name string) (v []byte, pseudo bool) {
	switch name {
	case "host", ":authority":
		v = r.Authority
	case ":path":
		v = r.Path
	case ":method":
		v = r.Method
	case ":scheme":
		v = r.Scheme
	default:
		return nil, false
	}
	if len(v) == 0 {
		return nil, true
	}
	return v, true
}

// MatchQuery tests a query (without its '?') for a parameter. Names and values are compared as they are, without decoding
// them; of a repeated parameter the first value counts.
func MatchQuery(m *mesh.QueryMatch, query []byte) Verdict {
	v, there := queryParam(query, m.Name)
	switch {
	case m.String == nil:
		return verdict(there == m.Present)
	case !there:
		return No
	}
	return MatchString(m.String, v)
}

func queryParam(query []byte, name string) (value []byte, ok bool) {
	for len(query) > 0 {
		param := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			param, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		key, value := param, []byte(nil)
		if i := bytes.IndexByte(param, '='); i >= 0 {
			key, value = param[:i], param[i+1:]
		}
		if string(key) == name {
			return value, true
		}
	}
	return nil, false
}

// matchRoute tests all that a route asks of a request. It is the whole meaning of a RouteMatch: an index may only leave
// out routes for which it is false.
func matchRoute(m *mesh.RouteMatch, r *codec.Request, path []byte, random uint64) bool {
	return matchPath(m, r, path) && matchFraction(m.Fraction, random) && (!m.GRPCOnly || IsGRPC(r)) &&
		matchHeaders(m.Headers, r) && matchQueries(m.Query, r)
}

// matchPath compares the path without its query. A request without a path (CONNECT) matches a connect matcher only.
func matchPath(m *mesh.RouteMatch, r *codec.Request, path []byte) bool {
	if m.Kind == mesh.PathConnect {
		return string(r.Method) == "CONNECT"
	}
	if len(path) == 0 {
		return false
	}
	switch m.Kind {
	case mesh.PathExact:
		return len(path) == len(m.Path) && hasPrefix(path, m.Path, m.IgnoreCase)
	case mesh.PathPrefix:
		return hasPrefix(path, m.Path, m.IgnoreCase)
	case mesh.PathSeparatedPrefix:
		return hasPrefix(path, m.Path, m.IgnoreCase) && (len(path) == len(m.Path) || path[len(m.Path)] == '/')
	}
	return m.Regex.Match(path)
}

func matchFraction(f *mesh.Fraction, random uint64) bool {
	return f == nil || f.Covers(random)
}

// IsGRPC reports whether a request is one of gRPC, by its content-type.
func IsGRPC(r *codec.Request) bool {
	rest, ok := bytes.CutPrefix(r.Header.GetID(header.ContentType), []byte("application/grpc"))
	return ok && (len(rest) == 0 || rest[0] == '+')
}

func matchHeaders(list []mesh.HeaderMatch, r *codec.Request) bool {
	for i := range list {
		if MatchHeader(&list[i], r) != Yes {
			return false
		}
	}
	return true
}

func matchQueries(list []mesh.QueryMatch, r *codec.Request) bool {
	if len(list) == 0 {
		return true
	}
	query := r.Query()
	for i := range list {
		if MatchQuery(&list[i], query) != Yes {
			return false
		}
	}
	return true
}

// hasPrefix reports whether b begins with prefix.
func hasPrefix(b []byte, prefix string, ignoreCase bool) bool {
	if len(b) < len(prefix) {
		return false
	}
	if !ignoreCase {
		return string(b[:len(prefix)]) == prefix
	}
	for i := range len(prefix) {
		if lower(b[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func contains(b []byte, part string, ignoreCase bool) bool {
	for ; len(b) >= len(part); b = b[1:] {
		if hasPrefix(b, part, ignoreCase) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if c-'A' < 26 {
		return c | 0x20
	}
	return c
}

// integer reads a decimal 64-bit number with an optional sign and white space around it, as Envoy does.
func integer(b []byte) (n int64, ok bool) {
	b = bytes.TrimSpace(b)
	negative := len(b) > 0 && b[0] == '-'
	if negative || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	const cut = (1<<63 - 1) / 10
	var u uint64
	for _, c := range b {
		if c-'0' > 9 || u > cut {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	limit := uint64(1<<63 - 1)
	if negative {
		limit++
	}
	if len(b) == 0 || u > limit {
		return 0, false
	}
	if negative {
		return -int64(u), true
	}
	return int64(u), true
}
