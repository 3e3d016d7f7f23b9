// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Conn is what the server half needs of a downstream connection. *socket.Conn is one.
type Conn interface {
	TryRead(p []byte) (int, error)
	AwaitRead(w *socket.Worker) error
	Write(w *socket.Worker, p []byte) error
	HungUp() bool
	// Bufs are the buffers of the data path.
	Bufs() *bytebuf.Pool
}

// Server is the codec's state of a downstream connection. While the connection is idle it holds no buffer.
type Server struct {
	conn Conn
	lim  *Limits

	buf *bytebuf.Buf // bytes not used up yet
	// part is the beginning of a head whose rest has not come, and tried how much of the head was parsed in vain, which is
	// no more than Limits.HeadBytes and what one read brings.
	part  []byte
	tried int32
	// dry says that the last read took all there was. What has come since has brought an edge.
	dry bool
}

// Init prepares s for a new connection.
func (s *Server) Init(conn Conn, lim *Limits) {
	*s = Server{conn: conn, lim: lim}
}

// Poll reads what is there and parses the next request head into st.Request. ok is false where no head is complete: the
// connection can go idle then, Pending tells whether it is in the middle of a head. The error is io.EOF at the end of
// the connection, and *codec.ProtocolError for a message that is refused.
func (s *Server) Poll(st *ServerStream, q *codec.Request) (ok bool, err error) {
	for {
		if s.buf != nil && s.buf.Len() > 0 {
			if ok, err = s.parse(st, q); ok || err != nil {
				return ok, err
			}
		}
		if s.dry {
			s.shelve()
			return false, nil
		}
		s.unshelve()
		if err = s.read(); err != nil && err != socket.ErrWouldBlock {
			s.Close()
			return false, err
		}
	}
}

// read reads once, behind what is in the buffer.
func (s *Server) read() error {
	free := s.buf.Free()
	n, err := s.conn.TryRead(free)
	s.buf.Hi += n
	// A short read has emptied the socket, unless a hang-up came with the bytes and needs to be read too.
	s.dry = err == socket.ErrWouldBlock || err == nil && n < len(free) && !s.conn.HungUp()
	return err
}

// Edge says that something has come on the connection, so that it is worth reading.
func (s *Server) Edge() { s.dry = false }

// Dry reports whether there is nothing to do before the next edge, and gives the buffer back then.
func (s *Server) Dry() bool {
	if !s.dry || s.buf != nil && s.buf.Len() > 0 {
		return false
	}
	s.shelve()
	return true
}

// parse tries to read a head at the front of the buffer.
func (s *Server) parse(st *ServerStream, q *codec.Request) (bool, error) {
	b := s.buf.Bytes()
	// RFC 9112 section 2.2: an empty line before the request line is passed over.
	for len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		s.buf.Lo += 2
		b = b[2:]
	}
	if len(b) == 0 || !worthParsing(b, int(s.tried)) {
		return false, nil
	}
	size, f, err := parseRequest(b, q, s.lim)
	if err != nil {
		return false, err
	}
	if size == 0 {
		s.tried = int32(len(b))
		return false, nil
	}
	s.buf.Lo += size
	s.tried, s.part = 0, nil
	s.drained()
	st.begin(s, q, f.close)
	st.dec.hop = f.hop
	return true, nil
}

// worthParsing reports whether a head that was not complete in its first tried bytes may be now: nothing completes but
// the end of a line. A head that drips in is so not parsed for each byte of it.
func worthParsing(b []byte, tried int) bool {
	return tried == 0 || len(b)-tried >= 1<<10 || bytes.IndexByte(b[tried:], '\n') >= 0
}

// shelve gives the buffer back; the beginning of a head is kept apart, in no more memory than it needs.
func (s *Server) shelve() {
	if s.buf == nil {
		return
	}
	if s.buf.Len() > 0 {
		s.part = append(s.part[:0], s.buf.Bytes()...)
	}
	s.conn.Bufs().Put(s.buf)
	s.buf = nil
}

