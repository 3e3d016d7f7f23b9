// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"
	"runtime"
	"sync"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Conn is what both roles need of a connection. *socket.Conn is one; under TLS it holds a record layer.
type Conn interface {
	TryRead(p []byte) (int, error)
	TryWrite(p []byte) (int, error)
	HungUp() bool
	// SetExpire asks for a turn at t (mono), 0 for none.
	SetExpire(t int64)
}

// conn is what the two roles have in common.
type conn struct {
	// Immutable.
	io     Conn
	bufs   *bytebuf.Pool
	cfg    *Config
	role   role
	client bool

	// The turn's own.
	in       *bytebuf.Buf
	loaded   bool   // in holds what came before the first turn
	part     []byte // the beginning of a frame whose rest has not come
	preface  int    // what of the client's preface is still to come
	settled  bool   // the peer's first SETTINGS came
	open     block
	dec      decoder
	sec      section
	trailers header.List
	abuse    abuse
	heard    int64 // mono: when something last came from the peer
	partial  int64 // mono: since when a head, or the peer's SETTINGS, is not complete; 0 where none is under way
	pinged   int64 // mono: when it was asked whether it is there; 0 where it is not

	mu sync.Mutex
	// Guarded by mu.
	now     int64  // mono: the last turn's time
	shard   uint32 // of the last turn's worker, for the counters
	out     output
	enc     encoder
	scratch []byte // a header block on its way out
	streams map[uint32]*stream
	active  int // streams whose user has not finished
	over    int // of them, those whose messages have both ended
	err     error
	closer  *socket.Worker // waits for the flusher to end

	sendWindow, recvWindow int64
	credited               int  // bytes received that the peer has not been given back
	held                   int  // memory of the bytes received that nobody has read
	withheld               bool // window is kept back for that
	heads                  int  // bytes of the heads of requests that are served (server)
	beyond                 int  // what of both the others were told of; see Together
	forRoom, forWindow     queue
	stalls                 int    // streams that wait for a window
	lastID                 uint32 // the newest stream of the peer's that was taken
	ignored                uint32 // the newest that came too late to be taken
	expire, owners         int64  // mono: when a turn was asked for; when the owner wants one

	peer        peer
	acked       bool // our SETTINGS were acknowledged
	dataSent    int  // DATA frames sent
	finished    int  // streams that have ended since abuse was told
	ours        [128]uint32
	oursNext    int
	goingAway   goAway
	announcedAt int64 // mono
}

// assumedStreams is how many streams a server is taken to allow before it has said so: RFC 9113 section 6.5.2 recommends
// that it be no fewer.
const assumedStreams = 100

// peer is what the peer's SETTINGS say.
type peer struct {
	streams  uint32
	window   int64
	frame    int
	section  int  // the bytes of a header section, with 32 for each field; 0 where it does not say
	protocol bool // extended CONNECT
	known    bool // they are here
}

// goAway is how far this side has come in ending the connection.
type goAway uint8

const (
	staying goAway = iota
	announced
	final
)

// role is what server and client do each in their way. The turn calls it without the lock.
type role interface {
	// headers takes a whole header block.
	headers(id uint32, p []byte, end bool) error
	// idle reports whether no stream with this id was opened yet. The lock is held.
	idle(id uint32) bool
	// peerGoes takes the peer's GOAWAY. The lock is held.
	peerGoes(last uint32, code Code) error
	// settings takes in the peer's settings. The lock is held.
	settings()
	// failed says how a stream ends with the connection, or by the peer's reset. The lock is held.
	failed(st *stream, err error) error
	// wake wakes those that wait for something that will not come any more. The lock is held.
	wake()
	// handOut passes on what the turn has taken so far; others run now.
	handOut(w *socket.Worker)
}

// block is a header block that came in several frames.
type block struct {
	id     uint32 // 0 where there is none
	end    bool
	frames int
	bytes  []byte
}

// queue is streams that wait for the connection, in their order.
type queue struct{ head, tail *stream }

func (q *queue) push(st *stream) {
	st.queue, st.prev, st.next = q, q.tail, nil
	if q.tail != nil {
		q.tail.next = st
	} else {
		q.head = st
	}
	q.tail = st
}

func (q *queue) remove(st *stream) {
	if st.prev != nil {
		st.prev.next = st.next
	} else {
		q.head = st.next
	}
	if st.next != nil {
		st.next.prev = st.prev
	} else {
		q.tail = st.prev
	}
	st.queue, st.prev, st.next = nil, nil, nil
}

