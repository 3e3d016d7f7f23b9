// SPDX-License-Identifier: Apache-2.0

// Package layered is Envoy's layered runtime: named values in layers, of which the last one that has a name counts.
//
//	bootstrap, directory, POST /runtime_modify, RTDS -> layer -> snapshot -> Key, in what was decoded
//
// What is decoded holds keys, not values (mesh.RuntimeKey), and a key looks its value up in the snapshot of the moment: one
// atomic load and one look-up in a map, without an allocation. So a change of a layer is in force with the next request,
// and nothing is decoded or built anew: a listener that would be replaced because a share of its routes has changed would
// drain its connections for nothing, and Envoy does not do that either. The exception is what can only be looked at while a
// resource is decoded, the size of regular expressions; it counts for what comes after the change.
//
// Envoy's own keys, which no configuration names, are read when something changes (Told, Generation) and not with each request:
// package internal/runtimekeys names them.
//
// The package starts no goroutine: Runtime.Watch, which follows directories, is run by its caller.
package layered
