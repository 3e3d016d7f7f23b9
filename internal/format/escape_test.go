// SPDX-License-Identifier: Apache-2.0

package format

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, text, field, json string }{
		{"plain", "abc /?=", "abc /?=", "abc /?=", `"abc /?="`},
		{"empty", "", "", "", `""`},
		{"quotes", `a"b\c`, `a"b\c`, `a"b\c`, `"a\"b\\c"`},
		{"utf-8", "café \U0001F600", "café \U0001F600", "café \U0001F600", `"café ` + "\U0001F600" + `"`},
		{"line ends", "a\r\nb", `a\x0d\x0ab`, `a\x0d\x0ab`, `"a\r\nb"`},
		{"tab", "a\tb", `a\x09b`, "a\tb", `"a\tb"`},
		{"zero", "a\x00", `a\x00`, `a\x00`, `"a\u0000"`},
		{"escape sequence", "\x1b[31m", `\x1b[31m`, `\x1b[31m`, `"\u001b[31m"`},
		{"delete", "a\x7f", `a\x7f`, `a\x7f`, `"a\u007f"`},
		{"C1 control", "a\u009bb", `a\xc2\x9bb`, "a\u009bb", `"a\u009bb"`},
		// Recorded from Envoy 1.40: a string that is not UTF-8 is written byte by byte.
		{"not utf-8", "bad\xff \"q\"", `bad\xff "q"`, "bad\xff \"q\"", `"bad\u00ff \u0022q\u0022"`},
		{
			"mixed", "tab\there caf\xc3\xa9 bad\xff\x9b \\b", `tab\x09here café bad\xff\x9b \b`, "tab\there café bad\xff\x9b \\b",
			`"tab\u0009here caf\u00c3\u00a9 bad\u00ff\u009b \u005cb"`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(AppendText(nil, []byte(tt.in))); got != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
			if got := string(AppendField(nil, []byte(tt.in))); got != tt.field {
				t.Errorf("field %q, want %q", got, tt.field)
			}
			if got := string(AppendJSON(nil, []byte(tt.in))); got != tt.json {
				t.Errorf("json %s, want %s", got, tt.json)
			}
		})
	}
}

// FuzzEscape checks the three promises: no control character in text, none but tab in a field, and JSON that means
// what went in.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\xff\xc2", "\u0085\u202e", "\x7f\"\\", "\xc2\x80\xc2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		text := string(AppendText(nil, in))
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("text %q of %q", text, in)
		}
		if clean := CleanText(in) == len(in); clean != (text == string(in)) {
			t.Errorf("CleanText(%q) says clean = %v", in, clean)
		}
		for _, c := range AppendField(nil, in) {
			if c < ' ' && c != '\t' || c == 0x7f {
				t.Errorf("field of %q holds %#x", in, c)
			}
		}
		quoted := AppendJSON(nil, in)
		if CleanJSON(in) && string(quoted) != `"`+string(in)+`"` {
			t.Errorf("CleanJSON(%q) is wrong", in)
		}
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		if want := decoded(in); back != want {
			t.Errorf("%s reads %q, want %q", quoted, back, want)
		}
	})
}

// decoded is what a JSON reader should see: the string itself, or one character per byte.
func decoded(in []byte) string {
	if utf8.Valid(in) {
		return string(in)
	}
	var out []rune
	for _, c := range in {
		out = append(out, rune(c))
	}
	return string(out)
}
