// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"bytes"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

func TestCanonicalPath(t *testing.T) {
	t.Parallel()
	normal := mesh.HTTPManager{NormalizePath: true}
	merged := mesh.HTTPManager{NormalizePath: true, MergeSlashes: true}
	reject := mesh.HTTPManager{EscapedSlashes: mesh.SlashesReject}
	redirect := mesh.HTTPManager{EscapedSlashes: mesh.SlashesUnescapeRedirect}
	unescape := mesh.HTTPManager{EscapedSlashes: mesh.SlashesUnescapeForward, NormalizePath: true}
	for _, c := range []struct {
		name string
		cfg  *mesh.HTTPManager
		in   string
		want string // "bad", or the path, behind "redirect " where that is asked for
	}{
		{"nothing to do", &normal, "/a/b?c=/../d", "/a/b?c=/../d"},
		{"dot", &normal, "/a/./b", "/a/b"},
		{"dots", &normal, "/a/../b", "/b"},
		{"dots at the end", &normal, "/a/b/..", "/a/"},
		{"dot at the end", &normal, "/a/.", "/a/"},
		{"dots above the root", &normal, "/../../etc/passwd", "/etc/passwd"},
		{"only dots", &normal, "/..", "/"},
		{"three dots are a name", &normal, "/a/.../b", "/a/.../b"},
		{"escaped dots", &normal, "/a/%2e%2E/b", "/b"},
		{"half escaped dots", &normal, "/a/.%2e/b", "/b"},
		{"dots with parameters", &normal, "/a/..;x=y/b", "/b"},
		{"escaped dots with parameters", &normal, "/a/%2e%2e;/b", "/b"},
		{"backslash", &normal, `/a\..\b`, "/b"},
		{"unreserved escapes are decoded", &normal, "/%61%7e%2D", "/a~-"},
		{"others stay as they were", &normal, "/%2f%3f%c3%A4", "/%2f%3f%c3%A4"},
		{"double escape stays one layer", &normal, "/%252e%252e/a", "/%252e%252e/a"},
		{"what no URL holds is escaped", &normal, `/<a>"{}|^` + "`", "/%3Ca%3E%22%7B%7D%7C%5E%60"},
		{"escaped NUL", &normal, "/a%00b", "bad"},
		{"a stray percent stays", &normal, "/100%", "/100%"},
		{"a stray percent that would become an escape", &normal, "/%%32%65%2e", "bad"},
		{"query is left alone", &normal, "/a/../b?%2e%00//", "/b?%2e%00//"},
		{"slashes stay", &normal, "//a//b", "//a//b"},
		{"slashes merge", &merged, "//a///b//?x=//", "/a/b/?x=//"},
		{"slashes alone", &merged, "////", "/"},
		{"slashes merge after dots", &merged, "/a//../b", "/a/b"},
		{"escaped slash is refused", &reject, "/a%2Fb", "bad"},
		{"escaped backslash is refused", &reject, "/a%5cb", "bad"},
		{"in the query it is not", &reject, "/a?b%2f", "/a?b%2f"},
		{"escaped slash redirects", &redirect, "/a%2fb?c%2f", "redirect /a/b?c%2f"},
		{"nothing to redirect for", &redirect, "/a/b", "/a/b"},
		{"unescaped before dots are removed", &unescape, "/a%2f..%2fb%5c..", "/"},
		{"an escape cut short", &reject, "/a%2", "/a%2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := []byte(c.in)
			got, v := canonicalPath([]byte("kept"), in, c.cfg)
			text := "bad"
			if v != pathBad {
				text = strings.TrimPrefix(string(got), "kept")
			}
			if v == pathRedirect {
				text = "redirect " + text
			}
			if text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if string(in) != c.in {
				t.Errorf("the path it was given became %q", in)
			}
		})
	}
}

// FuzzCanonicalPath: what is canonical stays as it is, holds no dot segment, and begins with a slash.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e;x/%5c..//", "/%%32e", "/..;/..%2f?..", `/\..\.`} {
		f.Add(s, true, true, uint8(0))
		f.Add(s, true, false, uint8(3))
	}
	f.Fuzz(func(t *testing.T, s string, normal, merge bool, slashes uint8) {
		if len(s) > 4096 || s == "" || s[0] != '/' || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
			return // no request target
		}
		cfg := &mesh.HTTPManager{NormalizePath: normal, MergeSlashes: merge, EscapedSlashes: mesh.EscapedSlashes(slashes % 4)}
		once, v := canonicalPath(nil, []byte(s), cfg)
		if v == pathBad {
			return
		}
		if len(once) == 0 || once[0] != '/' {
			t.Fatalf("%q became %q", s, once)
		}
		twice, v := canonicalPath(nil, once, cfg)
		if normal && (v != pathGood || !bytes.Equal(once, twice)) {
			t.Fatalf("%q became %q, and that %q (%d)", s, once, twice, v)
		}
		path, _, _ := strings.Cut(string(once), "?")
		for seg := range strings.SplitSeq(path, "/") {
			if seg, _, _ = strings.Cut(seg, ";"); normal && (seg == "." || seg == "..") {
				t.Fatalf("%q became %q", s, once)
			}
		}
		if merge && strings.Contains(path, "//") {
			t.Fatalf("%q became %q", s, once)
		}
	})
}
