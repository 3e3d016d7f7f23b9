// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/control"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

var rewrite = flag.Bool("rewrite", false, "write what was found into the scripts of testdata")

// TestScripts builds what nodes get. A script is a txtar archive with "mesh.yaml", then either "want", the report of a
// broken mesh, or files called "SERVICE NODE" or "SERVICE NODE TYPE" with what that node gets, of all types or of one.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(file), "testdata/"), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScript(t, file, strings.HasPrefix(name, "broken/"))
		})
	}
}

func runScript(t *testing.T, file string, broken bool) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(ar.Files) < 2 || ar.Files[0].Name != "mesh.yaml" {
		t.Fatal(`the archive must hold "mesh.yaml" and what is wanted`)
	}
	m, err := control.Parse("mesh.yaml", ar.Files[0].Data)
	if broken != (err != nil) {
		t.Fatalf("a broken mesh must fail and a good one must not: %v", err)
	}
	for i := range ar.Files[1:] {
		f := &ar.Files[1+i]
		var got string
		if broken {
			got = err.Error() + "\n"
		} else {
			got = built(t, m, f.Name)
		}
		if *rewrite {
			f.Data = []byte(got)
		} else if got != string(f.Data) {
			t.Errorf("%s: got:\n%s\nwant:\n%s", f.Name, got, f.Data)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var types = map[string]string{
	"clusters": resource.ClusterType, "endpoints": resource.EndpointsType, "routes": resource.RouteType, "listeners": resource.ListenerType,
}

// built writes what a node gets, and proves that a proxy of this repository accepts it whole.
func built(t *testing.T, m *control.Mesh, what string) string {
	t.Helper()
	parts := strings.Fields(what)
	if len(parts) < 2 || len(parts) > 3 {
		t.Fatalf("%q is not SERVICE NODE [TYPE]", what)
	}
	r := control.Build(m, control.Node{Service: parts[0], ID: parts[1]})
	decodes(t, r)
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(types)) {
		if len(parts) == 3 && parts[2] != kind {
			continue
		}
		list := r[types[kind]]
		for _, name := range slices.Sorted(maps.Keys(list)) {
			fmt.Fprintf(&b, "# %s %s\n%s", kind, name, asYAML(t, list[name]))
		}
	}
	if b.Len() == 0 {
		return "# nothing\n"
	}
	return b.String()
}

// decodes fails for a resource that a proxy would reject, or that holds something without effect.
func decodes(t *testing.T, r control.Resources) {
	t.Helper()
	d := resource.New(resource.Options{Parsers: resourcetest.Parsers(), RejectUnknown: true})
	for typeURL, list := range r {
		for name, m := range list {
			raw, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Decode(typeURL, raw, "1")
			if err != nil {
				t.Errorf("%s %q would be rejected: %v", typeURL, name, err)
			}
			if len(got.NoEffect) > 0 {
				t.Errorf("%s %q: %q", typeURL, name, got.NoEffect)
			}
		}
	}
}

// asYAML writes a message as a person would in a bootstrap. protojson alone changes its blanks from build to build.
func asYAML(t *testing.T, m proto.Message) string {
	t.Helper()
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		t.Fatal(err)
	}
	plainStyle(&n)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plainStyle(c)
	}
}
