// SPDX-License-Identifier: Apache-2.0

package bootstrap

import "testing"

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
