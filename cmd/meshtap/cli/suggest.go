// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"github.com/meshtap/meshtap/internal/nearest"
)

// DidYouMean returns a hint that names the word that was probably meant, or the known ones.
func DidYouMean(word string, known []string) string {
	if s := nearest.Name(word, known); s != "" {
		return "did you mean " + s + "?"
	}
	return "known are " + strings.Join(known, ", ")
}
