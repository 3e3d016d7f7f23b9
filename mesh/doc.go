// SPDX-License-Identifier: Apache-2.0

// Package mesh holds the nouns that every other room of Meshtap speaks of: what should be (Snapshot and the
// resources in it) and what happened (Outcome, Notice).
//
// Values are built once, by xds on the way in and by proxy on the way out, and are read-only from then on: they may be
// shared between goroutines without locks, and a pointer that did not change between two snapshots means that the
// resource did not change. The package imports the standard library only and decides nothing: matching lives in
// proxy/route, picking in lb, breaking in circuit.
//
// It is the one place where xds, proxy and eventtap meet, since none of them imports another.
package mesh
