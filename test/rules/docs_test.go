// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
)

var rewrite = flag.Bool("rewrite", false, "write the generated documents anew")

// generated compares a document with what it should be, or writes it.
func generated(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	if *rewrite {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; run `make docs deps` and read the difference", name)
	}
}

// TestDependencies keeps the modules that each binary links, so that a new one is seen in review.
func TestDependencies(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	fmt.Fprintln(&out, "# The modules that each binary links. `make deps` writes this; docs/deps.md says what each is for.")
	for _, cmd := range []string{"meshtap", "meshtapd"} {
		list := exec.Command("go", "list", "-pgo=off", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/"+cmd)
		list.Dir = root
		b, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		mods := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" {
				mods[line] = true
			}
		}
		fmt.Fprintf(&out, "\n%s\n", cmd)
		for _, m := range sorted(mods) {
			fmt.Fprintf(&out, "  %s\n", m)
		}
	}
	generated(t, "docs/deps.txt", out.Bytes())
}

func sorted(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// TestDirectDependenciesAreExplained: docs/deps.md has a row for each module that go.mod requires directly.
func TestDirectDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "deps.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) == 2 && strings.Contains(f[0], ".") && strings.HasPrefix(f[1], "v") && !bytes.Contains(doc, []byte("`"+f[0]+"`")) {
			t.Errorf("docs/deps.md does not say what %s is for", f[0])
		}
	}
}

// TestExtensionsDoc keeps the list of extensions, and that each has an example that loads.
func TestExtensionsDoc(t *testing.T) {
	t.Parallel()
	all := app.NewExtensions(io.Discard).All()
	var out bytes.Buffer
	fmt.Fprint(&out, `# Extensions

Generated from the table in `+"`cmd/meshtap/app/extensions.go`"+`. A configuration that names a type that is not here is refused, with
the list of those that are. Posture says which peers an extension may face: *untrusted* both sides, *trusted* none,
*data-plane-agnostic* does not touch traffic.

| category | name | types | status | posture | example |
|---|---|---|---|---|---|
`)
	for _, e := range all {
		if e.Example == "" {
			t.Errorf("%s has no example below configs/", e.Name)
		} else if _, err := os.Stat(filepath.Join(root, "configs", e.Example)); err != nil {
			t.Errorf("the example of %s: %v", e.Name, err)
		}
		fmt.Fprintf(&out, "| %s | `%s` | %s | %s | %s | [%s](../configs/%s) |\n", e.Category, e.Name, types(e), e.Status, e.Posture, e.Example, e.Example)
	}
	generated(t, "docs/extensions.md", out.Bytes())
}

func types(e registry.Info) string {
	var out []string
	for _, u := range e.TypeURLs {
		out = append(out, "`"+u+"`")
	}
	return strings.Join(out, " ")
}

// TestDefaultsDoc keeps the list of defaults that differ from Envoy's.
func TestDefaultsDoc(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	fmt.Fprint(&out, `# Defaults that differ from Envoy's

Generated from the code. What a configuration sets always wins. Limits of sizes, counts, rates, times and memory are on by
default; settings of trust and rewriting keep Envoy's defaults.

| field | here | Envoy | why |
|---|---|---|---|
`)
	lim := h1.Defaults()
	message := func(what, envoy, here string) resource.Difference {
		return resource.Difference{Where: "HTTP/1 message: " + what, Envoy: envoy, Meshtap: here, Why: "one part of a head must not take all the room, and no server behind needs more"}
	}
	all := append(resource.Differences(),
		message("request target", "60 KiB, with the rest of the head", fmt.Sprintf("%d KiB", lim.TargetBytes>>10)),
		message("one field's value", "60 KiB, with the rest of the head", fmt.Sprintf("%d KiB", lim.ValueBytes>>10)),
		message("trailers", "60 KiB, 100 fields", fmt.Sprintf("%d KiB, %d fields", lim.TrailerBytes>>10, lim.Trailers)),
		resource.Difference{Where: "process: heads and bodies that HTTP/2 connections of clients hold, each beyond 256 KiB", Envoy: "unlimited", Meshtap: "32 MiB; no connection is given more than its 256 KiB then", Why: "many connections, each within its own bounds, could use up the memory"},
		resource.Difference{Where: "process: connections (downstream_connections monitor of the overload manager)", Envoy: "unlimited", Meshtap: "50,000, at most half of the descriptors", Why: "descriptors are left for upstreams and the administration interface"},
		resource.Difference{Where: "--drain-time-s", Envoy: "600", Meshtap: "30", Why: "what ends a pod kills it after 30 s"},
	)
	for _, d := range all {
		fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", d.Where, d.Meshtap, d.Envoy, d.Why)
	}
	generated(t, "docs/defaults.md", out.Bytes())
}

