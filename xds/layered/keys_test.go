// SPDX-License-Identifier: Apache-2.0

package layered

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// TestNamesAreForgotten: what configurations of before have named is not remembered, what one of now names is.
func TestNamesAreForgotten(t *testing.T) {
	t.Parallel()
	r := New()
	kept := []mesh.RuntimeKey{r.Key("kept"), r.Key("kept")}
	if kept[0] != kept[1] {
		t.Error("two keys of one name")
	}
	for i := range 1000 {
		r.Key(fmt.Sprint("listener.", i))
	}
	r.Key("kept")
	for names := 2; names > 1; {
		runtime.GC()
		runtime.Gosched()
		r.mu.Lock()
		names = len(r.asked)
		r.mu.Unlock()
	}
	if r.asked["kept"].Value() != kept[0] {
		t.Error("a key that is kept is forgotten")
	}
	runtime.KeepAlive(kept)
}
