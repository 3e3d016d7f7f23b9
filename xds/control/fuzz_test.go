// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/xds/control"
)

// FuzzParse: any text is either a mesh, from which each node's resources can be built, or is refused with issues that have
// a place in the text and hold nothing that moves a terminal.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := control.Parse("mesh.yaml", text)
		if err == nil {
			for name, s := range m.Services {
				control.Build(m, control.Node{Service: name, ID: "x"})
				for _, e := range s.Endpoints {
					control.Build(m, control.Node{Service: name, ID: e.Node})
				}
			}
			return
		}
		var invalid *control.Invalid
		if !errors.As(err, &invalid) || len(invalid.Issues) == 0 {
			t.Fatalf("the error is %v", err)
		}
		lines := 1
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} { // YAML 1.1 section 4.1.4
			lines += strings.Count(string(text), end)
		}
		for _, i := range invalid.Issues {
			if i.Message == "" || i.Line < 0 || i.Line > lines+1 {
				t.Errorf("%+v in %d lines", i, lines)
			}
		}
		if strings.ContainsFunc(strings.ReplaceAll(invalid.Error(), "\n", ""), unicode.IsControl) || strings.ContainsFunc(invalid.Summary(), unicode.IsControl) {
			t.Errorf("control characters in %q", invalid.Error())
		}
	})
}
