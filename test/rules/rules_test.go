// SPDX-License-Identifier: Apache-2.0

// Package rules proves the rules of the house: that imports point down, that the walls between the rooms stand, that
// every package says what it is for, and that what the documents list is there. It needs the go command and nothing else.
package rules

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/meshtap/meshtap"

// root is the checkout.
var root = filepath.Join("..", "..")

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir, Doc, Name string
	GoFiles, Imports           []string
	Standard                   bool
}

var packages = sync.OnceValues(func() (map[string]*pkg, error) {
	cmd := exec.Command("go", "list", "-pgo=off", "-json=ImportPath,Dir,Doc,Name,GoFiles,Imports,Standard", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	all := map[string]*pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")] = p
	}
})

func list(t *testing.T) map[string]*pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// matches reports whether a package is named by a pattern of layers.txt.
func matches(pattern, p string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == base || strings.HasPrefix(p, base+"/")
	}
	if base, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(p) == base
	}
	return pattern == p
}

func layers(t *testing.T) (of func(p string) int) {
	t.Helper()
	f, err := os.Open("layers.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			lines = append(lines, strings.Fields(line))
		}
	}
	return func(p string) int {
		for i, line := range lines {
			for _, pattern := range line {
				if matches(pattern, p) {
					return i
				}
			}
		}
		return -1
	}
}

// leaves may import each other where they do not make a circle, which the compiler sees to.
func leaf(p string) bool { return strings.HasPrefix(p, "internal/") || strings.HasPrefix(p, "api/") }

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	of := layers(t)
	for name, p := range list(t) {
		if strings.HasPrefix(name, "test/") {
			continue
		}
		from := of(name)
		if from < 0 {
			t.Errorf("%s is in no layer: add it to test/rules/layers.txt", name)
			continue
		}
		for _, imp := range p.Imports {
			dep, ours := strings.CutPrefix(imp, module+"/")
			if !ours || leaf(name) && leaf(dep) {
				continue
			}
			if to := of(dep); to <= from {
				t.Errorf("%s imports %s, which is not below it", name, dep)
			}
		}
	}
}

// walls are imports that are forbidden, each with the reason.
var walls = []struct {
	from, to, reason string
}{
	{"proxy/...", "xds/...", "the data plane and its configuration meet in mesh"},
	{"proxy/...", "discovery/...", "endpoints reach the data plane as mesh.EndpointSet"},
	{"proxy/...", "eventtap/...", "the tap sees mesh.Outcome and mesh.Notice and nothing else"},
	{"xds/...", "proxy/...", "configuration does not know who uses it"},
	{"eventtap/...", "proxy/...", "the tap never touches the request"},
	{"discovery/...", "proxy/...", "a source of endpoints does not know who uses it"},
	{"mesh", "internal/...", "mesh holds nouns on the standard library alone"},
}

// purity lists packages that must not import something of the standard library.
var purity = []struct {
	pkgs, forbidden []string
	reason          string
}{
	{[]string{"lb", "circuit", "xds/graph", "proxy/route"}, []string{"net", "net/http", "os", "syscall"}, "decisions are pure: no I/O"},
}

func TestWalls(t *testing.T) {
	t.Parallel()
	for name, p := range list(t) {
		for _, w := range walls {
			if !matches(w.from, name) {
				continue
			}
			for _, imp := range p.Imports {
				if dep, ours := strings.CutPrefix(imp, module+"/"); ours && matches(w.to, dep) {
					t.Errorf("%s imports %s: %s", name, dep, w.reason)
				}
			}
		}
		for _, r := range purity {
			for _, q := range r.pkgs {
				if q != name {
					continue
				}
				for _, imp := range p.Imports {
					for _, bad := range r.forbidden {
						if imp == bad {
							t.Errorf("%s imports %s: %s", name, imp, r.reason)
						}
					}
				}
			}
		}
	}
}

// TestRawAccess keeps unsafe and raw system calls in their two packages, protos in those that parse.
func TestRawAccess(t *testing.T) {
	t.Parallel()
	for name, p := range list(t) {
		if strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "api/") {
			continue
		}
		for _, imp := range p.Imports {
			if imp == "unsafe" && name != "internal/sys" && name != "internal/bytebuf" {
				t.Errorf("%s imports unsafe, which belongs in internal/sys", name)
			}
		}
	}
	for name, p := range list(t) {
		if strings.HasPrefix(name, "xds") || strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "cmd/meshtapd") || name == "internal/protofields" || name == "internal/protomatch" || name == "internal/als" {
			continue
		}
		eachFile(t, p, func(file, src string) {
			if strings.Contains(src, `"github.com/envoyproxy/go-control-plane/`) && !strings.HasPrefix(file, "parse") {
				t.Errorf("%s/%s imports Envoy's protos: only an extension's parse*.go does, and xds", name, file)
			}
		})
	}
}

func eachFile(t *testing.T, p *pkg, f func(file, src string)) {
	t.Helper()
	for _, g := range p.GoFiles {
		b, err := os.ReadFile(filepath.Join(p.Dir, g))
		if err != nil {
			t.Fatal(err)
		}
		f(g, string(b))
	}
}

// TestFiles: a licence line, a package comment, no file that nobody can hold in the head, no hidden registration.
func TestFiles(t *testing.T) {
	t.Parallel()
	for name, p := range list(t) {
		generated := strings.HasPrefix(name, "api/")
		if p.Doc == "" && !generated && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment: say what it is for and where it stands in the flow", name)
		}
		eachFile(t, p, func(file, src string) {
			if generated && strings.HasSuffix(file, ".pb.go") {
				return
			}
			if !strings.HasPrefix(src, "// SPDX-License-Identifier: Apache-2.0\n") {
				t.Errorf("%s/%s does not begin with the licence line", name, file)
			}
			if n := strings.Count(src, "\n"); n > 800 {
				t.Errorf("%s/%s has %d lines: split it by concern", name, file, n)
			}
			if strings.Contains(src, "\nfunc init()") {
				t.Errorf("%s/%s registers itself in init: write it into the table of cmd/meshtap/app", name, file)
			}
			if strings.Contains(src, "zap.L()") || strings.Contains(src, "prometheus.MustRegister") || strings.Contains(src, "promauto.") {
				t.Errorf("%s/%s uses a global of a library: take it through New", name, file)
			}
		})
	}
}
