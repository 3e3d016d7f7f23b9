// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"runtime"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/socket"
)

// output is what is to be sent on a connection: whole frames, in pooled buffers that are there only as long as there are
// bytes. Everything of it is guarded by the connection's lock, except that the flusher writes the bytes of the first
// buffer without the lock; others only ever append behind them.
//
// Who appends frames and finds nobody flushing becomes the flusher. It lets the other goroutines that are ready run first
// (runtime.Gosched), so that they append too, and then sends everything at once: this is why a connection with many
// streams needs few system calls.
//
// No wake-up is lost. When the socket is full, the flusher leaves (blocked), and the edge that says that there is room
// again brings a turn, which goes on (resume). An edge that comes between the socket's answer and the flusher's taking
// the lock finds flushing set and sets again instead, which makes the flusher try once more. Streams that wait for room
// are in conn.forRoom; see conn.pass.
type output struct {
	bufs  []chunk
	bytes int
	// frames and control count those that wait, not the bytes of the buffer being written.
	frames, control int

	flushing bool // someone writes, or is about to
	blocked  bool // the socket is full
	again    bool // there was an edge while someone wrote
	inside   bool // a layer below holds bytes that are still to be sent
	err      error
	appended int64 // bytes ever
	written  int64 // bytes ever taken by the socket
	stuck    int64 // mono: since when the socket has taken nothing; 0 where it has
}

// chunk is a buffer of output and the frames that begin in it.
type chunk struct {
	b               *bytebuf.Buf
	frames, control int
}

// highWater is the bytes of output above which streams wait.
const highWater = 64 << 10

// append adds a frame, or its beginning. The lock is held.
func (o *output) append(bufs *bytebuf.Pool, p []byte, control bool) {
	if o.err != nil {
		return
	}
	k := o.last(bufs)
	o.frames++
	k.frames++
	if control {
		o.control++
		k.control++
	}
	o.extend(bufs, p)
}

// extend adds more of the same frame.
func (o *output) extend(bufs *bytebuf.Pool, p []byte) {
	if o.err != nil {
		return
	}
	o.bytes += len(p)
	o.appended += int64(len(p))
	for len(p) > 0 {
		b := o.last(bufs).b
		n := copy(b.Free(), p)
		b.Hi += n
		p = p[n:]
	}
}

// last returns the buffer to append to.
func (o *output) last(bufs *bytebuf.Pool) *chunk {
	n := len(o.bufs)
	if n == 0 || len(o.bufs[n-1].b.Free()) == 0 {
		o.bufs = append(o.bufs, chunk{b: bufs.Get()})
		n++
	}
	return &o.bufs[n-1]
}

func (o *output) empty() bool { return o.bytes == 0 && !o.inside }

// flood returns an error where more waits than a peer that reads would let come together.
func (o *output) flood(cfg *Config) error {
	switch {
	case o.control > cfg.ControlFrames:
		return errControlFlood
	case o.frames > cfg.Frames:
		return errFlood
	}
	return nil
}

// sent takes n bytes off the front.
func (o *output) sent(bufs *bytebuf.Pool, n int) {
	o.bytes -= n
	o.written += int64(n)
	k := &o.bufs[0]
	k.b.Lo += n
	if k.b.Len() > 0 {
		return
	}
	o.frames -= k.frames
	o.control -= k.control
	bufs.Put(k.b)
	m := copy(o.bufs, o.bufs[1:])
	o.bufs[m] = chunk{}
	o.bufs = o.bufs[:m]
}

// drop gives all buffers back.
func (o *output) drop(bufs *bytebuf.Pool) {
	for i := range o.bufs {
		bufs.Put(o.bufs[i].b)
	}
	*o = output{err: errClosed, appended: o.appended, written: o.written}
}

// hasRoom reports whether a stream may append.
func (c *conn) hasRoom() bool { return c.out.bytes < highWater }

// flush sends what is there, unless somebody does already. With yield it lets others append first. The lock is held, and
// given up in between.
func (c *conn) flush(w *socket.Worker, yield bool) {
	o := &c.out
	if o.flushing || o.blocked || o.empty() || o.err != nil {
		return
	}
	o.flushing = true
	if yield {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.pump(w)
}

// rounds bounds the writes of a stream's worker, which has a stream to serve. Where there is more to send, another worker
// goes on.
const rounds = 8

// pump is the flusher. The lock is held, and given up for each write.
func (c *conn) pump(w *socket.Worker) {
	o := &c.out
	for n := 0; !o.empty() && c.err == nil && o.err == nil; n++ {
		if n == rounds && w != nil {
			w.Go((*pumper)(c))
			return
		}
		if !c.write() {
			break
		}
	}
	c.endFlush()
}

// write writes once, and reports whether to go on.
func (c *conn) write() bool {
	o := &c.out
	var p []byte
	if len(o.bufs) > 0 {
		p = o.bufs[0].b.Bytes()
	}
	c.mu.Unlock()
	n, err := c.io.TryWrite(p)
	c.mu.Lock()
	if len(p) > 0 {
		o.sent(c.bufs, n)
	}
	if n > 0 {
		o.stuck = 0
		c.pass()
	}
	switch err {
	case nil:
		o.inside = false
		return true
	case socket.ErrWouldBlock:
		o.inside = true
		if o.again {
			o.again = false
			return true
		}
		o.blocked = true
		if o.stuck == 0 {
			o.stuck = mono.Now()
		}
		c.wantTurn(o.stuck + int64(c.cfg.StallTimeout))
		return false
	}
	o.err = err
	c.wantTurn(1) // the turn tells the streams
	return false
}

// endFlush ends the flusher's part.
func (c *conn) endFlush() {
	c.out.flushing, c.out.again = false, false
	if w := c.closer; w != nil {
		c.closer = nil
		w.Signal()
	}
}

// resume goes on where the socket was full. It is called by the turn, after an edge. The lock is held.
func (c *conn) resume() {
	o := &c.out
	switch {
	case o.flushing:
		o.again = true
	case o.blocked:
		o.blocked = false
		o.flushing = true
		c.pump(nil)
	}
}

// drainOut sends what the socket takes of what is left, when the connection is about to end. The lock is held; nobody
// else writes any more.
func (c *conn) drainOut() {
	o := &c.out
	for len(o.bufs) > 0 {
		p := o.bufs[0].b.Bytes()
		n, err := c.io.TryWrite(p)
		o.sent(c.bufs, n)
		if err != nil {
			return
		}
	}
}

// pumper is a flusher of its own.
type pumper conn

// Run implements socket.Runner.
func (p *pumper) Run(*socket.Worker) {
	c := (*conn)(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pump(nil)
}

// wantTurn asks for a turn at t (mono) or before. The lock is held.
func (c *conn) wantTurn(t int64) {
	if c.err != nil {
		return // it has ended: the owner's own times hold
	}
	if c.expire == 0 || t < c.expire {
		c.expire = t
		c.io.SetExpire(t)
	}
}
