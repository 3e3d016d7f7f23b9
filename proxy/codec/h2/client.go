// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"
	"io"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Owner is told what it has to know of a Client to hand out its streams. It is called without locks, on the turn's worker
// or on that of a stream which ends, and must not block.
type Owner interface {
	// Capacity says that there may be a place for a stream: one has ended, or the server allows more.
	Capacity(c *Client)
	// Draining says, once, that the connection takes no more streams. Those that it has go on.
	Draining(c *Client)
}

// Client is the codec's state of an upstream connection. Turn and Close belong to the connection's worker; Reserve, Drain
// and what reads it may be called from anywhere.
type Client struct {
	conn
	owner Owner
	resp  codec.Response // the turn's own

	// Guarded by mu.
	nextID   uint32
	free     []*ClientStream
	limit    bool // the server's limit has risen: the owner is to be told
	told     bool // the owner knows of the draining
	gone     bool // the server has said that it takes no more streams
	forWords queue
}

// keepStreams is how many streams without a user are kept for the next, and keepIdle how many where there is no other.
const keepStreams, keepIdle = 128, 4

// Init prepares cl for a new connection. Nothing is written before the first turn or stream.
func (cl *Client) Init(nc Conn, bufs *bytebuf.Pool, cfg *Config, o Owner) {
	cl.owner, cl.nextID = o, 1
	cl.conn.init(nc, bufs, cfg, cl, true)
}

// Assume says how many streams the server is taken to allow before it has said so itself, as from an earlier connection. It
// is for before the first stream.
func (cl *Client) Assume(streams int) { cl.peer.streams = min(cl.peer.streams, uint32(streams)) }

// Turn reads what is there, hands it to the streams, sends, and returns when nothing more can be read; see Server.Turn. It
// returns ErrDrained when the connection takes no more streams and the last has ended.
func (cl *Client) Turn(w *socket.Worker, now int64) error {
	err := cl.turn(w, now)
	cl.tell()
	return err
}

// tell tells the owner the news.
func (cl *Client) tell() {
	cl.mu.Lock()
	limit, drains := cl.limit, cl.goingAway != staying && !cl.told
	cl.limit = false
	cl.told = cl.told || drains
	cl.mu.Unlock()
	if drains {
		cl.owner.Draining(cl)
	}
	if limit {
		cl.owner.Capacity(cl)
	}
}

// Reserve takes a place for a stream, under what the server allows at a time. ok is false where there is none now, or
// where the connection takes no more. The stream ends with Release or Abort, also where it was never used.
func (cl *Client) Reserve() (st *ClientStream, ok bool) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.err != nil || cl.goingAway != staying || cl.active >= cl.places() {
		return nil, false
	}
	cl.active++
	if n := len(cl.free); n > 0 {
		st = cl.free[n-1]
		cl.free = cl.free[:n-1]
	} else {
		st = &ClientStream{cl: cl}
	}
	st.begin(&cl.conn)
	return st, true
}

// Drain ends the handing out of streams; those that were reserved can still be opened. Turn returns ErrDrained when the last has ended.
func (cl *Client) Drain() {
	cl.mu.Lock()
	cl.drains()
	cl.mu.Unlock()
}

// drains does so. The lock is held.
func (cl *Client) drains() {
	if cl.goingAway != final {
		cl.goingAway = final
		cl.wantTurn(1)
	}
}

// Draining reports whether the connection takes no more streams.
func (cl *Client) Draining() bool {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.goingAway != staying || cl.err != nil
}

// Close ends the connection at once, with this code in a GOAWAY; see Server.Close.
func (cl *Client) Close(w *socket.Worker, code Code) { cl.close(w, code) }

// SetExpire makes a turn come at t (mono) in any case; see Server.SetExpire.
func (cl *Client) SetExpire(t int64) { cl.setExpire(t) }

// Streams returns the number of streams that are reserved or open.
func (cl *Client) Streams() int { return cl.users() }

// Places returns how many streams may be open at a time: what the server allows, and no more than Config.Streams.
func (cl *Client) Places() int {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.places()
}

func (cl *Client) places() int { return min(int(cl.peer.streams), cl.cfg.Streams) }

// Opened returns the number of requests that were sent.
func (cl *Client) Opened() int {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return int(cl.nextID-1) / 2
}

// headers implements role: the head of an answer, or its trailers.
func (cl *Client) headers(id uint32, p []byte, end bool) error {
	c := &cl.conn
	c.mu.Lock()
	st := c.streams[id]
	if st == nil {
		defer c.mu.Unlock()
		if cl.idle(id) {
			return connError(ProtocolError, "HEADERS on an idle stream")
		}
		c.count(metrics.HTTP2HeadersNoStream)
		if err := c.closed(id); err != nil {
			return err
		}
		return c.sec.skip(p)
	}
	headIn := st.headIn
	c.mu.Unlock()
	if headIn {
		return c.takeTrailers(id, p, end)
	}
	bad, err := c.sec.response(p, &cl.resp)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st = c.streams[id]; st == nil {
		return c.closed(id) // its user has given up meanwhile
	}
	st.received += int64(len(p))
	if bad == nil {
		bad = st.client.answer(&cl.resp, c.sec.length, end)
	}
	if bad != nil {
		return c.refuse(id, st, bad)
	}
	if end {
		st.endHere()
	}
	st.wakeReader()
	return nil
}

