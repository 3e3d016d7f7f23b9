// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mostAgain is how many failed tests of a run may have a second try. More than that is no matter of a busy machine.
const mostAgain = 4

// grave is what is never a matter of time: such a failure stands, however the second try would end.
var grave = regexp.MustCompile(`DATA RACE|(?m:^panic: )|(?m:^fatal error: )|\[build failed\]|\[setup failed\]|invariant broken`)

// secondTry is one more go test of a package, for its failed tests alone.
type secondTry struct {
	pkg   string
	tests []string // top-level, sorted
}

// args are those of go test for the second try, from those of the first.
func (s secondTry) args(first []string) []string {
	var args []string
	for _, a := range first {
		if !strings.HasPrefix(a, "./") {
			args = append(args, a)
		}
	}
	return append(args, "-count=1", "-run", "^("+strings.Join(s.tests, "|")+")$", "./"+s.pkg)
}

// again returns the second tries that the failures of a run deserve, or why there is none. failed holds what each failed
// package wrote.
func again(failed map[string]string, seen results) (tries []secondTry, err error) {
	n := 0
	for pkg, text := range failed {
		if what := grave.FindString(text); what != "" {
			return nil, fmt.Errorf("%s: %q is never forgiven", pkg, what)
		}
		s := secondTry{pkg: pkg}
		for name, how := range seen[pkg] {
			if how == "fail" && !strings.Contains(name, "/") {
				s.tests = append(s.tests, name)
			}
		}
		if len(s.tests) == 0 {
			return nil, fmt.Errorf("%s failed, and none of its tests did", pkg)
		}
		slices.Sort(s.tests)
		n += len(s.tests)
		tries = append(tries, s)
	}
	if n > mostAgain {
		return nil, fmt.Errorf("%d tests failed, more than the %d that may", n, mostAgain)
	}
	slices.SortFunc(tries, func(a, b secondTry) int { return strings.Compare(a.pkg, b.pkg) })
	return tries, nil
}