func (c *conn) init(nc Conn, bufs *bytebuf.Pool, cfg *Config, r role, client bool) {
	*c = conn{io: nc, bufs: bufs, cfg: cfg, role: r, client: client}
	c.streams = map[uint32]*stream{}
	c.sendWindow, c.recvWindow = defaultWindow, defaultWindow
	c.peer = peer{streams: min(uint32(cfg.Streams), assumedStreams), window: defaultWindow, frame: frameBytes}
	if !client {
		c.preface = len(Preface)
	}
	c.dec.init(min(cfg.TableBytes, maxTable))
	c.enc.init()
	c.sec.dec, c.sec.cfg = &c.dec, cfg
	c.now = mono.Now()
	c.heard, c.partial = c.now, c.now
	c.abuse.init(cfg, c.now)
	if cfg.Stats != nil {
		cfg.Stats.Begin()
	}
	c.hello()
}

// hello puts our side's preface into the output.
func (c *conn) hello() {
	var b [128]byte
	p := b[:0]
	if c.client {
		p = append(p, Preface...)
	}
	at := len(p)
	p = appendFrameHeader(p, 0, frameSettings, 0, 0)
	if n := min(c.cfg.TableBytes, maxTable); n != defaultTable {
		p = appendSetting(p, settingTableSize, uint32(n))
	}
	if c.client {
		p = appendSetting(p, settingPush, 0)
	} else {
		p = appendSetting(p, settingStreams, uint32(c.cfg.Streams))
		if c.cfg.ExtendedConnect {
			p = appendSetting(p, settingConnectProtocol, 1)
		}
	}
	p = appendSetting(p, settingWindow, uint32(c.streamWindow()))
	p = appendSetting(p, settingHeaderList, uint32(c.cfg.HeadBytes))
	p[at+2] = byte(len(p) - at - headerBytes)
	c.out.append(c.bufs, p, true)
	if n := c.cfg.ConnWindow - defaultWindow; n > 0 {
		c.recvWindow += int64(n)
		c.windowUpdate(0, n)
	}
}

func (c *conn) streamWindow() int64 { return int64(max(c.cfg.StreamWindow, defaultWindow)) }

// turn reads what is there, handles it, does what time asks for, and sends. An error ends the connection: every stream has
// been told and nothing is written any more, so that the caller can close it.
func (c *conn) turn(w *socket.Worker, now int64) error {
	c.begin(w.Shard, now)
	// Before the times are looked at: a turn that comes late may find that the peer was not.
	err := c.read(w)
	if err == nil {
		err = c.timers(now)
	}
	if err == nil {
		c.role.handOut(w)
		err = c.finishTurn(w)
	}
	if err != nil {
		c.fail(w, err)
		return err
	}
	return nil
}

// begin notes the time, and goes on with an output that was blocked.
func (c *conn) begin(shard uint32, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shard = shard
	c.now = max(now, c.now)
	c.expire = 0
	c.resume()
}

// finishTurn sends what the turn has to say and sets the time of the next.
func (c *conn) finishTurn(w *socket.Worker) error {
	c.dec.trim()
	c.sec.trim()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.flood(c.cfg); err != nil {
		return err
	}
	c.flush(w, true)
	if c.out.err != nil {
		return c.out.err
	}
	if c.goingAway == final && c.active == 0 && c.out.empty() {
		return ErrDrained
	}
	c.arm()
	return nil
}

// read reads until there is nothing.
func (c *conn) read(w *socket.Worker) error {
	if c.loaded {
		c.loaded = false
		if err := c.frames(w); err != nil {
			return err
		}
	}
	for n := 1; ; n++ {
		c.unshelve()
		free := c.in.Free()
		got, err := c.io.TryRead(free)
		c.in.Hi += got
		if got > 0 {
			c.heard, c.pinged = c.now, 0
			if err := c.frames(w); err != nil {
				return err
			}
		}
		switch {
		case err == socket.ErrWouldBlock, err == nil && got < len(free) && !c.io.HungUp():
			c.shelve()
			return nil
		case err != nil:
			return err
		case n%8 == 0:
			// A peer that never pauses is to have its window back all the same.
			if err := c.between(w); err != nil {
				return err
			}
		}
		c.role.handOut(w)
		runtime.Gosched() // the other connections' turns come in between: a peer that never pauses is one of many
	}
}

// between sends in the middle of a long turn.
func (c *conn) between(w *socket.Worker) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.flood(c.cfg); err != nil {
		return err
	}
	c.flush(w, false)
	return nil
}

