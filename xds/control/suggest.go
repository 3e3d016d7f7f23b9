// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"

	"github.com/meshtap/meshtap/internal/nearest"
)

// didYouMean returns a question that names the candidate which was probably meant by word, "" where none is near.
func didYouMean(word string, candidates []string) string {
	if near := nearest.Name(word, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}
