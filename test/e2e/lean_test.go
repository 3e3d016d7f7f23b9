// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// TestBinaryIsLean: nothing is linked that finds methods by a name which is known at run time only, as text/template does.
// For one such function the linker keeps every exported method of every type: a quarter more of the binary, and 3 MiB more
// of memory in each sidecar.
func TestBinaryIsLean(t *testing.T) {
	t.Parallel()
	if sidecar.RaceEnabled {
		t.Skip("not the binary that is deployed")
	}
	binary, err := os.ReadFile(sidecar.Meshtap(t))
	if err != nil {
		t.Fatal(err)
	}
	// The names of functions stand in the table that stack traces are made of, each between two zero bytes.
	linked := func(function string) bool { return bytes.Contains(binary, []byte("\x00"+function+"\x00")) }
	if !linked("main.main") {
		t.Fatal("the table of functions is not what it was")
	}
	// Nobody calls these.
	for _, f := range []string{"reflect.(*Value).Methods", "time.(*Time).ISOWeek", "text/template.(*state).evalField"} {
		if linked(f) {
			t.Errorf("%s is linked; go build -tags grpcnotrace -ldflags=-dumpdep ./cmd/meshtap says by whom (look for ReflectMethod)", f)
		}
	}
}
