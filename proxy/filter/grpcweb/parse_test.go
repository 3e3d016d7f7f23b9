// SPDX-License-Identifier: Apache-2.0

package grpcweb

import "testing"

// TestParse: there is nothing to say, and what is said is refused.
func TestParse(t *testing.T) {
	t.Parallel()
	if _, err := parse(typeURL, nil); err != nil {
		t.Error(err)
	}
	for _, in := range [][]byte{{0x08, 1}, {0xff}} {
		if _, err := parse(typeURL, in); err == nil {
			t.Errorf("%x is taken", in)
		}
	}
}
