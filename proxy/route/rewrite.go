// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// RewritePath appends the path, with its query, that goes upstream instead of path; ok is false where the route rewrites
// nothing. A rewrite may leave the path as it was; x-envoy-original-path is set then too, as in Envoy. Rewriting with a
// pattern allocates.
func (m Match) RewritePath(dst, path []byte) (_ []byte, ok bool) {
	if m.Route == nil || m.Route.Forward == nil {
		return dst, false
	}
	a := m.Route.Forward
	return m.rewrite(dst, path, a.PrefixRewrite, a.RegexRewrite)
}

func (m Match) rewrite(dst, path []byte, prefix string, pattern *mesh.RegexRewrite) ([]byte, bool) {
	switch {
	case prefix != "":
		return append(append(dst, prefix...), path[min(m.Matched, len(path)):]...), true
	case pattern != nil:
		end := pathEnd(path)
		return append(replaceAll(dst, path[:end], pattern), path[end:]...), true
	}
	return dst, false
}

// pathEnd returns where the query or fragment begins.
func pathEnd(path []byte) int {
	if i := bytes.IndexAny(path, "?#"); i >= 0 {
		return i
	}
	return len(path)
}

// replaceAll appends src with all matches of the pattern replaced, as RE2's GlobalReplace does.
func replaceAll(dst, src []byte, rw *mesh.RegexRewrite) []byte {
	at := 0
	for _, groups := range rw.Pattern.FindAllSubmatchIndex(src, -1) {
		dst = append(dst, src[at:groups[0]]...)
		dst = expand(dst, src, rw.Substitution, groups)
		at = groups[1]
	}
	return append(dst, src[at:]...)
}

// expand appends a substitution: \0 ... \9 are groups, \\ is a backslash.
func expand(dst, src []byte, substitution string, groups []int) []byte {
	for i := 0; i < len(substitution); i++ {
		c := substitution[i]
		if c != '\\' || i+1 == len(substitution) {
			dst = append(dst, c)
			continue
		}
		i++
		g := 2 * int(substitution[i]-'0')
		switch {
		case substitution[i] == '\\':
			dst = append(dst, '\\')
		case g >= 0 && g+1 < len(groups) && groups[g] >= 0:
			dst = append(dst, src[groups[g]:groups[g+1]]...)
		}
	}
	return dst
}

// HostSource says what rewrote an authority.
type HostSource uint8

// The sources of a rewritten authority.
const (
	// HostKept: the authority goes upstream as it came.
	HostKept HostSource = iota
	// HostByCluster: the weighted cluster replaces it, and x-forwarded-host stays as it is.
	HostByCluster
	// HostByRoute: the route replaces it, so that AppendXForwardedHost applies.
	HostByRoute
)

// RewriteHost appends the authority that goes upstream where it is not HostKept. wc is what WeightedCluster picked, or
// nil; hostname is that of the upstream host, for auto_host_rewrite. The route's own rewrite wins over the cluster's, as
// in Envoy. Rewriting with a pattern allocates.
func (m Match) RewriteHost(dst []byte, r *codec.Request, wc *mesh.WeightedCluster, hostname string) ([]byte, HostSource) {
	if m.Route == nil || m.Route.Forward == nil {
		return dst, HostKept
	}
	at := len(dst)
	switch h := &m.Route.Forward.HostRewrite; h.Kind {
	case mesh.HostLiteral:
		dst = append(dst, h.Value...)
	case mesh.HostAuto:
		dst = append(dst, hostname...)
	case mesh.HostFromHeader:
		dst = append(dst, r.Header.Get(h.Value)...)
	case mesh.HostFromPath:
		dst = replaceAll(dst, r.PathOnly(), h.Regex)
	}
	if len(dst) > at {
		return dst, HostByRoute
	}
	if wc != nil && wc.HostRewrite != "" {
		return append(dst, wc.HostRewrite...), HostByCluster
	}
	return dst, HostKept
}

// Location appends the target of the route's redirect, or that of RequireTLS. Rewriting with a pattern allocates.
func (m Match) Location(dst []byte, r *codec.Request) []byte {
	if m.RequireTLS {
		return append(append(append(dst, "https://"...), r.Authority...), r.Path...)
	}
	d := m.Route.Redirect
	from := proto(r)
	scheme := from
	switch {
	case d.Scheme != "":
		scheme = d.Scheme
	case d.HTTPS:
		scheme = "https"
	}
	dst = append(append(dst, scheme...), "://"...)
	if d.Host != "" {
		dst = append(dst, d.Host...)
	} else {
		dst = append(dst, redirectHost(r.Authority, d.Port != 0, from, scheme)...)
	}
	if d.Port != 0 {
		dst = strconv.AppendInt(append(dst, ':'), int64(d.Port), 10)
	}
	return m.redirectPath(dst, r.Path, d)
}

// redirectHost returns the authority without its port where a new one follows, or where it is the old scheme's own port
// and the scheme changes.
func redirectHost(authority []byte, newPort bool, from, to string) []byte {
	host := withoutPort(authority)
	port := string(authority[len(host):])
	if newPort || from != to && (from == "https" && port == ":443" || from == "http" && port == ":80") {
		return host
	}
	return authority
}

// redirectPath appends path and query of a redirect. A path of the redirect's own takes the request's query, unless it
// brings one, which is then never stripped.
func (m Match) redirectPath(dst, path []byte, d *mesh.Redirect) []byte {
	at := len(dst)
	ownQuery := false
	if d.Path != "" {
		dst = append(dst, d.Path...)
		ownQuery = strings.IndexByte(d.Path, '?') >= 0
		if i := bytes.IndexByte(path, '?'); i >= 0 && !ownQuery {
			dst = append(dst, path[i:]...)
		}
	} else if out, ok := m.rewrite(dst, path, d.PrefixRewrite, d.RegexRewrite); ok {
		dst = out
	} else {
		dst = append(dst, path...)
	}
	if len(dst) == at || dst[at] != '/' {
		dst = append(dst, 0)
		copy(dst[at+1:], dst[at:])
		dst[at] = '/'
	}
	if i := bytes.IndexByte(dst[at:], '?'); i >= 0 && d.StripQuery && !ownQuery {
		dst = dst[:at+i]
	}
	return dst
}
