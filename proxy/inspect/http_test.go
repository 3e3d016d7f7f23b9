// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func inspectHTTP(p []byte, end bool) (ConnInfo, Verdict) {
	var info ConnInfo
	v := httpInspector{}.Inspect(p, end, &info)
	return info, v
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		bytes string
		// want is "" where it is not HTTP.
		want string
		// at is how many bytes it takes to know; 0 means all.
		at int
	}{
		{"1.1", "GET / HTTP/1.1\r\n", "http/1.1", 0},
		{"1.0", "GET / HTTP/1.0\r\n", "http/1.0", 0},
		{"bare line feed", "GET / HTTP/1.1\n", "http/1.1", 0},
		{"version 1.2", "GET / HTTP/1.2\r\n", "http/1.0", 0},
		{"version 2.0", "GET / HTTP/2.0\r\n", "http/1.0", 0},
		{"version 0.9", "GET /\r\n", "http/1.0", 0},
		{"own method", "FROB /x HTTP/1.1\r\n", "http/1.1", 0},
		{"long method", strings.Repeat("A", 100) + " / HTTP/1.1\r\n", "http/1.1", 0},
		{"absolute target", "GET http://a/ HTTP/1.1\r\n", "http/1.1", 0},
		{"opaque target", "GET a:b HTTP/1.1\r\n", "http/1.1", 0},
		{"connect", "CONNECT a.example:443 HTTP/1.1\r\n", "http/1.1", 0},
		{"connect to an address", "CONNECT [::1]:443 HTTP/1.1\r\n", "http/1.1", 0},
		{"asterisk", "OPTIONS * HTTP/1.1\r\n", "http/1.1", 0},
		{"preface", preface, "h2c", 0},
		{"almost the preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "http/1.0", 24},
		{"method PRI", "PRI / HTTP/1.1\r\n", "http/1.1", 0},
		// What lenient servers take must not pass as plain bytes.
		{"two spaces", "GET  / HTTP/1.1\r\n", "http/1.1", 0},
		{"tab", "GET\t/ HTTP/1.1\r\n", "http/1.1", 0},
		{"space behind", "GET / HTTP/1.1 \r\n", "http/1.1", 0},
		{"space in the target", "GET /a b HTTP/1.1\r\n", "http/1.1", 0},
		{"high byte in the target", "GET /\x80 HTTP/1.1\r\n", "http/1.1", 0},
		{"control byte in the target", "GET /\x01 HTTP/1.1\r\n", "http/1.1", 0},
		{"carriage return in the line", "GET /\rHTTP/1.1\r\n", "http/1.1", 0},

		{"tls", "\x16\x03\x01\x02\x00\x01", "", 1},
		{"space in front", " GET / HTTP/1.1\r\n", "", 1},
		{"line break in front", "\r\nGET / HTTP/1.1\r\n", "", 1},
		{"mysql", "\x4a\x00\x00\x00\x0a8.0", "", 2},
		{"postgres", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "", 1},
		{"mongodb", "\x3a\x00\x00\x00", "", 1},
		{"redis", "*1\r\n$4\r\nPING\r\n", "", 3},
		{"amqp", "AMQP\x00\x00\x09\x01", "", 5},
		{"ssh", "SSH-2.0-OpenSSH_9.7\r\n", "", 20},
		{"memcached", "get key\r\n", "", 8},
		{"memcached with a colon", "get user:1\r\n", "", 0},
		{"memcached set", "set user:1 0 0 5\r\n", "", 0},
		{"smtp", "EHLO relay.example\r\n", "", 19},
		{"nats", "CONNECT {\"verbose\":false}\r\n", "", 0},
		{"nats ping", "PING\r\n", "", 5},
		{"lower-case version", "GET / http/1.1\r\n", "", 0},
		{"long version", "GET / HTTP/1.10\r\n", "", 0},
		{"number as target", "GET 1 HTTP/1.1\r\n", "", 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			at := tc.at
			if at == 0 {
				at = len(tc.bytes)
			}
			for n := 1; n <= len(tc.bytes); n++ {
				info, v := inspectHTTP([]byte(tc.bytes[:n]), false)
				if n < at {
					if v != More {
						t.Fatalf("%q: verdict %d after %d bytes, want more until %d", tc.bytes[:n], v, n, at)
					}
					if info, v := inspectHTTP([]byte(tc.bytes[:n]), true); v != Done || info.ApplicationProtocols() != nil {
						t.Fatalf("%q and the end: verdict %d, %v", tc.bytes[:n], v, info.ApplicationProtocols())
					}
					continue
				}
				want := []string{tc.want}
				if tc.want == "" {
					want = nil
				}
				if v != Done || !slices.Equal(info.ApplicationProtocols(), want) {
					t.Fatalf("%q: verdict %d, %q, want %q", tc.bytes[:n], v, info.ApplicationProtocols(), want)
				}
			}
		})
	}
}

func TestHTTPLimit(t *testing.T) {
	t.Parallel()
	long := []byte("GET /" + strings.Repeat("x", maxRequestLine))
	if _, v := inspectHTTP(long[:maxRequestLine-1], false); v != More {
		t.Fatalf("verdict %d below the limit", v)
	}
	if _, v := inspectHTTP(long[:maxRequestLine], false); v != Reject {
		t.Fatalf("verdict %d at the limit, want a rejection", v)
	}
}

func TestHTTPInspectorLeavesTLSAlone(t *testing.T) {
	t.Parallel()
	info := ConnInfo{Transport: TLS, Hello: &Hello{ApplicationProtocols: []string{"h2"}}}
	if v := (httpInspector{}).Inspect([]byte("GET / HTTP/1.1\r\n"), false, &info); v != Done || info.ApplicationProtocols()[0] != "h2" {
		t.Fatalf("verdict %d, %v", v, info.ApplicationProtocols())
	}
}

// FuzzHTTP holds that the inspector does not take back what it said of a prefix, and that nothing that net/http would
// serve escapes it.
func FuzzHTTP(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", preface, "GET http://a/ HTTP/1.0\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n", "CONNECT \x00\r\n", "CONNECT  HTTP/0.0\r\n\r\n",
		"EHLO x\r\n", "get k\r\n", "GET  /\t HTTP/1.1\n", "\x16\x03\x01", "OPTIONS * HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 {
			return
		}
		p = p[:min(len(p), maxRequestLine)]
		info, v := inspectHTTP(p, false)
		if v == More && len(p) >= maxRequestLine {
			t.Fatal("asks for more at its limit")
		}
		for _, n := range []int{1, 4, len(p) / 2, len(p) - 1} {
			if n < 1 || n > len(p) {
				continue
			}
			early, ev := inspectHTTP(p[:n], false)
			if ev != More && (ev != v || !slices.Equal(early.ApplicationProtocols(), info.ApplicationProtocols())) {
				t.Fatalf("%q: verdict %d %q; %q: %d %q", p[:n], ev, early.ApplicationProtocols(), p, v, info.ApplicationProtocols())
			}
		}
		if bytes.IndexByte(p, '\n') < 1 || strings.HasPrefix(preface, string(p)) {
			return // net/http takes the beginning of HTTP/2's preface for a request of its own
		}
		if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(p))); err == nil && info.ApplicationProtocols() == nil {
			t.Fatalf("net/http takes %q for a request; verdict %d", p, v)
		}
	})
}
