// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/meshtap/meshtap/proxy/inspect"
)

// TestConnSize: all idle connections pay for a field. The allocator's next step is 256 bytes.
func TestConnSize(t *testing.T) {
	t.Parallel()
	if strconv.IntSize < 64 {
		t.Skip("the bytes are those of 64 bits")
	}
	if n := reflect.TypeFor[conn]().Size(); n != 248 {
		t.Errorf("a conn has %d bytes, want 248", n)
	}
	if n := reflect.TypeFor[inspect.ConnInfo]().Size(); n != 120 {
		t.Errorf("its ConnInfo has %d bytes, want 120", n)
	}
}
