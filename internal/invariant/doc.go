// SPDX-License-Identifier: Apache-2.0

// Package invariant checks what must always hold. The checks are compiled in under the race detector and under the
// build tag "invariants", which the tests use; in a release build they cost nothing.
package invariant
