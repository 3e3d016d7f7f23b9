// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"outbound|80||a.svc": "outbound|80||a.svc",
		"grüße 日本":           "grüße 日本",
		"a\nb\x1b[0m":        `a\u000ab\u001b[0m`,
		"\x7f\u009b\u202e":   `\u007f\u009b\u202e`,
		"\xff\xc3":           `\xff\xc3`,
		"\ufffd":             "\ufffd",
	} {
		if got := admin.Clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a\x1b[31m", "\u202e", "\xe2\x80", "\u0085\u2029"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := admin.Clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, admin.Unclean) {
			t.Errorf("clean(%q) = %q", s, got)
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, admin.Unclean) && got != s {
			t.Errorf("clean changed %q to %q", s, got)
		}
	})
}

// FuzzCleanJSON: JSON stays the JSON that it was, however it is cut, and holds nothing unclean.
func FuzzCleanJSON(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, "\"\u202e\u009b\u007f\"", "[1,\n2]", "\"\xe2\x80\"", "\xe2\x80", "\"\xff\""} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		got := admin.CleanJSON(b, int(size%7)+1)
		if whole := admin.CleanJSON(b, len(b)+1); got != whole {
			t.Fatalf("%q in pieces: %q, whole: %q", b, got, whole)
		}
		for _, r := range got {
			if admin.Unclean(r) && r != '\n' && r != '\t' {
				t.Fatalf("%q holds %U", got, r)
			}
		}
		var before, after any
		if json.Unmarshal(b, &before) != nil || strings.ContainsRune(string(b), '\r') {
			return
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Fatalf("%q became %q: %v", b, got, err)
		}
	})
}

// FuzzQuery compares with package net/url, which differs in what it makes of "+" and ";".
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "a=b&c", "a=%41+b", "&&=&", "%zz", "a=1&a=2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := admin.ParseQuery(raw)
		if err != nil {
			if msg := err.Error(); strings.ContainsFunc(strings.TrimSuffix(msg, "\n"), admin.Unclean) {
				t.Errorf("the error holds control characters: %q", msg)
			}
			return
		}
		want, err := url.ParseQuery(strings.NewReplacer("+", "%2B", ";", "%3B").Replace(string(raw)))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %v, net/url: %v %v", raw, got, want, err)
		}
		for k, v := range want {
			if !reflect.DeepEqual(got[k], v) {
				t.Fatalf("%q: %v, net/url: %v", raw, got, want)
			}
		}
	})
}

func TestLocalHost(t *testing.T) {
	t.Parallel()
	configured := ip("192.0.2.7:9901")
	for host, want := range map[string]bool{
		"localhost": true, "localhost:15000": true, "LocalHost": true, "127.0.0.1:1": true, "[::1]": true, "[::1]:80": true,
		"192.0.2.7": true, "192.0.2.7:9901": true, // configured
		"10.1.2.3:15000": true, // where the connection came to
		"":               false, "10.1.2.4": false, "0.0.0.0": false, "[::]:80": false, "localhost.": false, "a.localhost": false,
		"localhost.example": false, "127.0.0.1.example": false, "127.1": false, "0x7f000001": false, "2130706433": false,
		"[::1%25lo]": false, "[::1%lo]": false, "[fe80::1%eth0]": false, ":80": false, "localhost:80:80": false,
	} {
		if got := admin.LocalHost(host, configured); got != want {
			t.Errorf("Host %q is local: %v, want %v", host, got, want)
		}
	}
	if admin.LocalHost("0.0.0.0", ip("0.0.0.0:9901")) || admin.LocalHost("x.sock", mesh.Address{Pipe: "x.sock"}) {
		t.Error("the unspecified address or a path is taken as local")
	}
}

// FuzzLocalHost: whatever is taken as local is, for a browser as for package net, a local name and a port.
func FuzzLocalHost(f *testing.F) {
	for _, s := range []string{"localhost", "127.0.0.1", "[::1]:80", "evil.example", "[::1]:x", "localhost#.evil.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !admin.LocalHost(host, mesh.Address{}) {
			return
		}
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), "0"
		}
		if strings.Trim(port, "0123456789") != "" {
			t.Errorf("Host %q has the port %q", host, port)
		}
		if strings.EqualFold(name, "localhost") {
			return
		}
		addr, err := netip.ParseAddr(name)
		if err != nil || !addr.Unmap().IsLoopback() && addr.Unmap() != netip.MustParseAddr("10.1.2.3") {
			t.Errorf("Host %q is taken as local", host)
		}
	})
}
