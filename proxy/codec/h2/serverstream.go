// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// ServerStream is one request and its answer on a downstream connection. Between Acceptor.Serve and Finish it belongs to
// whoever serves it; it can be used for another stream then, on any connection.
type ServerStream struct {
	stream
	q        *codec.Request
	size     int // of the request's head, with 32 bytes for each field
	refused  *codec.ProtocolError
	expect   bool // the client waits for 100
	tunnel   bool // it asked for a tunnel or for another protocol
	switched bool // and has it
	started  bool
	finished bool
	// cancelled: see Abort.
	cancelled bool
}

func (st *ServerStream) begin(c *conn, id uint32, q *codec.Request, end bool) {
	st.stream.begin(c, id)
	st.q, st.refused, st.expect, st.started, st.switched, st.finished, st.cancelled = q, nil, q.Expect && !end, false, false, false, false
	st.headIn, st.recvEnd = true, end
	st.received = int64(q.HeadBytes)
	st.tunnel = string(q.Method) == "CONNECT" || len(q.Upgrade) > 0
	if header.EqualFold(q.Upgrade, "websocket") && !q.Header.Has("sec-websocket-key") {
		// RFC 8441 section 5.1: the key says nothing here, but a server that speaks HTTP/1.1 wants one.
		var key [16]byte
		_, _ = rand.Read(key[:]) // never fails
		q.Header.Add("sec-websocket-key", base64.StdEncoding.AppendEncode(nil, key[:]))
	}
}

// ID returns the stream's number.
func (st *ServerStream) ID() uint32 { return st.id }

// Request returns the request, as Acceptor.Open gave its place.
func (st *ServerStream) Request() *codec.Request { return st.q }

// Refused returns what the request is to be answered with where its head was refused, nil otherwise.
func (st *ServerStream) Refused() *codec.ProtocolError { return st.refused }

// BodyEnded reports whether the request is here to its end.
func (st *ServerStream) BodyEnded() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.recvEnd
}

// Body returns the request's body: the stream itself.
func (st *ServerStream) Body() codec.Body { return st }

// Buffered implements codec.Body.
func (st *ServerStream) Buffered() (bytebuf.Piece, bool, error) {
	if st.tunnel && !st.switched {
		return bytebuf.Piece{}, true, nil // what comes is for the other end of the tunnel, if there will be one
	}
	return st.buffered()
}

// Next implements codec.Body.
func (st *ServerStream) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	if st.tunnel && !st.switched {
		return bytebuf.Piece{}, true, nil
	}
	return st.read(w)
}

// Trailers implements codec.Body.
func (st *ServerStream) Trailers() *header.List { return st.gotTrailers() }

// HungUp reports whether nobody waits for the answer any more: the client has reset the stream, or the connection has
// ended.
func (st *ServerStream) HungUp() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sendErr != nil
}

// WatchHangUp makes that interrupt w, also where it was before; nil ends it.
func (st *ServerStream) WatchHangUp(w *socket.Worker) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.watcher = w
	if w != nil && st.sendErr != nil {
		w.Interrupt()
	}
}

// Reset returns how the stream was reset, by either side; ok is false where it was not, or ended with its connection.
func (st *ServerStream) Reset() (r codec.ResetError, ok bool) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if e, is := st.sendErr.(*codec.ResetError); is {
		return *e, true
	}
	return r, false
}

// Continue implements codec.ServerStream.
func (st *ServerStream) Continue(w *socket.Worker) error {
	if !st.expect || st.started {
		return nil
	}
	st.expect = false
	if st.BodyEnded() {
		return nil
	}
	return st.Inform(w, 100, nil)
}

// Inform implements codec.ServerStream.
func (st *ServerStream) Inform(w *socket.Worker, status int, h *header.List) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.started {
		return nil
	}
	if err := st.awaitRoom(w); err != nil {
		return err
	}
	c.scratch = appendStatus(&c.enc, c.enc.begin(c.scratch[:0]), status)
	if h != nil {
		c.scratch = c.enc.list(c.scratch, h, nil)
	}
	st.sendBlock(false)
	c.pass()
	c.flush(w, true)
	return nil
}

