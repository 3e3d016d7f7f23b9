// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// wakeWriter wakes the worker that waits to send, wherever it waits.
func (st *stream) wakeWriter() {
	if st.queue != nil {
		st.queue.remove(st)
	}
	if w := st.writer; w != nil {
		st.writer = nil
		w.Signal()
	}
}

// wakeForWindow wakes the worker where it waits for the stream's own window.
func (st *stream) wakeForWindow() {
	if st.queue == nil && st.sendWindow > 0 {
		st.wakeWriter()
	}
}

// endSent: see endHere.
func (st *stream) endSent() {
	st.sentEnd = true
	if st.recvEnd {
		st.c.over++
	}
}

// waits notes that the stream cannot send for want of a window, moves that it can or need not any more.
func (st *stream) waits() {
	if st.waiting == 0 {
		st.waiting = mono.Now()
		st.c.stalls++
		st.c.wantTurn(st.waiting + int64(st.c.cfg.StallTimeout))
	}
}

// moves: see waits.
func (st *stream) moves() {
	if st.waiting != 0 {
		st.waiting = 0
		st.c.stalls--
	}
}

// awaitWrite sleeps until the stream may be able to send. The lock is held, and given up meanwhile.
func (st *stream) awaitWrite(w *socket.Worker, q *queue) error {
	c := st.c
	st.writer = w
	if q != nil {
		q.push(st)
	}
	c.flush(w, false)
	c.mu.Unlock()
	err := w.Sleep()
	c.mu.Lock()
	if st.writer == w {
		st.writer = nil
	}
	if st.queue != nil {
		st.queue.remove(st)
	}
	if err != nil {
		c.pass()
	}
	return err
}

// awaitRoom waits until the output has room. It returns an error where the stream cannot send.
func (st *stream) awaitRoom(w *socket.Worker) error {
	c := st.c
	for {
		if st.sendErr != nil {
			c.pass()
			return st.sendErr
		}
		if c.hasRoom() {
			return nil
		}
		if c.flush(w, false); c.hasRoom() {
			continue
		}
		if err := st.awaitWrite(w, &c.forRoom); err != nil {
			return err
		}
	}
}

// appendData puts as much of p into the output as the windows and the output's room allow, in whole frames, and returns
// what is left. done says that all is there, the end included. The lock is held.
func (st *stream) appendData(p []byte, end bool) (rest []byte, done bool) {
	c := st.c
	for c.hasRoom() && st.sendErr == nil {
		n := int(max(0, min(int64(len(p)), int64(c.peer.frame), st.sendWindow, c.sendWindow))) // a window may be negative
		if len(p) > 0 && n == 0 {
			return p, false
		}
		last := n == len(p)
		var flags uint8
		if last && end {
			flags = flagEndStream
			st.endSent()
		}
		if n > 0 || flags != 0 {
			var h [headerBytes]byte
			c.out.append(c.bufs, appendFrameHeader(h[:0], n, frameData, flags, st.id), false)
			c.out.extend(c.bufs, p[:n])
			st.sent += int64(headerBytes + n)
			c.dataSent++
		}
		st.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		p = p[n:]
		if n > 0 {
			st.moves()
		}
		if last {
			return p, true
		}
		if c.forWindow.head != nil && c.sendWindow > 0 {
			return p, false // one frame for each in turn
		}
	}
	return p, false
}

// sendData sends all of p, waiting where it must. The lock is held, and given up meanwhile.
func (st *stream) sendData(w *socket.Worker, p []byte, end bool) error {
	c := st.c
	for {
		if err := st.awaitRoom(w); err != nil {
			return err
		}
		if st.sentEnd {
			c.pass()
			return errEnded
		}
		rest, done := st.appendData(p, end)
		if p = rest; done {
			c.pass()
			c.flush(w, true)
			return nil
		}
		if err := st.awaitWindow(w, len(p)); err != nil {
			return err
		}
	}
}

// awaitWindow waits for what appendData stopped at, with n bytes that are to be sent.
func (st *stream) awaitWindow(w *socket.Worker, n int) error {
	c := st.c
	switch {
	case !c.hasRoom():
		return nil // awaitRoom is next
	case st.sendErr != nil:
		return nil
	case st.sendWindow <= 0:
		st.waits()
		c.pass()
		return st.awaitPending(w, nil, n)
	}
	if c.sendWindow <= 0 {
		st.waits()
	}
	c.pass()
	return st.awaitPending(w, &c.forWindow, n)
}

// awaitPending is awaitWrite with n bytes that wait for a window.
func (st *stream) awaitPending(w *socket.Worker, q *queue, n int) error {
	st.c.add(metrics.HTTP2PendingSendBytes, int64(n))
	defer func() { st.c.add(metrics.HTTP2PendingSendBytes, -int64(n)) }()
	return st.awaitWrite(w, q)
}

// sendBlock sends a header block, which is in c.scratch, in as many frames as it needs. The lock is held.
func (st *stream) sendBlock(end bool) {
	c := st.c
	p := c.scratch
	typ, flags := frameHeaders, uint8(0)
	if end {
		flags = flagEndStream
		st.endSent()
	}
	for first := true; first || len(p) > 0; first = false {
		n := min(len(p), c.peer.frame)
		if n == len(p) {
			flags |= flagEndHeaders
		}
		var h [headerBytes]byte
		c.out.append(c.bufs, appendFrameHeader(h[:0], n, typ, flags, st.id), false)
		c.out.extend(c.bufs, p[:n])
		st.sent += int64(headerBytes + n)
		p = p[n:]
		typ, flags = frameContinuation, 0
	}
	if cap(c.scratch) > 4<<10 {
		c.scratch = nil
	}
}

// sendTrailers sends trailer fields and ends the message; an empty list only ends it.
func (st *stream) sendTrailers(w *socket.Worker, l *header.List) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.awaitRoom(w); err != nil {
		return err
	}
	if st.sentEnd {
		c.pass()
		return errEnded
	}
	if l == nil || l.Len() == 0 {
		st.appendData(nil, true)
	} else {
		c.scratch = c.enc.list(c.enc.begin(c.scratch[:0]), l, nil)
		st.sendBlock(true)
	}
	c.pass()
	c.flush(w, true)
	return nil
}
