// SPDX-License-Identifier: Apache-2.0

package nearest

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	t.Parallel()
	names := []string{
		"address", "port_value", "named_port", "protocol", "connect_timeout", "load_assignment", "lb_policy", "id",
		"cluster", "clusters", "RING_HASH", "ROUND_ROBIN", strings.Repeat("a", 999),
	}
	for word, want := range map[string]string{
		"adress":           "address",
		"port":             "port_value",
		"timeout_connect":  "connect_timeout",
		"connect_timeouts": "connect_timeout",
		"conenct_timeout":  "connect_timeout",
		"assignment":       "load_assignment",
		"lb_polcy":         "lb_policy",
		"idd":              "id",
		"clustr":           "cluster",
		"round_robbin":     "ROUND_ROBIN",
		"ringhash":         "RING_HASH",
		"xyz":              "",
		"":                 "",
		"value":            "port_value",
		"x":                "",

		strings.Repeat("a", 1000): "",
	} {
		if got := Name(word, names); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestEdits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "abc", 0},
		{"abc", "acb", 1}, // swapped
		{"abc", "ab", 1},
		{"abc", "abxc", 1},
		{"abc", "xyz", 3},
		{"kitten", "sitting", 3},
	} {
		if got := Edits(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.a, c.b, got, c.want)
		}
		if got := Edits(c.b, c.a); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

// FuzzEdits: equal words, and only they, are at no distance; it is the same from both sides, and never more than the longer
// word has bytes.
func FuzzEdits(f *testing.F) {
	f.Add("status", "sttaus")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > longest || len(b) > longest {
			t.Skip()
		}
		d := Edits(a, b)
		if (d == 0) != (a == b) || d != Edits(b, a) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
			t.Errorf("%q and %q: %d", a, b, d)
		}
	})
}
