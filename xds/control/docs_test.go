// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/xds/control"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The example is loaded, a proxy takes what each of its nodes gets, and it stands in the documentation as it is.
func TestExample(t *testing.T) {
	t.Parallel()
	text := read(t, "configs", "mesh.yaml")
	m, err := control.Parse("mesh.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range m.Services {
		decodes(t, control.Build(m, control.Node{Service: name, ID: "x"}))
		for _, e := range s.Endpoints {
			decodes(t, control.Build(m, control.Node{Service: name, ID: e.Node}))
		}
	}
	_, example, _ := strings.Cut(read(t, "docs", "mesh-yaml.md"), "```yaml\n")
	if example != text+"```\n" {
		t.Error("docs/mesh-yaml.md must end with the text of configs/mesh.yaml")
	}
	// It shows every field but these.
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`[a-z0-9_]+:`).FindAllString(text, -1) {
		used[strings.TrimSuffix(m, ":")] = true
	}
	for typ, fields := range schema() {
		for _, f := range fields {
			if !used[f] && !slices.Contains([]string{"regex", "present", "per_endpoint"}, f) {
				t.Errorf("the example does not show %s of %s", f, typ)
			}
		}
	}
}

// schema returns the fields of each type of a mesh.
func schema() map[string][]string {
	out := map[string][]string{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if t.NumField() == 0 || t.Field(0).Tag.Get("yaml") == "" || out[t.Name()] != nil {
				return // an address
			}
			for i := range t.NumField() {
				out[t.Name()] = append(out[t.Name()], t.Field(i).Tag.Get("yaml"))
				walk(t.Field(i).Type)
			}
		}
	}
	walk(reflect.TypeFor[control.Mesh]())
	return out
}

var row = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|")

// Each table of the documentation has the fields of one type, and all of them.
func TestEachFieldIsDocumented(t *testing.T) {
	t.Parallel()
	tables := map[string]bool{}
	for _, block := range strings.Split(read(t, "docs", "mesh-yaml.md"), "\n| field | kind | default | meaning |\n")[1:] {
		block, _, _ = strings.Cut(block, "\n\n")
		var fields []string
		for _, m := range row.FindAllStringSubmatch(block, -1) {
			fields = append(fields, m[1])
		}
		slices.Sort(fields)
		tables[strings.Join(fields, " ")] = true
	}
	types := schema()
	for typ, fields := range types {
		slices.Sort(fields)
		if !tables[strings.Join(fields, " ")] {
			t.Errorf("docs/mesh-yaml.md has no table with the fields of %s: %q", typ, fields)
		}
	}
	if len(tables) != len(types) {
		t.Errorf("there are %d tables for %d types", len(tables), len(types))
	}
}
