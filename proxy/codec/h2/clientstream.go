// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"crypto/sha1"
	"encoding/base64"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// ClientStream is one request and its answer on an upstream connection. Between Client.Reserve and Release or Abort it
// belongs to its user.
type ClientStream struct {
	stream
	cl *Client

	heads  []codec.Response // those that nobody has taken yet are from first on
	first  int
	head   bool // the request's method is HEAD
	tunnel bool // it asks for a tunnel, or for the protocol proto
	proto  string
	key    string // of a WebSocket handshake
	reused bool
	alive  bool // the server was heard of after the head was sent
	ended  bool // its user has
	// rest is what Call could not send of the request's body before the answer came, or before it had to wait.
	rest    []byte
	pending bool
}

func (st *ClientStream) begin(c *conn) {
	st.stream.begin(c, 0)
	st.client = st
	st.heads, st.first = st.heads[:0], 0
	st.head, st.tunnel, st.proto, st.key, st.rest = false, false, "", "", nil
	st.reused, st.alive, st.ended, st.pending = false, false, false, false
}

// ID returns the stream's number, 0 where its head has not been sent.
func (st *ClientStream) ID() uint32 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.id
}

// Call implements codec.ClientStream. body is borrowed until the stream ends.
func (st *ClientStream) Call(w *socket.Worker, q *codec.Request, body []byte, r *codec.Response) error {
	if err := st.open(w, q, len(body) == 0, body); err != nil {
		return err
	}
	return st.Answer(w, r)
}

// Head implements codec.ClientStream.
func (st *ClientStream) Head(w *socket.Worker, q *codec.Request) error {
	return st.open(w, q, false, nil)
}

// open sends the request's head, and as much of the body as can be sent at once.
func (st *ClientStream) open(w *socket.Worker, q *codec.Request, end bool, body []byte) error {
	st.head = string(q.Method) == "HEAD"
	st.tunnel = string(q.Method) == "CONNECT" || len(q.Upgrade) > 0
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.ready(w, q); err != nil {
		return err
	}
	st.reused = st.cl.nextID > 1
	st.id = st.cl.nextID
	st.cl.nextID += 2
	if st.cl.nextID > maxStreamID {
		st.cl.gone = true // there are no more numbers
		st.cl.drains()
	}
	st.sendWindow = c.peer.window
	st.at, st.born = c.out.appended, mono.Now()
	c.streams[st.id] = &st.stream
	c.abuse.opened++
	if len(q.Upgrade) > 0 {
		st.proto = string(q.Upgrade)
		st.key = string(q.Header.Get("sec-websocket-key"))
		c.scratch = st.cl.appendRequest(c.scratch[:0], q, isWebSocketKey)
	} else {
		c.scratch = st.cl.appendRequest(c.scratch[:0], q, nil)
	}
	st.sentHead = true
	st.sendBlock(end && !st.tunnel)
	if st.rest, st.pending = body, len(body) > 0; st.pending {
		st.push()
	}
	c.pass()
	c.flush(w, true)
	return nil
}

// isWebSocketKey is what HTTP/2 has no use for (RFC 8441 section 5.1).
func isWebSocketKey(id header.ID, name []byte) bool {
	return id == header.None && header.EqualFold(name, "sec-websocket-key")
}

// ready waits until the stream can be opened. The lock is held.
func (st *ClientStream) ready(w *socket.Worker, q *codec.Request) error {
	c := st.c
	for len(q.Upgrade) > 0 && !c.peer.known && c.err == nil {
		if err := st.awaitWrite(w, &st.cl.forWords); err != nil {
			return err
		}
	}
	if c.err == nil && !st.cl.gone {
		if len(q.Upgrade) > 0 && !c.peer.protocol {
			return errNoConnect
		}
		if c.peer.section > 0 && sectionSize(q) > c.peer.section {
			return errSection
		}
		if err := st.awaitRoom(w); err != nil {
			return err
		}
	}
	if c.err != nil || st.cl.gone {
		c.pass()
		return &codec.ResetError{Code: uint32(NoError), Unprocessed: true}
	}
	return nil
}

// push sends what it can of rest. The lock is held.
func (st *ClientStream) push() {
	rest, done := st.appendData(st.rest, true)
	st.rest, st.pending = rest, !done && st.sendErr == nil
	if !st.pending {
		st.rest = nil
	}
	st.c.pass()
}

// await sleeps until something came, or until more of rest can be sent. The lock is held, and given up meanwhile.
func (st *ClientStream) await(w *socket.Worker) error {
	c := st.c
	if !st.pending {
		return st.awaitRead(w)
	}
	var q *queue
	switch {
	case !c.hasRoom():
		q = &c.forRoom
	case st.sendWindow <= 0:
		st.waits()
	case c.sendWindow <= 0:
		st.waits()
		q = &c.forWindow
	case c.forWindow.head != nil:
		q = &c.forWindow
	default:
		return nil // there is room again, since the lock was given up
	}
	st.reader = w
	n := len(st.rest)
	if q == &c.forRoom {
		n = 0
	}
	err := st.awaitPending(w, q, n)
	if st.reader == w {
		st.reader = nil
	}
	return err
}

// Data implements codec.ClientStream.
func (st *ClientStream) Data(w *socket.Worker, p bytebuf.Piece, end bool) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sendData(w, p.Bytes(), end)
}

