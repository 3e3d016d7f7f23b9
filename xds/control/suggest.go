// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"strings"
)

// didYouMean returns a question that names the candidate which was probably meant by word, "" where none is near.
func didYouMean(word string, candidates []string) string {
	best, least := "", 1<<30
	for _, c := range candidates {
		if d, near := distance(word, c); near && d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// partly is added to the distance of candidates that only share a beginning or an end with the word.
const partly = 100

// distance says how far a candidate is from a word, and whether that is near enough to be named.
func distance(word, candidate string) (d int, near bool) {
	const longest = 128
	word, candidate = strings.ToLower(word), strings.ToLower(candidate)
	if len(word) > longest || len(candidate) > longest {
		return 0, false
	}
	d = edits(word, candidate)
	if d <= max(1, min(len(word), len(candidate))/3) {
		return d, true
	}
	shares := len(word) >= 3 && (strings.HasPrefix(candidate, word) || strings.HasSuffix(candidate, word)) ||
		len(candidate) >= 3 && (strings.HasPrefix(word, candidate) || strings.HasSuffix(word, candidate))
	return partly + d, shares
}

// edits is the number of letters to insert, delete, change or swap with their neighbour to get from a to b (optimal string
// alignment).
func edits(a, b string) int {
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
