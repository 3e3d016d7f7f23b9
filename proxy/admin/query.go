// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/mesh"
)

// query is the query parameters of a request.
type query url.Values

// The limits of a query.
const (
	maxQuery  = 4 << 10
	maxParams = 32
	maxRegexp = 1 << 10
)

// parseQuery reads the query, or, where there is none, a form in the body, as Envoy does. A "+" is a "+": filters are
// regular expressions.
func parseQuery(raw []byte, h *fasthttp.RequestHeader, form []byte) (query, error) {
	if len(raw) == 0 && bytes.HasPrefix(h.ContentType(), []byte("application/x-www-form-urlencoded")) {
		raw = form
	}
	if len(raw) > maxQuery || bytes.Count(raw, []byte("&")) >= maxParams {
		return nil, badRequest("the query is too long: %d bytes and %d parameters are allowed\n", maxQuery, maxParams)
	}
	q := query{}
	for part := range strings.SplitSeq(string(raw), "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, badRequest("bad query: %s\n", clean(err.Error()))
		}
		if value, err = url.PathUnescape(value); err != nil {
			return nil, badRequest("bad query: %s\n", clean(err.Error()))
		}
		q[name] = append(q[name], value)
	}
	return q, nil
}

// get returns the first value of a parameter, "" where it is not there.
func (q query) get(name string) string {
	if v := q[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// has reports whether a parameter is there, with any value or none: that is what turns Envoy's switches on.
func (q query) has(name string) bool { return q[name] != nil }

// only refuses parameters that are not among the names.
func (q query) only(names ...string) error {
	for name := range q {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			return badRequest("unknown parameter %q; known are %s\n", clean(name), strings.Join(names, ", "))
		}
	}
	return nil
}

// regexp compiles a parameter; nil where it is not there. Its errors are worded as Envoy's and begin with problem.
func (q query) regexp(name, problem string) (*regexp.Regexp, error) {
	expr := q.get(name)
	if expr == "" {
		return nil, nil
	}
	if len(expr) > maxRegexp {
		return nil, badRequest("%s%s is longer than %d bytes\n", problem, name, maxRegexp)
	}
	re, err := regexp.Compile(expr)
	if err == nil {
		return re, nil
	}
	why := err.Error()
	var e *syntax.Error
	if errors.As(err, &e) {
		why = string(e.Code) + ": " + e.Expr
	}
	return nil, &Error{400, clean(problem + why)}
}

// badFilter begins the answer to a filter that cannot be compiled.
const badFilter = "Invalid re2 regex: "

// checkCaller refuses a request that could have come from a web page: browsers send Origin with each cross-origin POST, and
// a page that rebound its own name to a local address sends that name as Host.
func checkCaller(h *fasthttp.RequestHeader, local net.Addr, configured mesh.Address) error {
	if h.Peek("Origin") != nil {
		return &Error{403, "Requests from web pages (with an Origin header) may not change anything.\n"}
	}
	if local.Network() == "unix" || localHost(string(h.Host()), local, configured) {
		return nil
	}
	return &Error{403, "Host " + clean(h.Host()) + " is not local: use localhost, or the address that the server listens on.\n"}
}

// localHost reports whether a Host header names a loopback address, the configured address, or the address that the
// connection came to.
func localHost(host string, local net.Addr, configured mesh.Address) bool {
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host || u.User != nil {
		return false
	}
	name := u.Hostname()
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil || ip.Is6() != strings.HasPrefix(host, "[") {
		return false
	}
	if ip = ip.Unmap(); ip.IsUnspecified() {
		return false
	}
	if ip.IsLoopback() || ip == configured.IP.Addr().Unmap() {
		return true
	}
	a, ok := local.(*net.TCPAddr)
	return ok && a.AddrPort().Addr().Unmap() == ip
}
