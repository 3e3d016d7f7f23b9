// SPDX-License-Identifier: Apache-2.0

package bootstrap

import "testing"

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{
		"address", "port_value", "named_port", "protocol", "connect_timeout", "load_assignment", "lb_policy", "id",
		"cluster", "clusters", "RING_HASH", "ROUND_ROBIN",
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
	} {
		if got := nearest(word, names); got != want {
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
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.a, c.b, got, c.want)
		}
		if got := edits(c.b, c.a); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, parent, last, label string }{
		{"", "", "", "the configuration"},
		{"a", "", "a", "a"},
		{"a.b[0].c", "a.b[0]", "c", "b[0].c"},
		{`a.m["x.y"].c`, `a.m["x.y"]`, "c", `m["x.y"].c`},
		{`a.m["x\".y"]`, "a", `m["x\".y"]`, `a.m["x\".y"]`},
	} {
		if got := parent(c.path); got != c.parent {
			t.Errorf("%s: parent %q, want %q", c.path, got, c.parent)
		}
		if got := last(c.path); got != c.last {
			t.Errorf("%s: last %q, want %q", c.path, got, c.last)
		}
		if got := label(c.path); got != c.label {
			t.Errorf("%s: label %q, want %q", c.path, got, c.label)
		}
	}
}