// idle implements role.
func (cl *Client) idle(id uint32) bool { return id&1 == 0 || id >= cl.nextID }

// peerGoes implements role: no more streams, and those above last were not looked at.
func (cl *Client) peerGoes(last uint32, code Code) error {
	cl.gone = true
	cl.drains()
	for id, st := range cl.streams {
		if id > last {
			st.end(&codec.ResetError{Code: uint32(code), Remote: true, Unprocessed: true})
			cl.forget(st)
		}
	}
	return nil
}

// settings implements role.
func (cl *Client) settings() {
	cl.limit = true
	cl.wake()
}

// wake implements role.
func (cl *Client) wake() {
	for cl.forWords.head != nil {
		cl.forWords.head.wakeWriter()
	}
}

// handOut implements role: who waits for an answer has been woken.
func (cl *Client) handOut(*socket.Worker) {}

// failed implements role. A request whose head was never handed to the system is as good as new.
func (cl *Client) failed(st *stream, err error) error {
	var reset *codec.ResetError
	var own *ConnError
	st.client.alive = cl.heard > st.born
	switch {
	case errors.As(err, &reset):
		return err
	case st.at >= cl.out.written:
		return &codec.ResetError{Code: uint32(NoError), Unprocessed: true}
	case errors.As(err, &own):
		return &codec.ProtocolError{Status: 502, Code: own.Reason}
	case err == io.EOF && st.headIn:
		return io.ErrUnexpectedEOF
	}
	return err
}

// put takes back a stream whose user has finished. The lock is held.
func (cl *Client) put(st *ClientStream) {
	keep := keepStreams
	if cl.active == 0 {
		keep = keepIdle
		if len(cl.free) > keep {
			clear(cl.free[keep:])
			cl.free = cl.free[:keep]
		}
	}
	if len(cl.free) < keep {
		cl.free = append(cl.free, st)
	}
}

// sectionSize is what a request's head counts against a limit of the server's (RFC 9113 section 6.5.2). The few fields that
// are left out on the way are counted, too.
func sectionSize(q *codec.Request) int {
	const pseudo = len(":method") + len(":authority") + len(":scheme") + len(":path") + 4*32
	const line = len(": \r\n")
	return pseudo + len(q.Method) + len(q.Authority) + len(q.Scheme) + len(q.Path) + q.Header.Size() + (32-line)*q.Header.Len()
}

// errSection fails a request alone: the server would answer it with the same status, or reset it.
var errSection = &mesh.Failure{
	Kind: mesh.DownstreamProtocolError, Side: mesh.SideDownstream, Detail: "head_too_large_for_upstream",
	Reply: &mesh.Reply{
		Status: 431, Details: "head_too_large_for_upstream",
		Body: "the request's headers are larger than the upstream takes",
	},
}

// appendRequest appends the fields of a request's head (RFC 9113 section 8.3.1).
func (cl *Client) appendRequest(dst []byte, q *codec.Request, keep func(header.ID, []byte) bool) []byte {
	e := &cl.enc
	dst = e.begin(dst)
	method := q.Method
	if len(q.Upgrade) > 0 {
		method = methodConnect
	}
	switch string(method) {
	case "GET":
		dst = append(dst, 0x80|2)
	case "POST":
		dst = append(dst, 0x80|3)
	default:
		dst = e.field(dst, header.None, nameMethod, method)
	}
	dst = e.field(dst, header.None, nameAuthority, q.Authority)
	if string(method) != "CONNECT" || len(q.Upgrade) > 0 {
		if header.EqualFold(q.Scheme, "https") {
			dst = append(dst, 0x80|7)
		} else {
			dst = append(dst, 0x80|6)
		}
		if len(q.Path) == 1 && q.Path[0] == '/' {
			dst = append(dst, 0x80|4)
		} else {
			dst = e.field(dst, header.None, namePath, q.Path)
		}
	}
	if len(q.Upgrade) > 0 {
		dst = e.field(dst, header.None, nameProtocol, q.Upgrade)
	}
	if q.Length == codec.Unknown {
		q.Header.RemoveID(header.ContentLength)
	}
	return e.list(dst, &q.Header, keep)
}

var (
	methodConnect = []byte("CONNECT")
	nameMethod    = []byte(":method")
	nameAuthority = []byte(":authority")
	namePath      = []byte(":path")
	nameProtocol  = []byte(":protocol")
)
