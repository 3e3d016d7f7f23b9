// SPDX-License-Identifier: Apache-2.0

// Package demo is the small world behind `meshtapd demo`: three toy services that call each other, each a process of its
// own behind a sidecar that is one, too, a load generator, and switches for faults.
//
//	load -> [web sidecar] web -> [web sidecar] -> [orders sidecar] orders -> [orders sidecar] -> [payments sidecar] payments
//
// The control plane and the event bus run in the parent and belong to the caller. A World owns its directory's files, its
// processes and its goroutines: all end with Stop, and the processes even where the parent is killed. Everything listens on
// the loopback interface or on unix sockets in a directory that only its owner may enter.
package demo
