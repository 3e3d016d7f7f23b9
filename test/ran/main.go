// SPDX-License-Identifier: Apache-2.0

// Command ran runs go test with the given arguments, prints what go test prints, and then holds docs/coverage.md against
// it: a row that is said to work names tests, and those of the packages that were tested must have run and passed. A test
// that was skipped or renamed makes the row a lie.
//
//	go run ./test/ran [-json FILE] ARGUMENTS OF GO TEST
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

const module = "github.com/meshtap/meshtap/"

func main() {
	os.Exit(run(os.Stdout, os.Args[1:]))
}

func run(out io.Writer, args []string) (code int) {
	doc, err := os.ReadFile("docs/coverage.md")
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran:", err, "(run it at the root of the project)")
		return 1
	}
	rows, err := parse(string(doc))
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran: docs/coverage.md:", err)
		return 1
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran: go test:", err)
		return 1
	}
	seen, err := follow(out, pipe)
	if err = errors.Join(err, cmd.Wait()); err != nil {
		fmt.Fprintln(os.Stderr, "ran: go test:", err)
		code = 1
	}
	for _, lie := range compare(rows, seen) {
		fmt.Fprintln(os.Stderr, "docs/coverage.md:", lie)
		code = 1
	}
	return code
}

// event is a line of go test -json; see go doc test2json.
type event struct{ Action, Package, Test, Output, ImportPath string }

// results says how each test of each package ended: pass, fail or skip.
type results map[string]map[string]string

// follow prints a line for each package that passed, everything of those that failed, and collects how the tests ended.
func follow(out io.Writer, in io.Reader) (results, error) {
	all := results{}
	texts := map[string]*strings.Builder{}
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		if e.Action == "build-output" {
			fmt.Fprint(out, e.Output)
			continue
		}
		if e.Package == "" {
			continue
		}
		pkg := strings.TrimPrefix(e.Package, module)
		if all[pkg] == nil {
			all[pkg], texts[pkg] = map[string]string{}, &strings.Builder{}
		}
		switch e.Action {
		case "output":
			texts[pkg].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test != "" {
				all[pkg][e.Test] = e.Action
				continue
			}
			show(out, e.Action, texts[pkg].String())
			delete(texts, pkg)
		}
	}
}

// show prints what a package wrote: all of it where it failed, else its last line.
func show(out io.Writer, action, text string) {
	if action == "fail" {
		fmt.Fprint(out, text)
		return
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "[no test files]") {
		fmt.Fprintln(out, last)
	}
}