// Head implements codec.ServerStream.
func (st *ServerStream) Head(w *socket.Worker, r *codec.Response, first bytebuf.Piece, end bool) error {
	if st.started {
		return errEnded
	}
	st.started = true
	status := r.Status
	switch {
	case r.Switched:
		r.Header.RemoveID(header.ContentLength)
		if len(st.q.Upgrade) > 0 {
			status = 200 // RFC 8441 section 5
			r.Header.Remove("sec-websocket-accept")
		}
	case r.Length == codec.Unknown, r.Status == 204:
		r.Header.RemoveID(header.ContentLength) // RFC 9110 section 8.6
	}
	p := first.Bytes()
	if codec.Bodiless(st.q.Method, r.Status) {
		p, end = nil, true
	}
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.awaitRoom(w); err != nil {
		return err
	}
	st.switched = r.Switched
	c.scratch = appendStatus(&c.enc, c.enc.begin(c.scratch[:0]), status)
	c.scratch = c.enc.list(c.scratch, &r.Header, nil)
	st.sentHead = true
	st.sendBlock(end && len(p) == 0)
	if len(p) > 0 {
		return st.sendData(w, p, end)
	}
	c.pass()
	c.flush(w, true)
	return nil
}

// appendStatus appends the pseudo-header field of an answer.
func appendStatus(e *encoder, dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, 0x80|8)
	case 204:
		return append(dst, 0x80|9)
	case 206:
		return append(dst, 0x80|10)
	case 304:
		return append(dst, 0x80|11)
	case 400:
		return append(dst, 0x80|12)
	case 404:
		return append(dst, 0x80|13)
	case 500:
		return append(dst, 0x80|14)
	}
	var b [4]byte
	return e.field(dst, header.None, nameStatus, strconv.AppendInt(b[:0], int64(status), 10))
}

// Data implements codec.ServerStream.
func (st *ServerStream) Data(w *socket.Worker, p bytebuf.Piece, end bool) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sendData(w, p.Bytes(), end)
}

// SendTrailers implements codec.ServerStream.
func (st *ServerStream) SendTrailers(w *socket.Worker, h *header.List) error {
	return st.sendTrailers(w, h)
}

// CloseAfter implements codec.ServerStream: the connection is drained, unless the answer has begun or nobody waits for it.
func (st *ServerStream) CloseAfter() {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !st.started && st.sendErr == nil {
		c.drain()
	}
}

// Abort implements codec.ServerStream: Finish resets the stream unless its answer has ended.
func (st *ServerStream) Abort(cancelled bool) { st.cancelled = cancelled }

// Broken reports whether the answer began and was given up, or cut off, before its end.
func (st *ServerStream) Broken() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sentHead && !st.sentEnd
}

// Started implements codec.ServerStream.
func (st *ServerStream) Started() bool { return st.started }

// Sent implements codec.ServerStream.
func (st *ServerStream) Sent() int64 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sent
}

// Received is the bytes of this request, its body's as they were on the wire.
func (st *ServerStream) Received() int64 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.received
}

// Finish ends the stream; no worker uses it any more. Where its answer has not ended it is reset, and where the request
// has not, the client is told that the rest is not needed (RFC 9113 section 8.1). idle says that the connection has no
// other stream.
func (st *ServerStream) Finish() (idle bool) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.finished {
		return c.active == 0
	}
	st.finished = true
	if st.sendErr == nil && c.err == nil {
		switch {
		case !st.sentEnd && st.cancelled:
			c.sendReset(st.id, Cancel)
		case !st.sentEnd:
			c.sendReset(st.id, InternalError)
		case !st.recvEnd:
			c.sendReset(st.id, NoError)
		}
	}
	st.watcher = nil
	c.heads -= st.size
	st.leave()
	c.flush(nil, false)
	return c.active == 0
}

var nameStatus = []byte(":status")

// Interface guards.
var (
	_ codec.ServerStream = (*ServerStream)(nil)
	_ codec.Body         = (*ServerStream)(nil)
	_ Conn               = (*socket.Conn)(nil)
	_ role               = (*Server)(nil)
)
