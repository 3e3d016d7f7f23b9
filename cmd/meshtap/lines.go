// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

const (
	// diffContext is how many lines stand around each difference.
	diffContext = 2
	// maxDiff bounds the lines that are compared one by one; what is longer is shown as one piece taken out and one put in.
	maxDiff = 2000
)

// writeDiff writes how b differs from a, line by line, indented.
func writeDiff(w *strings.Builder, a, b []string) {
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] && len(a) > maxDiff { // a common end costs nothing
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	marked := markLines(a, b)
	last := -diffContext - 1
	for i, m := range marked {
		if m[0] != ' ' {
			last = i
		}
		near := i-last <= diffContext
		for j := i; !near && j < len(marked) && j <= i+diffContext; j++ {
			near = marked[j][0] != ' '
		}
		if near {
			fmt.Fprintf(w, "  %s\n", m)
		} else if i > 0 && i-last == diffContext+1 {
			w.WriteString("  ...\n")
		}
	}
}

// markLines returns the lines of both with "- ", "+ " or "  " before them, by their longest common subsequence.
func markLines(a, b []string) (out []string) {
	if len(a) > maxDiff || len(b) > maxDiff {
		for _, l := range a {
			out = append(out, "- "+l)
		}
		for _, l := range b {
			out = append(out, "+ "+l)
		}
		return out
	}
	// common[i][j] is the length of that of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out, i, j = append(out, "  "+a[i]), i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out, i = append(out, "- "+a[i]), i+1
		default:
			out, j = append(out, "+ "+b[j]), j+1
		}
	}
	return out
}
