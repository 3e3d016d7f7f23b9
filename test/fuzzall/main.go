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
		// Minimizing an input that is merely interesting can take a minute, which a short run does not have.
		cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "10x", t.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
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