// unshelve takes a buffer and puts the beginning of a head into it.
func (s *Server) unshelve() {
	if s.buf == nil {
		s.buf = s.conn.Bufs().Get()
	}
	if len(s.part) > 0 {
		s.buf.Grow(len(s.part))
		s.buf.Hi += copy(s.buf.Free(), s.part)
		s.part = s.part[:0]
	}
	makeRoom(s.buf)
}

// drained gives an empty buffer back: the answer may be waited for.
func (s *Server) drained() {
	if s.buf != nil && s.buf.Len() == 0 {
		s.conn.Bufs().Put(s.buf)
		s.buf = nil
	}
}

// makeRoom makes room to read into behind what is in the buffer.
func makeRoom(b *bytebuf.Buf) {
	if b.Len() == 0 {
		b.Lo, b.Hi = bytebuf.Room, bytebuf.Room
	} else if len(b.Free()) < 1<<10 {
		b.Grow(2*b.Len() + 1<<10)
	}
}

// Pending reports whether bytes of a further request are here already.
func (s *Server) Pending() bool { return len(s.part) > 0 || s.buf != nil && s.buf.Len() > 0 }

// preface is how a client of HTTP/2 begins (RFC 9113 section 3.4). No request of HTTP/1 does.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// TakePreface gives up the connection where Poll has just refused what is the beginning of HTTP/2: the bytes that came so
// far are the caller's, who puts the buffer back. nil where they are none.
func (s *Server) TakePreface() *bytebuf.Buf {
	if s.buf == nil {
		return nil
	}
	b := s.buf.Bytes()
	if n := min(len(b), len(preface)); n < len("PRI * HTTP/2.0") || string(b[:n]) != preface[:n] {
		return nil
	}
	taken := s.buf
	s.buf = nil
	return taken
}

// Close gives the buffer back.
func (s *Server) Close() {
	if s.buf != nil {
		s.conn.Bufs().Put(s.buf)
		s.buf = nil
	}
	s.part, s.tried = nil, 0
}

// ServerStream is one request and its answer on a downstream connection.
type ServerStream struct {
	s       *Server
	q       *codec.Request
	dec     decoder
	scratch []byte
	ans     answer

	last    bool // the client sends no other request on the connection
	close   bool // the connection ends with this answer
	expect  bool // the client waits for 100
	started bool // the final head is out
	ended   bool // the answer is out whole
	tunnel  bool
	toClose bool // the connection's end is the answer's
	aborted bool
	sent    int64

	// whole says that the request was read to its end. The worker that reads the body sets it, the one that answers asks.
	whole atomic.Bool
}

var errAnswerEnded = errors.New("h1: the answer has ended already")

func (st *ServerStream) begin(s *Server, q *codec.Request, closing bool) {
	st.s, st.q, st.ans, st.sent = s, q, answer{}, 0
	st.last, st.close, st.expect, st.started, st.ended = closing, closing, q.Expect, false, false
	st.tunnel, st.toClose, st.aborted = false, false, false
	if q.Length == codec.Unknown {
		st.read(byChunks, 0)
	} else {
		st.read(byLength, q.Length)
	}
}

// read begins a body.
func (st *ServerStream) read(mode bodyMode, length int64) {
	st.dec.begin(mode, length)
	st.whole.Store(st.dec.ended)
}

// Refuse begins the stream of a head that was refused, so that it can be answered. The connection ends with the answer.
func (st *ServerStream) Refuse(s *Server, q *codec.Request) {
	if q.Protocol == mesh.ProtocolNone {
		q.Protocol = mesh.HTTP11
	}
	st.begin(s, q, true)
	st.last, st.expect = false, false
	st.read(noBody, 0)
}

// Last reports whether the client has said that it sends no other request.
func (st *ServerStream) Last() bool { return st.last }

