// SPDX-License-Identifier: Apache-2.0

// Package cli is what the verbs of the command line share: where to look (flags, environment, the context that a demo
// leaves behind), how to ask a proxy's administration server and read an event bus, and how to show what came on a
// terminal, in a pipe and to a program.
//
//	flags, MESHTAP_*, context file -> Targets -> Admin, Bus -> Screen
//
// Everything that is shown came from somewhere else and may be hostile: whatever goes through a Screen, a Table or an
// Error is printed without control characters. The verbs themselves are in cmd/meshtap, one file each.
package cli
