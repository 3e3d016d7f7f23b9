// SPDX-License-Identifier: Apache-2.0

// Package listener is where connections come in: it binds, accepts under limits, lets the listener filters look at the
// first bytes, chooses a filter chain and hands the connection to that chain's handler. What the handler does is the
// business of proxy/downstream and proxy/tcp, which it does not import.
//
// A Set holds the listeners of one proxy. Apply makes it what a snapshot says:
//
//   - Sockets belong to addresses, not to listeners. A listener that changes, or another one that takes over its address,
//     goes on with the same socket; no connection in its queue is lost.
//   - A listener that changed swaps its configuration in one step. Chains whose content did not change keep their handler
//     and their connections; the others drain.
//   - What cannot be put into service is rejected, and what was in force before stays.
//
// The way of a connection:
//
//	accept  -> limits -> original destination -> peek at bytes -> hand-off -> chain -> TLS handshake -> handler
//
// One goroutine per socket accepts. A connection whose listener filters need bytes waits for them in the engine, without
// goroutine or buffer, until one deadline; any other goes straight to its chain, so that a server that speaks first is
// not kept waiting. From the chain on, a connection is known to the listener only for counting, draining and the end.
// Each connection that ends before a chain's handler took it gives one Outcome.
//
// Where the chain speaks TLS, the handshake is made before the handler sees the connection, on a worker that waits for it.
// Handshakes under way are bounded, and so is their time; until the client says its first word, and while there are too
// many others, a connection waits without a goroutine.
//
// # Redirect loops
//
// A proxy that connects to where a redirected connection was going (a cluster of type ORIGINAL_DST) can be sent in a
// circle, in three ways. Istio's configuration answers with the BlackHoleCluster for the proxy's own ports; here they are
// closed and counted without any configuration:
//
//   - The client connected to one of our own intercepting ports, say podIP:15006, and was redirected. Passed on, the
//     connection would come back without being redirected, to be passed on again. Such an original destination is closed.
//   - The connection was not redirected at all, so that its destination is the listener itself, and its chain would pass
//     it on to its destination (OriginalDster). Such a connection is closed.
//   - The rules do not except the proxy's own traffic (no uid, no mark, or somebody else's uid): our connection to the
//     destination comes back to us, with a destination that looks innocent. Guard knows our own connections and finds it.
package listener
