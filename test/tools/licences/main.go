// SPDX-License-Identifier: Apache-2.0

// Licences reads the licence of every module that the two binaries link and fails where one is missing, unknown or not
// among those that may be linked. It reads the licence files of the module cache; no service is asked.
//
//	licences -root DIR
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// allowed are the licences that ask for no more than their own text and notice.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

var names = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)`)

type module struct {
	Path, Version, Dir string
	Main               bool
}

func main() {
	root := flag.String("root", ".", "the folder of the module to check")
	flag.Parse()
	if err := run(os.Stdout, *root); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, root string) error {
	mods, err := linked(root)
	if err != nil {
		return err
	}
	c, err := assets.DefaultClassifier()
	if err != nil {
		return err
	}
	var bad []error
	for _, m := range mods {
		have, err := licences(c, m.Dir)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", m.Path, err))
			continue
		}
		fmt.Fprintf(out, "%-60s %s\n", m.Path+" "+m.Version, strings.Join(have, ", "))
		for _, l := range have {
			if !slices.Contains(allowed, l) {
				bad = append(bad, fmt.Errorf("%s is under %s; allowed are %s", m.Path, l, strings.Join(allowed, ", ")))
			}
		}
	}
	return errors.Join(bad...)
}

// linked returns the modules that the binaries link, each once, without our own.
func linked(root string) ([]module, error) {
	cmd := exec.Command("go", "list", "-pgo=off", "-deps", "-json=Module", "./cmd/...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var mods []module
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var p struct{ Module *module }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module != nil && !p.Module.Main && !slices.Contains(mods, *p.Module) {
			mods = append(mods, *p.Module)
		}
	}
	if len(mods) == 0 {
		return nil, errors.New("go list names no module: is this the root of the project?")
	}
	slices.SortFunc(mods, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return mods, nil
}

// licences returns the names of the licences in the files of dir that are called so.
func licences(c *classifier.Classifier, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() || !names.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		n := 0
		for _, m := range c.Match(b).Matches {
			if m.MatchType == "License" {
				found, n = append(found, m.Name), n+1
			}
		}
		if n == 0 {
			return nil, fmt.Errorf("%s is no licence that we know", e.Name())
		}
	}
	if len(found) == 0 {
		return nil, errors.New("there is no licence file")
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