// BodyEnded reports whether the request was read to its end.
func (st *ServerStream) BodyEnded() bool { return st.whole.Load() }

// Body returns the request's body: the stream itself.
func (st *ServerStream) Body() codec.Body { return st }

// Buffered implements codec.Body.
func (st *ServerStream) Buffered() (bytebuf.Piece, bool, error) {
	if st.dec.ended || st.s.buf == nil {
		return bytebuf.Piece{}, st.dec.ended, nil
	}
	p, err := st.dec.take(st.s.buf, st.s.lim)
	if st.dec.ended {
		st.whole.Store(true)
	}
	return p, st.dec.ended, err
}

// Next implements codec.Body.
func (st *ServerStream) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	s := st.s
	for {
		if s.buf != nil && s.buf.Len() > 0 || st.dec.ended {
			p, end, err := st.Buffered()
			if p.Len() > 0 || end || err != nil {
				return p, end, err
			}
		}
		if s.buf == nil {
			s.buf = s.conn.Bufs().Get()
		}
		s.buf.Lo, s.buf.Hi = bytebuf.Room, bytebuf.Room
		err := s.read()
		switch {
		case err == nil:
		case err == socket.ErrWouldBlock:
			s.conn.Bufs().Put(s.buf)
			s.buf = nil
			if err := s.conn.AwaitRead(w); err != nil {
				return bytebuf.Piece{}, false, err
			}
		case err == io.EOF && st.dec.mode == toClose:
			st.dec.ended = true
			st.whole.Store(true)
		case err == io.EOF:
			return bytebuf.Piece{}, false, io.ErrUnexpectedEOF
		default:
			return bytebuf.Piece{}, false, err
		}
	}
}

// Trailers implements codec.Body.
func (st *ServerStream) Trailers() *header.List { return st.dec.list }

