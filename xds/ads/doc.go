// SPDX-License-Identifier: Apache-2.0

// Package ads speaks xDS: one aggregated discovery stream over gRPC to a control plane, in the state-of-the-world
// variant. It knows type URLs, names, versions and nonces, and nothing of what resources mean; package xds decodes them
// and says which responses are accepted.
//
// A Client belongs to two goroutines. The one in Run owns the stream and all that is known of the protocol. Its owner
// calls Subscribe, Ack and the others, which put a note into the inbox and never block, and reads events from the
// channel given to Run; a response that is not read holds back the next one, and so the control plane.
//
// A response is read whole before any of it is judged, so its size is bounded by Config.MaxResponseBytes (64 MiB unless
// set); a single resource is bounded where it is decoded.
//
// When a stream ends after it brought at least one response, the next one is opened at once, though never more than ten
// in a second. A stream that ends before any response counts as a failed try: 1 s, 2 s, ... 30 s, with full jitter. Each
// new stream asks anew for everything, in the order of Config.Types, with the versions that were accepted last.
package ads
