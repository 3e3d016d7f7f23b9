// SPDX-License-Identifier: Apache-2.0

// Package codec holds what all HTTP versions have in common: requests, responses and bodies that are on their way, and
// the two halves of a stream. codec/h1 fills them from HTTP/1.1, codec/h2 from HTTP/2; route, filters, forward and the
// tap know only these.
//
// Everything here blocks: a call that has to wait waits on its socket.Worker, and returns early with the reason when
// that worker is interrupted. One goroutine drives each half of a stream.
package codec

import (
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Request is a request head. Its byte slices live in Header's memory or in the configuration.
type Request struct {
	Header header.List
	// Method, Scheme, Authority and Path are the control data of RFC 9110 section 6.2. Path is the origin form with the
	// query, "*" for OPTIONS *, and empty for CONNECT.
	Method, Scheme, Authority, Path []byte
	Protocol                        mesh.Protocol
	// Length is the length of the body in bytes: 0 for none, Unknown where only its end will tell.
	Length int64
	// Upgrade is the protocol that the client asks to switch to (RFC 9110 section 7.8), empty where it does not.
	Upgrade []byte
	// Expect says that the client waits for 100 (Continue) before it sends the body.
	Expect bool
	// HeadBytes is the size of the head as it came.
	HeadBytes int
	// HostStale says that Authority is no longer what the host field in Header says.
	HostStale bool
}

// Unknown is a body length that is not known in advance.
const Unknown int64 = -1

// Reset makes r empty and keeps its memory.
func (r *Request) Reset() {
	h := r.Header
	h.Reset()
	*r = Request{Header: h}
}

// SetPath replaces the path.
func (r *Request) SetPath(path []byte) { r.Path = r.Header.Hold(path) }

// SetAuthority replaces the authority.
func (r *Request) SetAuthority(host []byte) {
	r.Authority = r.Header.Hold(host)
	r.HostStale = true
}

// PathOnly returns the path without the query.
func (r *Request) PathOnly() []byte {
	for i, c := range r.Path {
		if c == '?' || c == '#' {
			return r.Path[:i]
		}
	}
	return r.Path
}

// Query returns the query without its '?', nil where there is none.
func (r *Request) Query() []byte {
	for i, c := range r.Path {
		if c == '?' {
			return r.Path[i+1:]
		}
	}
	return nil
}

// Response is a response head.
type Response struct {
	Header   header.List
	Status   int
	Protocol mesh.Protocol
	// Length is the length of the body that follows: 0 for none, Unknown where only its end will tell.
	Length int64
	// Switched says that the connection now speaks the protocol of the request's Upgrade, or is a tunnel.
	Switched bool
	// Upgrade is the protocol that a 101 switches to.
	Upgrade   []byte
	HeadBytes int
}

// Reset makes r empty and keeps its memory.
func (r *Response) Reset() {
	h := r.Header
	h.Reset()
	*r = Response{Header: h}
}

// Bodiless reports whether an answer with this status has no body whatever its head says of a length, to a request with
// this method (RFC 9112 section 6.3).
func Bodiless(method []byte, status int) bool {
	return string(method) == "HEAD" || status == 204 || status == 304
}

// Body is the bytes of a message that are still to come. It is read by one goroutine.
type Body interface {
	// Buffered returns the next bytes that are already here, without waiting: an empty piece where there are none. end
	// says that nothing follows them.
	Buffered() (p bytebuf.Piece, end bool, err error)
	// Next waits for the next bytes. end says that nothing follows them; the piece may be empty then. The piece is
	// borrowed until the next call.
	Next(w *socket.Worker) (p bytebuf.Piece, end bool, err error)
	// Trailers returns the trailer fields after the end, nil where there are none.
	Trailers() *header.List
}

// ServerStream is the downstream half of a stream: the answer goes to it.
type ServerStream interface {
	// Body returns the request's body.
	Body() Body
	// Continue tells a client that waits for it to send the body of its request.
	Continue(w *socket.Worker) error
	// Inform sends a 1xx answer other than 101.
	Inform(w *socket.Worker, status int, h *header.List) error
	// Head sends the head of the answer together with the first bytes of its body; end says that these are all. The
	// codec adds what frames the message and removes what does not belong to the next hop.
	Head(w *socket.Worker, r *Response, first bytebuf.Piece, end bool) error
	// Data sends the next bytes of the answer; end says that nothing follows.
	Data(w *socket.Worker, p bytebuf.Piece, end bool) error
	// SendTrailers sends trailer fields and ends the answer.
	SendTrailers(w *socket.Worker, h *header.List) error
	// CloseAfter makes this the last answer of its connection, as far as the protocol can say that.
	CloseAfter()
	// Abort gives up an answer that has begun, so that the client cannot take what it has for the whole. cancelled says
	// that the upstream has cancelled it, which the client is told where the protocol can say so.
	Abort(cancelled bool)
	// Started reports whether the final head is out.
	Started() bool
	// Sent is the bytes of this answer on the wire.
	Sent() int64
}

// ClientStream is the upstream half of a stream: one attempt. It comes from a pool and goes back with Release or Abort,
// exactly one of which is called, once. Errors are *ProtocolError where the upstream broke the protocol, io.EOF or an
// error of the system where the connection ended, and otherwise the reason for which the worker was interrupted.
type ClientStream interface {
	// Call sends a request whose body is whole in body, and reads the head of the answer into r.
	Call(w *socket.Worker, q *Request, body []byte, r *Response) error
	// Head sends a request's head; the body follows with Data, from any one goroutine.
	Head(w *socket.Worker, q *Request) error
	Data(w *socket.Worker, p bytebuf.Piece, end bool) error
	SendTrailers(w *socket.Worker, h *header.List) error
	// Answer reads the head of the answer into r. A 1xx answer other than 101 is returned like any other; the next call
	// reads what follows it.
	Answer(w *socket.Worker, r *Response) error
	// Body returns the answer's body.
	Body() Body
	// Ended reports whether it is known how the answer ends, though nobody has read so far: all of it is here, or err says
	// why the rest will not come. HTTP/1.1 finds out by reading.
	Ended() (known bool, err error)
	// Release ends the stream after a whole answer; the connection may serve others.
	Release()
	// Abort ends the stream at once; what is in flight is lost.
	Abort()
	// Reused reports whether the connection had served another request before.
	Reused() bool
	// Answered reports whether any byte of an answer came, or anything else from which it follows that the connection was
	// not stale when the request was sent.
	Answered() bool
	// Sent and Received are the bytes of this stream on the wire.
	Sent() int64
	Received() int64
}

// ProtocolError says that a peer's message was refused. Status is what a client is answered for its own; Code is short
// and constant, never a part of the message.
type ProtocolError struct {
	Status int
	Code   string
}

func (e *ProtocolError) Error() string { return "protocol error: " + e.Code }