// unshelve takes a buffer and puts the beginning of a frame into it.
func (c *conn) unshelve() {
	if c.in == nil {
		c.in = c.bufs.Get()
		c.in.Hi += copy(c.in.Free(), c.part)
		c.part = c.part[:0]
		return
	}
	if c.in.Len() == 0 {
		c.in.Lo, c.in.Hi = bytebuf.Room, bytebuf.Room
	} else {
		c.in.Grow(bytebuf.Size) // to the front: what is there is less than one frame
	}
}

// shelve gives the buffer back; the beginning of a frame is kept apart, in no more memory than it needs.
func (c *conn) shelve() {
	if c.in == nil {
		return
	}
	c.part = c.part[:0]
	if n := c.in.Len(); n > 0 {
		c.part = append(c.part[:0], c.in.Bytes()...)
	} else if cap(c.part) > 1<<10 {
		c.part = nil
	}
	c.bufs.Put(c.in)
	c.in = nil
	switch {
	case !c.inHead():
		c.partial = 0
	case c.partial == 0:
		c.partial = c.now
	}
}

// inHead reports whether the peer owes us the rest of a head, or its SETTINGS. Where it is not known yet what a frame will
// be, it may be a head.
func (c *conn) inHead() bool {
	if !c.settled || c.open.id != 0 {
		return true
	}
	n := len(c.part)
	return n > 0 && (n < 4 || frameType(c.part[3]) == frameHeaders || frameType(c.part[3]) == frameContinuation)
}

// inARow is how many frames a connection's turn handles before the others' turns and the streams' workers come in between:
// a buffer of small frames is a millisecond of work.
const inARow = 64

// frames handles the whole frames of the buffer.
func (c *conn) frames(w *socket.Worker) error {
	if c.preface > 0 {
		if err := c.takePreface(); err != nil || c.preface > 0 {
			return err
		}
	}
	var f frame
	for n := 1; ; n++ {
		size, tooLong := readFrame(c.in.Bytes(), &f)
		if tooLong {
			return connError(FrameSizeError, "frame too long")
		}
		if size == 0 {
			return nil
		}
		c.in.Lo += size
		if err := c.handle(&f); err != nil {
			return err
		}
		// Not right behind a head if that can be: what would be reset by the next frame is not to be served.
		if n > inARow && f.typ != frameHeaders || n > 2*inARow {
			n = 0
			c.role.handOut(w)
			w.Yield()
		}
	}
}

// takePreface compares what is here with the client's preface.
func (c *conn) takePreface() error {
	n := min(c.preface, c.in.Len())
	at := len(Preface) - c.preface
	if string(c.in.Bytes()[:n]) != Preface[at:at+n] {
		return connError(ProtocolError, "bad preface")
	}
	c.in.Lo += n
	c.preface -= n
	return nil
}

// fail ends the connection: it tells the peer why where that is of use, ends all streams, and waits until nobody writes.
func (c *conn) fail(w *socket.Worker, err error) {
	defer c.role.handOut(w) // without the lock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.countEnd(err)
	}
	for c.out.flushing {
		c.closer = w
		c.mu.Unlock()
		_ = w.Sleep() // there is nothing to stop for: the flusher does not block
		c.mu.Lock()
	}
	if ce, ok := err.(*ConnError); ok && !ce.Remote && c.out.err == nil {
		c.sendGoAway(c.lastID, ce.Code)
		c.drainOut()
	}
	c.out.drop(c.bufs)
	if c.in != nil {
		c.bufs.Put(c.in)
		c.in = nil
	}
	c.part, c.open.bytes = nil, nil
	for _, st := range c.streams {
		st.end(c.role.failed(st, c.err))
	}
	clear(c.streams)
	c.role.wake()
	for _, q := range [...]*queue{&c.forRoom, &c.forWindow} {
		for q.head != nil {
			q.head.wakeWriter()
		}
	}
}

// close ends the connection for the owner's sake.
func (c *conn) close(w *socket.Worker, code Code) {
	c.mu.Lock()
	ended := c.err != nil
	c.mu.Unlock()
	if !ended {
		c.fail(w, &ConnError{Code: code, Reason: "closed"})
	}
}

func (c *conn) setExpire(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners = t
	if t != 0 {
		c.wantTurn(t)
	}
}

func (c *conn) users() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// forget takes a stream out of the table: no frame reaches it any more. The lock is held.
func (c *conn) forget(st *stream) {
	if c.streams[st.id] == st && st.id != 0 {
		delete(c.streams, st.id)
	}
}

// ErrDrained ends a connection that was drained, once its last stream has ended.
var ErrDrained = errors.New("h2: connection drained")
