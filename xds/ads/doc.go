// SPDX-License-Identifier: Apache-2.0

// Package ads speaks xDS with a control plane: over one gRPC stream, aggregated or for one type, in the state-of-the-world
// variant or the incremental one; or by polls over REST. It knows type URLs, names, versions and nonces, and nothing of what
// resources mean; package xds decodes them and says which responses are accepted.
//
// The two variants are two pure halves (sotw.go, delta.go) of one Client: they take responses and say what to send next. A
// poll (poll.go) is a stream to the state-of-the-world half.
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
// new stream asks anew for everything, in the order of Config.Types, with the versions that were accepted last: one for the
// type, or one for each resource that is held.
//
// Resources may have a time to live, in both variants. It runs on while there is no stream; when it is over, the owner is told
// to remove them.
package ads
