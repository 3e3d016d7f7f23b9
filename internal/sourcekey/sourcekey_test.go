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
