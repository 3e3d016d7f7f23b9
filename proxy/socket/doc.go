// SPDX-License-Identifier: Apache-2.0

// Package socket moves bytes: direct non-blocking I/O on the sockets of the data path, the set that holds the idle ones,
// the goroutines that serve the ready ones, and their coarse deadlines. Everything above it reads and writes as if the
// sockets blocked.
//
// It holds two kinds of sockets. A Conn is a downstream connection: a bare descriptor in one of the engine's own
// edge-triggered epoll sets. While it is idle it has neither goroutine nor buffer; when bytes come, a reused goroutine
// (Worker) serves it until it is dry again. A Peer is an upstream connection: it stays in the runtime's poller, so that
// the goroutine that sent a request sleeps there until the answer comes, and is in the engine's set for the peer's
// hang-up alone. docs/adr/0003-io.md has the measurements.
//
// Three rules keep wake-ups from being lost:
//   - A Conn's state goes from busy to idle by compare-and-swap; an edge that comes meanwhile turns busy into again,
//     which makes the worker look once more.
//   - Who has to wait in the middle of a request registers as waiter, tries once more, and only then sleeps.
//   - A request is sent inside RawConn.Read, because that call forgets the edges that came before it.
//
// A Layer, such as TLS, can stand between a connection and its descriptor. The calls of Conn and Peer then go through it,
// and whoever reads and writes sees no difference, but for two: an edge need not bring bytes, since half a record is none;
// and bytes may be there without an edge, since a layer reads ahead (Layer.Buffered).
//
// A Worker's sleep can be ended from outside (Interrupt): by its deadline, or by the client hanging up. Interrupts may be
// spurious; the sleeper asks its owner whether there is a reason to stop and sleeps on if there is none.
package socket
