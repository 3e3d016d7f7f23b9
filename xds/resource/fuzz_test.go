// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

func FuzzListener(f *testing.F)  { fuzz(f, "listener.yaml") }
func FuzzRoutes(f *testing.F)    { fuzz(f, "route.yaml") }
func FuzzCluster(f *testing.F)   { fuzz(f, "cluster.yaml") }
func FuzzScope(f *testing.F)     { fuzz(f, "scope.yaml") }
func FuzzHost(f *testing.F)      { fuzz(f, "host.yaml") }
func FuzzSecret(f *testing.F)    { fuzz(f, "secret.yaml") }
func FuzzFilter(f *testing.F)    { fuzz(f, "extension.yaml") }
func FuzzEndpoints(f *testing.F) { fuzz(f, "endpoints.yaml") }
func FuzzRuntime(f *testing.F)   { fuzz(f, "runtime.yaml") }

// TestMutated decodes 10,000 damaged resources of each type: nothing panics, and none makes the decoder take much more memory
// than the largest good one does. It is not parallel: what others allocate would count.
func TestMutated(t *testing.T) {
	d := resource.New(untrusted())
	for name, k := range kinds {
		good := seeds(t, name)
		most := uint64(0)
		for _, b := range good {
			most = max(most, allocated(func() { _, _ = d.Decode(k.typeURL, b, "1") }))
		}
		random := rand.New(rand.NewPCG(1, 2))
		const batch = 10
		for range 10_000 / batch {
			var damaged [][]byte
			for range batch {
				b := slices.Clone(good[random.IntN(len(good))])
				for range 1 + random.IntN(4) {
					if len(b) > 0 {
						b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
					}
				}
				damaged = append(damaged, b)
			}
			n := allocated(func() {
				for _, b := range damaged {
					_, _ = d.Decode(k.typeURL, b, "1")
				}
			})
			const others = 1 << 20 // what the test itself and the runtime take
			if n > 2*batch*most+others {
				t.Errorf("%s: %d bytes for %d damaged resources, and %d for the largest good one", name, n, batch, most)
			}
		}
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// untrusted are the options of a decoder that sees no file.
func untrusted() resource.Options {
	return resource.Options{
		Parsers:             resourcetest.Parsers(),
		AcceptObservational: true,
		ControlPlane:        []string{"xds_cluster"},
		ReadFile:            func(string, int) ([]byte, error) { return nil, errors.New("no files here") },
		LookupEnv:           lookupEnv,
	}
}

// fuzz decodes what a control plane could send. Nothing may panic, an error is told with its resource, and what is
// accepted is accepted again in the same way.
func fuzz(f *testing.F, name string) {
	k := kinds[name]
	for _, b := range seeds(f, name) {
		f.Add(b)
	}
	d := resource.New(untrusted())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := d.Decode(k.typeURL, b, "1")
		var list resource.Errors
		switch {
		case err != nil && (!errors.As(err, &list) || len(list) == 0 || len(list) > 100):
			t.Fatalf("not a list of errors: %v", err)
		case err != nil && got.Value != nil:
			t.Fatal("a value beside an error")
		case err != nil:
			return
		}
		again, err := d.Decode(k.typeURL, b, "1")
		if err != nil {
			t.Fatalf("refused the second time: %v", err)
		}
		if a, b := resourcetest.Dump(got.Value), resourcetest.Dump(again.Value); a != b {
			t.Fatalf("two values:\n%s\n%s", a, b)
		}
	})
}

// seeds are the resources of a kind that the scripts hold.
func seeds(f testing.TB, name string) (out [][]byte) {
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, script := range scripts {
		ar, err := txtar.ParseFile(script)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if file.Name == name {
				out = append(out, serialize(f, kinds[name].message(), file.Data))
			}
		}
	}
	return out
}
