// SPDX-License-Identifier: Apache-2.0

// Package transport makes connections secure: TLS towards clients and towards upstreams, with crypto/tls over the
// non-blocking sockets of proxy/socket (step 4 of a request, and the end of a dial).
//
// A handshake is straight-line code that waits: a client's on a worker, an upstream's on the goroutine that dials. It ends
// with a Session, a socket.Layer that stands between the connection and its descriptor from then on, so that codecs, the
// TCP proxy and pools read and write as on plain connections. From then on nothing waits:
//
//   - Reading what is not there gives crypto/tls a temporary error, after which it goes on where it was.
//   - Writing always succeeds: what the socket does not take stays in the Session, in order, and goes out before anything
//     else. A record is only made once the one before has left, so a Session holds little more than one record.
//
// A context may name secrets in place of certificates (Secrets). Until they are there, no handshake is made; when one
// changes, the next handshake works with the new one, and connections stay as they are.
//
// There is no way from here to plain text: a connection whose handshake failed is closed, and a context that cannot be
// honoured is an error when it is built. The end of a connection without close_notify is an error (ErrTruncated), not an
// end: otherwise anyone on the way could cut an answer short.
package transport
