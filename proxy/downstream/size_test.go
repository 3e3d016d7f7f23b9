// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/meshtap/meshtap/proxy/codec/h1"
)

// TestConnSize: all idle connections pay for a field. The allocator's next step is 144 bytes.
func TestConnSize(t *testing.T) {
	t.Parallel()
	if strconv.IntSize < 64 {
		t.Skip("the bytes are those of 64 bits")
	}
	if n := reflect.TypeFor[conn]().Size(); n != 128 {
		t.Errorf("a conn has %d bytes, want 128", n)
	}
	if n := reflect.TypeFor[h1.Server]().Size(); n != 64 {
		t.Errorf("its h1.Server has %d bytes, want 64", n)
	}
}
