// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"slices"
	"strings"
)

// nearest returns the candidate that was probably meant by word, "" where none is near: one with few letters changed,
// swapped, missing or too many; one of which word is the beginning or the end; or one with the same parts in another
// order.
func nearest(word string, candidates []string) string {
	best, _ := nearestOf(word, candidates)
	return best
}

// farScore is where the scores begin of candidates that only have a beginning or an end in common with the word.
const farScore = 100

// nearestOf also returns the score, which is lower for nearer candidates.
func nearestOf(word string, candidates []string) (best string, score int) {
	score = 1 << 30
	for _, c := range candidates {
		if s, near := distance(word, c); near && s < score {
			best, score = c, s
		}
	}
	return best, score
}

// distance says how far a candidate is from a word, and whether that is near enough to be named.
func distance(word, candidate string) (score int, near bool) {
	word, candidate = strings.ToLower(word), strings.ToLower(candidate)
	d := edits(word, candidate)
	switch {
	case d <= max(1, min(len(word), len(candidate))/3):
		return 2 * d, true
	case sameParts(word, candidate):
		return 3, true
	case len(word) >= 3 && (strings.HasPrefix(candidate, word+"_") || strings.HasSuffix(candidate, "_"+word)),
		strings.HasPrefix(word, candidate+"_"), strings.HasSuffix(word, "_"+candidate):
		return farScore + d, true
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

// edits is the number of letters to insert, delete, change or swap with their neighbour to get from a to b (optimal
// string alignment). Names are short; longer texts are not compared.
func edits(a, b string) int {
	const longest = 128
	if len(a) > longest || len(b) > longest {
		return longest
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
