// SPDX-License-Identifier: Apache-2.0

// Package nearest guesses which of the known names was meant by one that is not known, for the "did you mean" of error
// messages.
package nearest

import (
	"slices"
	"strings"
)

// Partly is where the scores begin of names that only have a beginning or an end in common with the word.
const Partly = 100

// longest is how long a word may be, in bytes: names are short, and longer texts are not compared.
const longest = 128

// Name returns the known name that was probably meant by word, "" where none is near: one with few letters changed,
// swapped, missing or too many; one with the same parts in another order; or one of which word is the first or last part.
// Case does not count. Parts are what underscores separate.
func Name(word string, known []string) string {
	best, _ := Scored(word, known)
	return best
}

// Scored also returns the score, which is lower for nearer names.
func Scored(word string, known []string) (best string, score int) {
	score = 1 << 30
	for _, k := range known {
		if s, near := compare(word, k); near && s < score {
			best, score = k, s
		}
	}
	return best, score
}

// compare says how far a name is from a word, and whether that is near enough to be named.
func compare(word, name string) (score int, near bool) {
	if len(word) > longest || len(name) > longest {
		return 0, false
	}
	word, name = strings.ToLower(word), strings.ToLower(name)
	d := Edits(word, name)
	switch {
	case d <= max(1, min(len(word), len(name))/3) && d < len(word):
		return 2 * d, true
	case sameParts(word, name):
		return 3, true
	case len(word) >= 3 && (strings.HasPrefix(name, word+"_") || strings.HasSuffix(name, "_"+word)),
		strings.HasPrefix(word, name+"_"), strings.HasSuffix(word, "_"+name):
		return Partly + d, true
	}
	return 0, false
}

// sameParts compares names part by part, without regard to their order.
func sameParts(a, b string) bool {
	pa, pb := strings.Split(a, "_"), strings.Split(b, "_")
	slices.Sort(pa)
	slices.Sort(pb)
	return slices.Equal(pa, pb)
}

// Edits is the number of bytes to insert, delete, change or swap with their neighbour to get from a to b (optimal string
// alignment), or the length of the longer where one has more than 128 bytes.
func Edits(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
