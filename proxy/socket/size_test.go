// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"reflect"
	"strconv"
	"testing"
)

// TestConnSize: all idle connections pay for a field. The allocator's next step is 128 bytes.
func TestConnSize(t *testing.T) {
	t.Parallel()
	if strconv.IntSize < 64 {
		t.Skip("the bytes are those of 64 bits")
	}
	if n := reflect.TypeFor[Conn]().Size(); n != 112 {
		t.Errorf("a Conn has %d bytes, want 112", n)
	}
}