// Continue implements codec.ServerStream (RFC 9110 section 10.1.1).
func (st *ServerStream) Continue(w *socket.Worker) error {
	if !st.expect || st.started || st.whole.Load() {
		return nil
	}
	st.expect = false
	return st.write(w, []byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// CloseAfter makes this answer the connection's last.
func (st *ServerStream) CloseAfter() { st.close = true }

// Abort implements codec.ServerStream.
func (st *ServerStream) Abort(bool) { st.close, st.aborted = true, true }

// Broken reports whether the answer began and was given up before its end.
func (st *ServerStream) Broken() bool { return st.aborted && st.started && !st.ended }

// MustReset reports whether the connection must be reset for the client to see that the answer broke off: where its end
// is the connection's, an end in order would look like the answer's own.
func (st *ServerStream) MustReset() bool { return st.Broken() && st.toClose }

// Inform sends a 1xx answer. An HTTP/1.0 client is not sent any (RFC 9110 section 15.2).
func (st *ServerStream) Inform(w *socket.Worker, status int, h *header.List) error {
	if st.started || st.q.Protocol == mesh.HTTP10 {
		return nil
	}
	r := codec.Response{Status: status, Header: *h}
	st.scratch = appendResponse(st.scratch[:0], &r, answer{}, st.q.Protocol)
	return st.write(w, st.scratch)
}

// Head implements codec.ServerStream.
func (st *ServerStream) Head(w *socket.Worker, r *codec.Response, first bytebuf.Piece, end bool) error {
	if st.started {
		return errAnswerEnded
	}
	st.started = true
	st.frame(r, first.Len(), end)
	st.scratch = appendResponse(st.scratch[:0], r, st.ans, st.q.Protocol)
	if st.ans.bodiless {
		st.ended = true
		return st.write(w, st.scratch)
	}
	if st.ans.chunked && first.Len() > 0 {
		st.scratch = appendChunkSize(st.scratch, first.Len())
	}
	return st.data(w, first, end)
}

// frame decides how the answer's end will be told.
func (st *ServerStream) frame(r *codec.Response, first int, end bool) {
	if !st.whole.Load() {
		// The client may still be sending: what comes cannot be told from a next request for certain.
		st.close = true
	}
	if asked := string(st.q.Method) == "CONNECT" || len(st.q.Upgrade) > 0; asked && !r.Switched {
		// What the client has sent behind its request may be for the tunnel that there is not, and no request.
		st.close = true
	}
	old := st.q.Protocol == mesh.HTTP10
	if old && end && r.Length == codec.Unknown {
		r.Length = int64(first)
	}
	switch {
	case r.Switched:
		st.tunnel, st.toClose = true, true
		st.read(toClose, 0)
	case codec.Bodiless(st.q.Method, r.Status):
		st.ans.bodiless = true
	case r.Length == codec.Unknown && old:
		st.close, st.toClose = true, true
	case r.Length == codec.Unknown:
		st.ans.chunked = true
	}
	st.ans.close = st.close && !st.tunnel
}

// Data implements codec.ServerStream.
func (st *ServerStream) Data(w *socket.Worker, p bytebuf.Piece, end bool) error {
	if st.ended {
		return errAnswerEnded
	}
	st.scratch = st.scratch[:0]
	if st.ans.chunked && p.Len() > 0 {
		st.scratch = appendChunkSize(st.scratch, p.Len())
	}
	return st.data(w, p, end)
}

// data sends what is in scratch, the piece, and what ends it, in one send where the piece has room or is small.
func (st *ServerStream) data(w *socket.Worker, p bytebuf.Piece, end bool) error {
	st.ended = end
	return writeAround(w, st.write, &st.scratch, p, chunkTail(st.ans.chunked, p.Len() > 0, end))
}

// SendTrailers sends the trailer section and ends the answer. Where the answer is not chunked the fields are left out.
func (st *ServerStream) SendTrailers(w *socket.Worker, h *header.List) error {
	if st.ended {
		return errAnswerEnded
	}
	st.ended = true
	if !st.ans.chunked {
		return nil
	}
	st.scratch = appendTrailers(st.scratch[:0], h)
	return st.write(w, st.scratch)
}

func (st *ServerStream) write(w *socket.Worker, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	st.sent += int64(len(p))
	return st.s.conn.Write(w, p)
}

// Started reports whether the final head is out.
func (st *ServerStream) Started() bool { return st.started }

// Sent returns the bytes of this answer on the wire.
func (st *ServerStream) Sent() int64 { return st.sent }

// Finish ends the stream and reports whether the connection can serve another: both messages ended, and neither side
// asked to close.
func (st *ServerStream) Finish() (keep bool) {
	st.s.drained()
	return st.ended && st.whole.Load() && !st.close && !st.tunnel
}

// chunkTail returns what goes behind a piece of a chunked body.
func chunkTail(chunked, data, end bool) string {
	switch {
	case !chunked:
		return ""
	case data && end:
		return "\r\n0\r\n\r\n"
	case data:
		return "\r\n"
	case end:
		return "0\r\n\r\n"
	}
	return ""
}

// smallPiece is what is rather copied than sent apart.
const smallPiece = 8 << 10

// writeAround writes what is in scratch, the piece and tail. scratch may grow for that.
func writeAround(w *socket.Worker, write func(*socket.Worker, []byte) error, scratch *[]byte, p bytebuf.Piece, tail string) error {
	front := *scratch
	if p.Len() == 0 {
		return write(w, append(front, tail...))
	}
	if out, ok := p.Wrap(front, tail); ok {
		return write(w, out)
	}
	if p.Len() <= smallPiece {
		*scratch = append(append(front, p.Bytes()...), tail...)
		return write(w, *scratch)
	}
	if err := write(w, front); err != nil {
		return err
	}
	if err := write(w, p.Bytes()); err != nil {
		return err
	}
	return write(w, append(front[:0], tail...))
}
