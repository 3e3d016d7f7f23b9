// SPDX-License-Identifier: Apache-2.0

//go:build race || invariants

package invariant

import "fmt"

// On reports whether the checks are compiled in.
const On = true

// Check panics with the message when ok is false.
func Check(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
