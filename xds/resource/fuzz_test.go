// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"errors"
	"path/filepath"
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

// fuzz decodes what a control plane could send. Nothing may panic, an error is told with its resource, and what is
// accepted is accepted again in the same way.
func fuzz(f *testing.F, name string) {
	k := kinds[name]
	for _, b := range seeds(f, name) {
		f.Add(b)
	}
	d := resource.New(resource.Options{
		Parsers:             resourcetest.Parsers(),
		AcceptObservational: true,
		ControlPlane:        []string{"xds_cluster"},
		ReadFile:            func(string, int) ([]byte, error) { return nil, errors.New("no files here") },
		LookupEnv:           lookupEnv,
	})
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
func seeds(f *testing.F, name string) (out [][]byte) {
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
