// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// row is a line of the table of docs/features.md.
type row struct {
	line  int
	name  string
	state string
	tests []test
}

// test is a test that a row names as `package.Test`, or `package.Test/case`.
type test struct{ pkg, name string }

var (
	states = []string{"works", "partly", "no"}
	named  = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[^`]*)`")
)

// parse reads the rows of the document's tables: name, state, tests, and what is missing.
func parse(doc string) ([]row, error) {
	var rows []row
	n := 0
	for line := range strings.Lines(doc) {
		n++
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Trim(cells[1], "- ") == "" || strings.TrimSpace(cells[2]) == "state" {
			continue
		}
		r := row{line: n, name: strings.TrimSpace(cells[1]), state: strings.TrimSpace(cells[2])}
		for _, m := range named.FindAllStringSubmatch(cells[3], -1) {
			r.tests = append(r.tests, test{m[1], m[2]})
		}
		switch {
		case !slices.Contains(states, r.state):
			return nil, fmt.Errorf("line %d: the state is %q; allowed are %s", n, r.state, strings.Join(states, ", "))
		case r.state != "no" && len(r.tests) == 0:
			return nil, fmt.Errorf("line %d: %q is said to work and names no test", n, r.name)
		case r.state == "partly" && strings.TrimSpace(cells[4]) == "":
			return nil, fmt.Errorf("line %d: %q does not say what is missing", n, r.name)
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("there is no row")
	}
	return rows, nil
}

// compare returns what the rows claim and the results do not bear out. Packages of which nothing ran, for want of their
// build tag, prove nothing and disprove nothing.
func compare(rows []row, seen results) (lies []string) {
	for _, r := range rows {
		for _, t := range r.tests {
			ended := seen[t.pkg]
			if len(ended) == 0 {
				continue
			}
			switch how := ended[t.name]; how {
			case "pass":
			case "":
				lies = append(lies, fmt.Sprintf("line %d: %q names %s.%s, which did not run", r.line, r.name, t.pkg, t.name))
			default:
				lies = append(lies, fmt.Sprintf("line %d: %q names %s.%s, which ended with %s", r.line, r.name, t.pkg, t.name, how))
			}
		}
	}
	return lies
}
