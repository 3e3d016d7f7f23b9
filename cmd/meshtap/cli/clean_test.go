// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                       "",
		"orders → pay ✓ größe":   "orders → pay ✓ größe",
		"\x1b[31mred":            `\x1b[31mred`,
		"a\nb\tc\x00":            `a\x0ab\x09c\x00`,
		"\x7f\u009b":             `\x7f\u009b`,
		"\u202etxt.exe":          `\u202etxt.exe`,
		"a\u200bb\u2028c\ufeff":  `a\u200bb\u2028c\ufeff`,
		"\xff\xfe":               `\xff\xfe`,
		"\U000e0041":             `\U000e0041`,
		"a literal \\x1b stays.": "a literal \\x1b stays.",
	} {
		if got := Clean(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// FuzzClean: whatever comes in, what goes out is one line of text on which no terminal acts, and cleaning it again changes
// nothing.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b]0;title\x07", "\u202e", "\xc2", "é\xff", "\U000e0001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unclean) {
			t.Errorf("%q: %q", s, got)
		}
		if again := Clean(got); again != got {
			t.Errorf("%q: %q, and cleaned again %q", s, got, again)
		}
	})
}

// FuzzAppendJSON: JSON stays the JSON that it was.
func FuzzAppendJSON(f *testing.F) {
	for _, s := range []string{`{"a":"\u001b"}`, "{\"a\":\"\u202e\u0085\",\n\t\"b\":[1,null]}", `"\U000e0041"`, "0\r", "\"\U000e0041\"", "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want, got any
		if json.Unmarshal(text, &want) != nil {
			t.Skip()
		}
		out := AppendJSON(nil, text)
		if err := json.Unmarshal(out, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, %v", text, out, err)
		}
		if strings.ContainsFunc(strings.NewReplacer("\n", "", "\t", "").Replace(string(out)), unclean) {
			t.Errorf("%q: %q", text, out)
		}
	})
}
