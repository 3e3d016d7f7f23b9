// SPDX-License-Identifier: Apache-2.0

// Command fuzzall runs every fuzz target of the repository, one after the other, for a while each: go test -fuzz takes one
// target of one package at a time. It ends with 1 if any target found something.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

func main() {
	each := flag.Duration("time", 20*time.Second, "how long to run each target")
	match := flag.String("run", "", "only targets whose package or name contains this")
	flag.Parse()
	targets, err := list()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall: list the fuzz targets:", err)
		os.Exit(1)
	}
	failed := 0
	for _, t := range targets {
		if !strings.Contains(t.pkg+" "+t.name, *match) {
			continue
		}
		fmt.Printf("%s %s\n", t.pkg, t.name)
		out, err := run(t, *each)
		for tries := 1; err != nil && outOfTime(out) && tries < maxTries; tries++ {
			fmt.Println("  go test reported its own deadline; again")
			out, err = run(t, *each)
		}
		if err != nil {
			failed++
			fmt.Printf("%s\n%s %s FAILED: %v\n", out, t.pkg, t.name, err)
		}
	}
	fmt.Printf("%d targets, %d failed\n", len(targets), failed)
	if failed > 0 {
		os.Exit(1)
	}
}

type target struct{ pkg, name string }

func run(t target, each time.Duration) ([]byte, error) {
	// Minimizing an input that is merely interesting can take a minute, which a short run does not have.
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "10x", t.pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd.CombinedOutput()
}

// maxTries bounds how often a target is run whose only complaint is the end of its time.
const maxTries = 3

// outOfTime reports whether go test failed with nothing but the deadline that it set itself, as it does where -fuzztime ends
// while a worker is at an input (https://go.dev/issue/48591). A finding names the input that it wrote, or the test's own message.
func outOfTime(out []byte) bool {
	return bytes.Contains(out, []byte("\n    context deadline exceeded\n")) && !bytes.Contains(out, []byte("Failing input written to")) &&
		!bytes.Contains(out, []byte("panic:"))
}

// list asks go test for the targets of each package. The lines of names come before the line of their package.
func list() ([]target, error) {
	cmd := exec.Command("go", "test", "-list", "^Fuzz", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []target
	var names []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		switch {
		case len(f) > 0 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) > 1 && f[0] == "ok":
			for _, n := range names {
				all = append(all, target{f[1], n})
			}
			names = nil
		}
	}
	return all, nil
}
