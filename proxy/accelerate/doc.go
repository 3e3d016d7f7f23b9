// SPDX-License-Identifier: Apache-2.0

// Package accelerate splices TCP connections between two sockets of one host in the kernel: what one sends is put into the
// other's queue without going through TCP/IP. It stands beside the data path, which does not know of it: proxy/socket reads
// and writes as ever. docs/adr/0012-sockmap.md has the choice, its limits and the measurements.
//
// Two small BPF programs do the work. The first sees the sockets of a cgroup as they connect, finds pairs, and enters both
// ends into a hash of sockets. The second sees what an entered socket sends and hands it to the other end.
//
// What must hold, and how:
//   - Only true pairs are joined. A listener in the cgroup that gets a SYN leaves a record of the client's address, port and
//     network namespace; the client enters only if it finds one, and the server only if the sequence numbers of both
//     handshakes agree, which survives a REDIRECT of netfilter. So sockets with remote peers are never touched.
//   - Bytes stay in order. A reader is given what was spliced before what came by TCP. So a direction is spliced as long as
//     not one byte of it went by TCP, and after that never again. The one exception is a client that sends before the
//     system is done with the server's handshake: it begins to splice when the server has read those bytes.
//   - Memory is bounded. Spliced bytes count for no socket buffer, so the second program looks how much the reader has not
//     taken yet; above MaxQueued the direction is left to TCP, whose windows hold the sender back.
//   - Everything else is plain TCP: connections that were there before, that find no place in the tables, and the ends of all
//     connections (FIN, RST, timeouts, keep-alive).
//
// Whether all of that holds on this kernel is tried out at the start with a connection of its own (trial.go); if not, nothing
// is spliced. There is no goroutine. Nothing is pinned: the programs leave the cgroup when this process ends, and pairs that
// still stand then keep what they have.
package accelerate
