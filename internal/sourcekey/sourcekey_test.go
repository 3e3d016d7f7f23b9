// SPDX-License-Identifier: Apache-2.0

package sourcekey_test

import (
	"testing"

	"github.com/meshtap/meshtap/internal/sourcekey"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, source, key string }{
		{"a", "", "a"},
		{"", "", ""},
		{"a", "file /x", "a\x00file /x"},
		{"a\x00b", "file /x", "a\x00b\x00file /x"},
	} {
		key := sourcekey.Join(tt.name, tt.source)
		if key != tt.key || sourcekey.Name(key) != tt.name || sourcekey.Source(key) != tt.source {
			t.Errorf("%q from %q is %q, %q from %q", tt.name, tt.source, key, sourcekey.Name(key), sourcekey.Source(key))
		}
	}
}

// The key of a scope leads to where it comes from, whatever its tables do.
func TestScopeKeys(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, tables := range []string{"", "file /t"} {
		for _, scopes := range []string{"", "file /s"} {
			key := sourcekey.Scope("a", sourcekey.Join(tables, scopes))
			if sourcekey.Source(key) != scopes || sourcekey.Shown(key) != "a" || seen[key] {
				t.Errorf("tables from %q, scopes from %q: %q", tables, scopes, key)
			}
			seen[key] = true
		}
	}
	if sourcekey.Shown("a") != "a" {
		t.Error("a name without a source is shown otherwise")
	}
}
