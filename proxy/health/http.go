// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/header"
)

const (
	userAgent = "Envoy/HC"
	// The bounds of an answer: of its head, of its body, and of all that comes, with interim answers and chunk framing.
	maxHead = 16 << 10
	maxBody = 64 << 10
	maxWire = 512 << 10

	// The headers that a host may answer with, from Envoy's documentation.
	degradedHeader = "x-envoy-degraded"
	serviceHeader  = "x-envoy-upstream-healthchecked-cluster"
)

// buildRequest returns the bytes that an HTTP check sends, each time the same; nil where they cannot be sent.
func buildRequest(h *mesh.HTTPHealthCheck, t *Target) []byte {
	host := checkHost(t, h.Host)
	var l header.List
	l.AddString("host", host)
	addHeaders(&l, h.Remove, h.Add)
	switch h.Method {
	case fasthttp.MethodPost, fasthttp.MethodPut, fasthttp.MethodPatch:
		if !l.Has("content-length") {
			l.AddString("content-length", "0") // RFC 9110 section 8.6
		}
	}
	if !sendable(&l, h.Path) {
		return nil
	}
	return append(l.AppendHTTP1([]byte(h.Method+" "+h.Path+" HTTP/1.1\r\n")), "\r\n"...)
}

// checkHost returns the host header of a check whose configuration says of.
func checkHost(t *Target, of string) string { return cmp.Or(t.CheckHost, of, t.ClusterName) }

// addHeaders adds what each check sends, and does what the configuration says of it.
func addHeaders(l *header.List, remove []string, add []mesh.HeaderAdd) {
	l.AddString("user-agent", userAgent)
	for _, name := range remove {
		l.Remove(name)
	}
	for i := range add {
		addHeader(l, &add[i])
	}
}

// unsendable is why a request that is not sendable fails.
const unsendable = "path, host or a header has a line break"

// sendable reports whether the values of headers, and more, can stand in a head.
func sendable(l *header.List, more ...string) bool {
	for _, value := range l.All {
		more = append(more, string(value))
	}
	return !slices.ContainsFunc(more, func(s string) bool { return !oneLine(s) })
}

// oneLine reports whether s can stand in a head without ending its line.
func oneLine(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

// addHeader adds one header of the configuration. Its value is literal: there is no request to make another from.
func addHeader(l *header.List, a *mesh.HeaderAdd) {
	value, there := a.Literal, l.Has(a.Name)
	switch {
	case value == "" && !a.KeepEmpty:
	case a.Action == mesh.HeaderAddIfAbsent && there, a.Action == mesh.HeaderOverwriteIfExists && !there:
	case a.Action == mesh.HeaderOverwrite, a.Action == mesh.HeaderOverwriteIfExists:
		l.SetString(a.Name, value)
	case a.Name == "user-agent" && there:
		l.SetString(a.Name, string(l.Get(a.Name))+","+value) // a field that Envoy holds once
	default:
		l.AddString(a.Name, value)
	}
}

// httpExchange returns the exchange of an HTTP check.
func httpExchange(h *mesh.HTTPHealthCheck, d *Deps, request []byte) exchange {
	return func(s *stream) answer {
		if request == nil {
			return answer{verdict: unreachable, reason: unsendable}
		}
		s.limit = maxWire
		if _, err := s.Write(request); err != nil {
			return s.failed("write")
		}
		return readAnswer(h, d, s)
	}
}

// readAnswer reads the answer and judges it. The body is read because an answer that breaks off is none; from maxBody
// on, enough of it has come.
func readAnswer(h *mesh.HTTPHealthCheck, d *Deps, s *stream) answer {
	r := bufio.NewReaderSize(s, maxHead)
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	resp.SkipBody = h.Method == fasthttp.MethodHead
	err := resp.ReadLimitBody(r, maxBody)
	large := errors.Is(err, fasthttp.ErrBodyTooLarge)
	var head *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &head):
		return answer{verdict: unreachable, reason: "the answer's head is too large"}
	case err != nil && !large && s.err != nil:
		return s.failed("read")
	case err != nil && !large:
		return answer{verdict: unreachable, reason: "malformed answer"}
	}
	isDegraded := false
	for name := range resp.Header.All() {
		isDegraded = isDegraded || header.EqualFold(name, degradedHeader)
	}
	status := resp.StatusCode()
	a := judge(h, d, status, isDegraded, string(resp.Header.Peek(serviceHeader)))
	a.keep = !large && !resp.ConnectionClose() && status != fasthttp.StatusSwitchingProtocols && r.Buffered() == 0
	return a
}

// judge decides about an answer by its status and what its headers say.
func judge(h *mesh.HTTPHealthCheck, d *Deps, status int, isDegraded bool, service string) answer {
	expected := status == fasthttp.StatusOK
	if len(h.Expected) > 0 {
		expected = within(h.Expected, status)
	}
	named := h.ServiceName != nil && d.verifies()
	switch {
	case !expected && within(h.Retriable, status):
		return answer{verdict: retriable, reason: "status " + strconv.Itoa(status)}
	case !expected:
		return answer{verdict: refused, reason: "status " + strconv.Itoa(status)}
	case named && !h.ServiceName.Test(service):
		return answer{verdict: refused, reason: "the service name does not match", named: true}
	case isDegraded:
		return answer{verdict: degraded, named: named}
	}
	return answer{verdict: passed, named: named}
}

func within(ranges []mesh.StatusRange, status int) bool {
	for _, r := range ranges {
		if r.Start <= status && status < r.End {
			return true
		}
	}
	return false
}
