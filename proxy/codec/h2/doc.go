// SPDX-License-Identifier: Apache-2.0

// Package h2 is the HTTP/2 codec (RFC 9113, RFC 7541, RFC 8441) for both sides of the proxy: Server reads requests from a
// downstream connection, Client sends them on an upstream one. Streams are codec.ServerStream and codec.ClientStream, so
// that nothing above knows which version it serves. What HTTP/1.1 would refuse is refused here too, so that no request
// means two things on its way from one version to the other.
//
// A connection has no goroutine. When its socket is ready, a worker takes a turn: it reads what is there, handles whole
// frames only, gives data to streams and requests to workers of their own, sends what there is to send, and leaves. An
// idle connection holds no buffer. Requests are handed to their workers when the turn ends or lets others run: one that was
// reset by then costs no worker. Each stream is driven by its user's worker (for a body, by a second one), which sleeps
// where it has to wait.
//
// conn.go is the turn and the frames; flow.go windows, what is held, and time; output.go what is to be sent, and by whom;
// stream.go what the streams of both roles share; abuse.go what a peer may cost us. head.go reads heads and checks them;
// decode.go, encode.go, table.go and huffman.go are HPACK, so that a head is decoded into its header list and encoded
// from it without a copy or an allocation in between; x/net's decoder allocates for each literal.
//
// One lock guards a connection. It is not held across system calls or calls of the owner, except to wake workers. No
// wake-up is lost:
//   - Who waits for a stream's bytes, window or head notes itself under the lock in which it found that it has to wait,
//     and the signal of a worker is kept until it sleeps. Who changes what is waited for does so under the lock and
//     signals whoever is noted.
//   - Who waits for something that all streams share, room in the output or the connection's window, queues up; conn.pass
//     wakes the first. Each that was woken passes on what it leaves, also where it gives up. So as long as there is
//     something to be had, either nobody waits or somebody is awake who will take it or pass it on.
//   - A full socket is gone on with by the turn that the next edge brings; see output.
//
// A stream that is interrupted while it waits leaves nothing half done: frames are put into the output whole, and a header
// block's frames together, or not at all.
package h2