// SendTrailers implements codec.ClientStream.
func (st *ClientStream) SendTrailers(w *socket.Worker, h *header.List) error {
	return st.sendTrailers(w, h)
}

// Answer implements codec.ClientStream. The head is swapped into r: r's memory is the stream's then.
func (st *ClientStream) Answer(w *socket.Worker, r *codec.Response) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if st.pending {
			st.push()
			c.flush(w, true)
		}
		if st.first < len(st.heads) {
			*r, st.heads[st.first] = st.heads[st.first], *r
			if st.first++; st.first == len(st.heads) {
				st.heads, st.first = st.heads[:0], 0
			}
			return nil
		}
		if st.recvErr != nil {
			return st.recvErr
		}
		if err := st.await(w); err != nil {
			return err
		}
	}
}

// answer takes in the head of an answer, and what it says of the body. The turn calls it, with the lock.
func (st *ClientStream) answer(r *codec.Response, length int64, end bool) *refusal {
	switch {
	case r.Status < 200:
		if end {
			return errInterimEnd
		}
		if len(st.heads)-st.first >= st.c.cfg.Interims {
			return errInterims
		}
		r.Header.RemoveID(header.ContentLength)
		st.keep(r)
		return nil
	case st.tunnel && r.Status/100 == 2:
		st.switched(r)
	case st.head, r.Status == 304:
		st.length = 0 // of the body; the head tells that of another answer
	case r.Status == 204:
		st.length = 0
		r.Header.RemoveID(header.ContentLength)
	case end && length > 0:
		return errLengthBody
	case end:
	case length >= 0:
		st.length, r.Length = length, length
	default:
		r.Length = codec.Unknown
	}
	st.headIn = true
	st.keep(r)
	return nil
}

// keep puts a head to those that wait to be taken, and leaves memory for the next in its place.
func (st *ClientStream) keep(r *codec.Response) {
	n := len(st.heads)
	if n < cap(st.heads) {
		st.heads = st.heads[:n+1]
	} else {
		st.heads = append(st.heads, codec.Response{})
	}
	st.heads[n], *r = *r, st.heads[n]
}

// switched makes r say what a server that speaks HTTP/1.1 would have said.
func (st *ClientStream) switched(r *codec.Response) {
	r.Header.RemoveID(header.ContentLength)
	r.Switched, r.Length = true, codec.Unknown
	if st.proto == "" {
		return
	}
	r.Status = 101
	r.Upgrade = r.Header.Hold([]byte(st.proto))
	if st.key != "" {
		// RFC 6455 section 4.2.2: the client made the key, and wants to see this.
		sum := sha1.Sum([]byte(st.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		r.Header.Set("sec-websocket-accept", base64.StdEncoding.AppendEncode(nil, sum[:]))
	}
}

// Body implements codec.ClientStream: it is the stream itself.
func (st *ClientStream) Body() codec.Body { return st }

// Buffered implements codec.Body.
func (st *ClientStream) Buffered() (bytebuf.Piece, bool, error) { return st.buffered() }

// Next implements codec.Body.
func (st *ClientStream) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.giveBack() {
		c.flush(w, true)
	}
	for {
		if st.pending {
			st.push()
			c.flush(w, true)
		}
		p, end, err := st.take()
		if p.Len() > 0 || end || err != nil {
			return p, end, err
		}
		if err := st.await(w); err != nil {
			return bytebuf.Piece{}, false, err
		}
	}
}

// Trailers implements codec.Body.
func (st *ClientStream) Trailers() *header.List { return st.gotTrailers() }

// Ended implements codec.ClientStream.
func (st *ClientStream) Ended() (known bool, err error) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.recvEnd || st.recvErr != nil, st.recvErr
}

// Release implements codec.ClientStream. Where the request has not been sent to its end, the server is told that the rest
// will not come.
func (st *ClientStream) Release() { st.finish() }

// Abort implements codec.ClientStream: the server is told where the stream has not ended.
func (st *ClientStream) Abort() { st.finish() }

func (st *ClientStream) finish() {
	c, cl := st.c, st.cl
	c.mu.Lock()
	if st.ended {
		c.mu.Unlock()
		return
	}
	st.ended = true
	if st.id != 0 && st.sendErr == nil && c.err == nil && !(st.recvEnd && st.sentEnd) {
		c.sendReset(st.id, Cancel)
	}
	st.rest, st.pending = nil, false
	st.leave()
	cl.put(st)
	c.flush(nil, false)
	c.mu.Unlock()
	cl.owner.Capacity(cl)
	cl.tell()
}

// Reused implements codec.ClientStream.
func (st *ClientStream) Reused() bool { return st.reused }

// Answered implements codec.ClientStream. A connection on which anything came since the head was sent was not stale: the
// server may have acted on the request.
func (st *ClientStream) Answered() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.received > 0 || st.alive
}

// Sent implements codec.ClientStream.
func (st *ClientStream) Sent() int64 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.sent
}

// Received implements codec.ClientStream.
func (st *ClientStream) Received() int64 {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.received
}

// Interface guards.
var (
	_ codec.ClientStream = (*ClientStream)(nil)
	_ codec.Body         = (*ClientStream)(nil)
	_ role               = (*Client)(nil)
)