// TestExamplesLoad: every bootstrap below configs/ and deploy/ is accepted without an error.
func TestExamplesLoad(t *testing.T) {
	t.Parallel()
	parsers := app.NewExtensions(io.Discard).Parsers()
	n := 0
	for _, dir := range []string{"configs", "deploy"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*bootstrap*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if dir == "configs" {
			if files, err = filepath.Glob(filepath.Join(root, dir, "*.yaml")); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			if base := filepath.Base(f); base == "mesh.yaml" || strings.HasSuffix(base, "-resources.yaml") {
				continue // the daemon's, and what a control plane sends: tests of their own load them
			}
			n++
			report := bootstrap.Validate(bootstrap.Options{Path: withCertificates(t, f), Parsers: parsers})
			if report.Errors() > 0 {
				t.Errorf("%s\n%s", f, report.Text())
			}
		}
	}
	if n == 0 {
		t.Error("there are no examples")
	}
}

// withCertificates returns a file that says the same and whose certificates are there, which is the file itself where it
// names none.
func withCertificates(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(testcert.ExampleDir)) {
		return file
	}
	dir := t.TempDir()
	testcert.WriteExample(t, dir)
	text = bytes.ReplaceAll(text, []byte(testcert.ExampleDir), []byte(dir))
	file = filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestMetricsMove: every index of proxy/metrics is named somewhere besides its definition and its schema, so that no metric
// exists that nobody moves.
func TestMetricsMove(t *testing.T) {
	t.Parallel()
	index := regexp.MustCompile(`^\t([A-Z][A-Za-z0-9]+)(?: = iota)?$`)
	schema := regexp.MustCompile(`^\t*([A-Z][A-Za-z0-9]+): +(?:\{|classDef)`)
	word := regexp.MustCompile(`[A-Z][A-Za-z0-9]+`)
	own, used := map[string]string{}, map[string]bool{}
	for name, p := range list(t) {
		if !strings.HasPrefix(name, "proxy") && !strings.HasPrefix(name, "cmd") {
			continue
		}
		eachFile(t, p, func(file, src string) {
			for line := range strings.Lines(src) {
				line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), "//")
				if name == "proxy/metrics" {
					if m := index.FindStringSubmatch(line); m != nil {
						own[m[1]] = file
						continue
					}
					if m := schema.FindStringSubmatchIndex(line); m != nil {
						// What is added up from others moves by itself.
						key := line[m[2]:m[3]]
						used[key] = used[key] || strings.Contains(line, "Sum:") || strings.Contains(src, line+"\n\t\t\tSum:")
						line = line[m[1]:]
					}
				}
				for _, w := range word.FindAllString(line, -1) {
					used[w] = true
				}
			}
		})
	}
	for name, file := range own {
		if !used[name] {
			t.Errorf("proxy/metrics/%s: nobody moves %s; a metric that never moves must not exist", file, name)
		}
	}
}

// TestNamesInDocs: what the pages about the two flows name in code exists, as `Type.Method` or `package.Name`, with the
// package in front or not.
func TestNamesInDocs(t *testing.T) {
	t.Parallel()
	decl := regexp.MustCompile(`(?m)^(?:func (?:\([a-zA-Z_]* ?\*?([A-Za-z0-9]+)(?:\[[^\]]*\])?\) )?|type |var |const |\t)([A-Za-z0-9]+)\b`)
	known := map[string]bool{}
	for name, p := range list(t) {
		eachFile(t, p, func(_, src string) {
			for _, m := range decl.FindAllStringSubmatch(src, -1) {
				pkg := filepath.Base(name)
				if m[1] != "" {
					known[m[1]+"."+m[2]], known[pkg+"."+m[1]+"."+m[2]] = true, true
				}
				known[pkg+"."+m[2]] = true
			}
		})
	}
	quoted := regexp.MustCompile("`([a-zA-Z0-9/]+(?:\\.[a-zA-Z0-9]+)+)`")
	for _, doc := range []string{"docs/request.md", "docs/config.md"} {
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quoted.FindAllStringSubmatch(string(b), -1) {
			if ext := filepath.Ext(m[1]); known[m[1][strings.LastIndex(m[1], "/")+1:]] || ext == ".go" || strings.HasPrefix(m[1], "meshtap.") {
				continue
			}
			t.Errorf("%s names `%s`, which is not there", doc, m[1])
		}
	}
}
