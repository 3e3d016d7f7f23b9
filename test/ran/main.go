// SPDX-License-Identifier: Apache-2.0

// Command ran runs go test with the given arguments, prints what go test prints, and then holds docs/features.md against
// it: a row that is said to work names tests, and those of the packages that were tested must have run and passed. A test
// that was skipped or renamed makes the row a lie.
//
// With -again first, the tests that failed are run once more, alone: on a machine that others share, a test of real servers
// may miss its time. What passes then is named at the end, so that it is seen and mended. Races, panics, broken invariants
// and more than a few failures have no second try.
//
// With -norows the document is left aside, for builds in which some of its tests do not run.
//
//	go run ./test/ran [-again] [-norows] ARGUMENTS OF GO TEST
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
	var second, norows bool
	for ; len(args) > 0; args = args[1:] {
		switch args[0] {
		case "-again":
			second = true
			continue
		case "-norows":
			norows = true
			continue
		}
		break
	}
	var rows []row
	if !norows {
		doc, err := os.ReadFile("docs/features.md")
		if err != nil {
			fmt.Fprintln(os.Stderr, "ran:", err, "(run it at the root of the project)")
			return 1
		}
		if rows, err = parse(string(doc)); err != nil {
			fmt.Fprintln(os.Stderr, "ran: docs/features.md:", err)
			return 1
		}
	}
	seen, failed, err := goTest(out, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran: go test:", err)
		code = 1
	}
	if second && len(failed) > 0 && goTestFailed(err) {
		code = tryAgain(out, args, seen, failed)
	}
	for _, lie := range compare(rows, seen) {
		fmt.Fprintln(os.Stderr, "docs/features.md:", lie)
		code = 1
	}
	return code
}

// goTest runs go test. err is that of the command where tests failed; failed holds what their packages wrote.
func goTest(out io.Writer, args []string) (seen results, failed map[string]string, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	seen, failed, err = follow(out, pipe)
	if ended := cmd.Wait(); err == nil { // else not all of it was read, which no second try makes good
		err = ended
	}
	return seen, failed, err
}

// goTestFailed is whether go test itself ran to its end and said that tests failed.
func goTestFailed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == 1
}

// tryAgain runs the failed tests once more, and enters in seen how they ended. It returns 0 if all of them passed.
func tryAgain(out io.Writer, args []string, seen results, failed map[string]string) (code int) {
	tries, err := again(failed, seen)
	if err != nil {
		fmt.Fprintln(out, "ran: no second try:", err)
		return 1
	}
	var late []string
	for _, s := range tries {
		fmt.Fprintf(out, "ran: once more, alone: %s %s\n", s.pkg, strings.Join(s.tests, " "))
		now, _, err := goTest(out, s.args(args))
		for name, how := range now[s.pkg] {
			seen[s.pkg][name] = how
		}
		for _, name := range s.tests {
			if seen[s.pkg][name] == "pass" {
				late = append(late, s.pkg+"."+name)
			}
		}
		if err != nil {
			code = 1
		}
	}
	if len(late) > 0 {
		fmt.Fprintln(out, "ran: FAILED AT FIRST and passed alone, to be looked at:", strings.Join(late, " "))
	}
	return code
}

// event is a line of go test -json; see go doc test2json.
type event struct{ Action, Package, Test, Output, ImportPath string }

// results says how each test of each package ended: pass, fail or skip.
type results map[string]map[string]string

// follow prints a line for each package that passed, everything of those that failed, and collects how the tests ended and
// what the failed packages wrote.
func follow(out io.Writer, in io.Reader) (all results, failed map[string]string, err error) {
	all, failed = results{}, map[string]string{}
	texts := map[string]*strings.Builder{}
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return all, failed, nil
		} else if err != nil {
			return all, failed, err
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
			if e.Action == "fail" {
				failed[pkg] = texts[pkg].String()
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
