// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"io"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Peer is what the client half needs of an upstream connection. *socket.Peer is one.
type Peer interface {
	Call(w *socket.Worker, out []byte) (*bytebuf.Buf, error)
	Recv(w *socket.Worker, b *bytebuf.Buf) (*bytebuf.Buf, error)
	Write(w *socket.Worker, p []byte) error
	Wrote() int64
	CloseWrite() error
}

// Client is an upstream connection. HTTP/1.1 carries one exchange at a time, so it is its own codec.ClientStream; the
// pool that owns it hands it out to one request at a time.
type Client struct {
	peer Peer
	bufs *bytebuf.Pool
	lim  *Limits
	done func(c *Client, reuse bool)

	served int // requests so far, this one included

	// This exchange.
	buf       *bytebuf.Buf // bytes not used up yet; nil where there are none
	dec       decoder
	scratch   []byte
	ask       string // the request's method where it is HEAD or CONNECT
	upgrade   []byte // the protocols that the request asks to switch to
	switching bool
	chunked   bool // the request's body is
	whole     bool // the request is out whole
	answered  bool
	close     bool // the answer's head says that the connection ends with it
	final     bool // the final head is in
	tried     int  // how much of a head was parsed in vain
	// before is what had been sent when the exchange began, got what came since.
	before, got int64
}

// NewClient returns a connection's codec. done is called once for each exchange, by Release or Abort.
func NewClient(peer Peer, bufs *bytebuf.Pool, lim *Limits, done func(c *Client, reuse bool)) *Client {
	return &Client{peer: peer, bufs: bufs, lim: lim, done: done}
}

// Begin starts an exchange.
func (c *Client) Begin() {
	c.served++
	c.ask, c.upgrade, c.switching, c.chunked, c.whole, c.answered, c.close, c.final = "", nil, false, false, false, false, false, false
	c.tried, c.before, c.got = 0, c.peer.Wrote(), 0
}

// Served returns the number of exchanges that have begun.
func (c *Client) Served() int { return c.served }

// Closes reports whether the answer said that it is the connection's last.
func (c *Client) Closes() bool { return c.final && c.close }

// Reused implements codec.ClientStream.
func (c *Client) Reused() bool { return c.served > 1 }

// Answered implements codec.ClientStream.
func (c *Client) Answered() bool { return c.answered }

// Ended implements codec.ClientStream.
func (c *Client) Ended() (known bool, err error) { return false, nil }

// Sent implements codec.ClientStream.
func (c *Client) Sent() int64 { return c.peer.Wrote() - c.before }

// Received implements codec.ClientStream.
func (c *Client) Received() int64 { return c.got }

// request puts the head into scratch.
func (c *Client) request(q *codec.Request) {
	c.chunked = q.Length == codec.Unknown
	c.upgrade, c.switching = q.Upgrade, len(q.Upgrade) > 0
	switch string(q.Method) {
	case "HEAD":
		c.ask = "HEAD"
	case "CONNECT":
		c.ask, c.switching = "CONNECT", true
	}
	c.scratch = appendRequest(c.scratch[:0], q)
}

// Call implements codec.ClientStream.
func (c *Client) Call(w *socket.Worker, q *codec.Request, body []byte, r *codec.Response) error {
	c.request(q)
	out := c.scratch
	if len(body) > 0 {
		b := c.bufs.Get()
		defer c.bufs.Put(b)
		out = append(b.Free()[:0], out...) // a body beyond the buffer's size makes it grow, which is rare
		if c.chunked {
			out = appendChunkSize(out, len(body))
		}
		out = append(out, body...)
	}
	out = append(out, chunkTail(c.chunked, len(body) > 0, true)...)
	c.whole = true
	b, err := c.peer.Call(w, out)
	if err != nil {
		return err
	}
	c.buf = b
	c.got += int64(b.Len())
	c.answered = true
	return c.Answer(w, r)
}

// Head implements codec.ClientStream.
func (c *Client) Head(w *socket.Worker, q *codec.Request) error {
	c.request(q)
	c.whole = q.Length == 0
	return c.write(w, c.scratch)
}

// Data implements codec.ClientStream.
func (c *Client) Data(w *socket.Worker, p bytebuf.Piece, end bool) error {
	front := c.scratch[:0]
	if c.chunked && p.Len() > 0 {
		front = appendChunkSize(front, p.Len())
	}
	c.scratch = front
	if err := writeAround(w, c.write, &c.scratch, p, chunkTail(c.chunked, p.Len() > 0, end)); err != nil {
		return err
	}
	if end {
		c.whole = true
		if c.switching && c.final {
			return c.peer.CloseWrite()
		}
	}
	return nil
}

