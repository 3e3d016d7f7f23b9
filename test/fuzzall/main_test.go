// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestOutOfTime: only go test's own deadline is run again, never a finding.
func TestOutOfTime(t *testing.T) {
	t.Parallel()
	const head = "fuzz: elapsed: 3s, execs: 269344 (0/sec), new interesting: 2 (total: 105)\n--- FAIL: FuzzX (3.08s)\n"
	for name, c := range map[string]struct {
		out  string
		want bool
	}{
		"deadline":                   {head + "    context deadline exceeded\nFAIL\nexit status 1\n", true},
		"finding":                    {head + "    --- FAIL: FuzzX (0.00s)\n        x_test.go:9: \"a\" != \"b\"\n    \n    Failing input written to testdata/fuzz/FuzzX/1\n", false},
		"a finding about a deadline": {head + "    --- FAIL: FuzzX (0.00s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzX/1\n", false},
		"panic":                      {head + "panic: boom\n    context deadline exceeded\n", false},
		"does not build":             {"x.go:1:1: expected 'package'\nFAIL\n", false},
	} {
		if got := outOfTime([]byte(c.out)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
