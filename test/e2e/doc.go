// SPDX-License-Identifier: Apache-2.0

// Package e2e proves the product from outside: the built binary between scripted clients and origins, under a control
// plane and an event bus that die and come back. Its figures are printed, and what must hold is asserted in counts.
//
// SOAK=1 makes the long forms of the tests.
package e2e
