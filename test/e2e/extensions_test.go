// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/test/e2e/examples"
)

// Every extension has an example that uses it, and every example is served.
func TestEveryExtensionHasAnExample(t *testing.T) {
	t.Parallel()
	var served []string
	for _, e := range examples.All() {
		served = append(served, e.File)
	}
	for _, x := range app.NewExtensions(io.Discard).All() {
		if !slices.Contains(served, x.Example) {
			t.Errorf("%s: its example %q is not in the table of test/e2e/examples", x.Name, x.Example)
			continue
		}
		b, err := os.ReadFile(filepath.Join(examples.Dir(), x.Example))
		if err != nil {
			t.Fatal(err)
		}
		// What its control plane sends, or the files that it reads.
		name := filepath.Join(examples.Dir(), strings.TrimSuffix(x.Example, ".yaml"))
		parts, err := filepath.Glob(filepath.Join(name, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range append(parts, name+"-resources.yaml") {
			if more, err := os.ReadFile(part); err == nil {
				b = append(b, more...)
			}
		}
		text := comments.ReplaceAllString(string(b), "")
		for _, typ := range x.TypeURLs {
			if !strings.Contains(text, "type.googleapis.com/"+typ) {
				t.Errorf("%s: its example %s does not use %s", x.Name, x.Example, typ)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(examples.Dir(), "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := filepath.Base(f)
		// The demo's files are served by its own tests, and resources with the proxy that asks for them.
		if strings.HasPrefix(name, "demo") || name == "mesh.yaml" || strings.HasSuffix(name, "-resources.yaml") {
			continue
		}
		if !slices.Contains(served, name) {
			t.Errorf("configs/%s is not in the table of test/e2e/examples", name)
		}
	}
}

var comments = regexp.MustCompile(`(?m)^\s*#.*$`)