// SendTrailers implements codec.ClientStream.
func (c *Client) SendTrailers(w *socket.Worker, h *header.List) error {
	c.whole = true
	if !c.chunked {
		return nil
	}
	c.scratch = appendTrailers(c.scratch[:0], h)
	return c.write(w, c.scratch)
}

func (c *Client) write(w *socket.Worker, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return c.peer.Write(w, p)
}

// Answer implements codec.ClientStream.
func (c *Client) Answer(w *socket.Worker, r *codec.Response) error {
	for {
		if c.buf != nil && c.buf.Len() > 0 {
			if done, err := c.parse(r); done || err != nil {
				return err
			}
			makeRoom(c.buf)
		}
		if err := c.recv(w); err != nil {
			return err
		}
	}
}

// parse tries to read a head at the front of the buffer.
func (c *Client) parse(r *codec.Response) (done bool, err error) {
	b := c.buf.Bytes()
	if !worthParsing(b, c.tried) {
		return false, nil
	}
	size, f, err := parseResponse(b, r, c.lim, c.ask, c.switching)
	if err != nil {
		return false, err
	}
	if size == 0 {
		c.tried = len(b)
		return false, nil
	}
	if r.Status == 101 && !offered(c.upgrade, r.Upgrade) {
		return false, errSwitch
	}
	c.tried = 0
	c.buf.Lo += size
	c.accept(r, f)
	return true, nil
}

// accept takes in what a head says about the body and the connection.
func (c *Client) accept(r *codec.Response, f framing) {
	if r.Status < 200 && !r.Switched {
		return
	}
	c.final = true
	c.close = f.close
	c.dec.begin(f.body, r.Length)
	c.dec.hop = f.hop
}

// recv waits for bytes behind those in the buffer.
func (c *Client) recv(w *socket.Worker) error {
	if c.buf != nil && c.buf.Len() == 0 {
		c.bufs.Put(c.buf)
		c.buf = nil
	}
	before := 0
	if c.buf != nil {
		before = c.buf.Len()
	}
	b, err := c.peer.Recv(w, c.buf)
	if err != nil {
		return err
	}
	c.buf = b
	c.got += int64(b.Len() - before)
	c.answered = true
	return nil
}

// Body implements codec.ClientStream.
func (c *Client) Body() codec.Body { return (*answerBody)(c) }

// answerBody is the answer's body on a Client.
type answerBody Client

// Buffered implements codec.Body.
func (a *answerBody) Buffered() (bytebuf.Piece, bool, error) {
	if a.dec.ended || a.buf == nil {
		return bytebuf.Piece{}, a.dec.ended, nil
	}
	p, err := a.dec.take(a.buf, a.lim)
	return p, a.dec.ended, err
}

// Next implements codec.Body.
func (a *answerBody) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	for {
		p, end, err := a.Buffered()
		if p.Len() > 0 || end || err != nil {
			return p, end, err
		}
		switch err := (*Client)(a).recv(w); {
		case err == nil:
		case err == io.EOF && a.dec.mode == toClose:
			a.dec.ended = true
		case err == io.EOF:
			return bytebuf.Piece{}, false, io.ErrUnexpectedEOF
		default:
			return bytebuf.Piece{}, false, err
		}
	}
}

// Trailers implements codec.Body.
func (a *answerBody) Trailers() *header.List { return a.dec.list }

// Release implements codec.ClientStream. The connection is fit for reuse only where both messages ended, nothing came
// that nobody asked for, and neither side wants to close.
func (c *Client) Release() {
	reuse := c.final && c.dec.ended && c.dec.mode != toClose && c.whole && !c.close && (c.buf == nil || c.buf.Len() == 0)
	c.drop()
	c.done(c, reuse)
}

// Abort implements codec.ClientStream.
func (c *Client) Abort() {
	c.drop()
	c.done(c, false)
}

// drop leaves an idle connection no more memory than it needs for the next head.
func (c *Client) drop() {
	c.upgrade, c.dec.hop = nil, nil // they are the exchange's memory
	if c.buf != nil {
		c.bufs.Put(c.buf)
		c.buf = nil
	}
	if cap(c.scratch) > 4<<10 {
		c.scratch = nil
	}
}

// Interface guards.
var (
	_ codec.ClientStream = (*Client)(nil)
	_ codec.ServerStream = (*ServerStream)(nil)
	_ codec.Body         = (*ServerStream)(nil)
	_ Peer               = (*socket.Peer)(nil)
	_ Conn               = (*socket.Conn)(nil)
)
