// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"strings"
)

// maxRequestLine is the most bytes that the HTTP inspector looks at. It is above the longest request line that the
// default limits let pass (8 KiB); Envoy gives up at 64 KiB.
const maxRequestLine = 16 << 10

// preface is how HTTP/2 without TLS begins (RFC 9113 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// httpInspector tells HTTP/1.x by its request line and HTTP/2 by its preface. It is lenient on purpose, as Envoy's is:
// what some server might take for a request must reach a chain that reads requests, where the strict codec refuses it;
// were it passed on as plain bytes, it would escape every rule for HTTP. It lets go at the first byte that makes it
// something else, so that other protocols are not held.
type httpInspector struct{}

// Limit implements Peeker.
func (httpInspector) Limit() int { return maxRequestLine }

// Inspect implements Peeker.
func (httpInspector) Inspect(peeked []byte, end bool, info *ConnInfo) Verdict {
	if info.Transport != RawBuffer {
		return Done
	}
	protocol, state := httpVersion(peeked)
	switch {
	case state == perhaps && len(peeked) >= maxRequestLine:
		return Reject
	case state == perhaps && !end:
		return More
	case state == yes:
		info.Greet().ApplicationProtocols = []string{protocol}
	}
	return Done
}

// httpVersion returns the protocol that p begins with.
func httpVersion(p []byte) (protocol string, state answer) {
	if n := min(len(p), len(preface)); string(p[:n]) == preface[:n] {
		if n < len(preface) {
			return "", perhaps
		}
		return "h2c", yes
	}
	line, _, complete := bytes.Cut(p, []byte{'\n'})
	method, rest := token(line)
	if method == 0 {
		return "", no
	}
	if len(rest) > 0 && rest[0] != ' ' && rest[0] != '\t' {
		return "", no
	}
	behind, connect := rest, string(line[:method]) == "CONNECT"
	rest = trimLeft(rest)
	if state := target(rest, connect, complete); state != yes {
		return "", state
	}
	switch {
	case !complete:
		return "", perhaps
	case connect:
		return version(behind) // net/http, for one, takes a CONNECT whose target is empty
	}
	return version(rest)
}

// token returns the length of the method and what is behind it (RFC 9110 5.6.2).
func token(line []byte) (n int, rest []byte) {
	for n < len(line) && isToken(line[n]) {
		n++
	}
	return n, line[n:]
}

// target reports whether p can begin with a request target: a path, "*", a URI with a scheme, or the authority of
// CONNECT. In a complete line nothing can follow. This is what tells HTTP from protocols that begin with words, such as
// memcached's "get key".
func target(p []byte, connect, complete bool) answer {
	n := 0
	for n < len(p) && (isAlpha(p[n]) || n > 0 && (isDigit(p[n]) || p[n] == '+' || p[n] == '-' || p[n] == '.')) {
		n++
	}
	switch {
	case len(p) > 0 && (p[0] == '/' || p[0] == '*' || connect), n > 0 && n < len(p) && p[n] == ':':
		return yes
	case n == len(p) && !complete:
		return perhaps
	}
	return no
}

// version reads the end of a complete line: a target, then perhaps a version. Spaces in the target are let pass, so the
// last word is the version. A path alone is HTTP/0.9, which goes as HTTP/1.0.
func version(rest []byte) (string, answer) {
	rest = bytes.TrimRightFunc(rest, isSpace)
	last := bytes.LastIndexFunc(rest, isSpace) + 1
	v := rest[last:]
	switch {
	case last == 0 && len(rest) > 0 && rest[0] == '/': // a target may be nothing but spaces
		return "http/1.0", yes
	case last == 0 || len(v) != len("HTTP/1.1") || string(v[:5]) != "HTTP/" || !isDigit(v[5]) || v[6] != '.' || !isDigit(v[7]):
		return "", no
	case v[5] == '1' && v[7] == '1':
		return "http/1.1", yes
	}
	return "http/1.0", yes
}

func trimLeft(p []byte) []byte { return bytes.TrimLeft(p, " \t") }

// isSpace takes all control bytes for spaces, as lenient parsers do.
func isSpace(r rune) bool { return r <= ' ' }

func isAlpha(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isToken(b byte) bool {
	return isAlpha(b) || isDigit(b) || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}
