// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// data handles a DATA frame (RFC 9113 section 6.1).
func (c *conn) data(f *frame) error {
	p, ok := f.unpad()
	if !ok || f.id == 0 {
		return connError(ProtocolError, "bad DATA frame")
	}
	end := f.has(flagEndStream)
	c.abuse.useful()
	if err := c.abuse.data(len(p) == 0 && !end); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	total := int64(len(f.payload))
	if total > c.recvWindow {
		return connError(FlowControlError, "DATA beyond the connection's window")
	}
	c.recvWindow -= total
	st := c.streams[f.id]
	if st == nil && c.role.idle(f.id) {
		return connError(ProtocolError, "DATA on an idle stream")
	}
	var err error
	switch {
	case st == nil:
		err = c.closed(f.id)
	case st.recvEnd:
		err = c.streamError(f.id, st, StreamClosed, nil)
	case total > st.recvWindow:
		err = c.streamError(f.id, st, FlowControlError, nil)
	default:
		err = c.deliver(st, p, int(total), end)
	}
	c.credit(int(total))
	return err
}

// deliver gives data to a stream.
func (c *conn) deliver(st *stream, p []byte, total int, end bool) error {
	st.recvWindow -= int64(total)
	st.unread += total - len(p) // padding is read at once
	st.got += int64(len(p))
	st.received += int64(headerBytes + total)
	switch {
	case !st.headIn:
		return c.refuse(st.id, st, errDataFirst)
	case st.length >= 0 && (st.got > st.length || end && st.got != st.length):
		return c.refuse(st.id, st, errLengthBody)
	}
	if len(p) > 0 {
		st.put(p)
		if c.held > c.maxHeld() {
			c.relieve()
		}
	}
	if end {
		st.endHere()
	}
	if len(p) > 0 || end {
		st.wakeReader()
	}
	return nil
}

// credit gives the peer back what the connection has received, whoever reads it, as long as what waits to be read is
// within its bound: a stream that nobody reads does not stop the others.
func (c *conn) credit(n int) {
	c.credited += n
	if c.held > c.maxHeld() {
		c.withheld = true
		return
	}
	c.withheld = false
	if c.credited >= max(c.cfg.ConnWindow, defaultWindow)/2 {
		c.recvWindow += int64(c.credited)
		c.windowUpdate(0, c.credited)
		c.credited = 0
	}
}

// letGo notes that st holds less, and gives the peer what was kept back for that, once it is worth it. It reports whether
// it did.
func (c *conn) letGo(st *stream) bool {
	st.weigh()
	if !c.withheld {
		return false
	}
	if limit := c.maxHeld(); c.held > limit-limit/4 {
		return false
	}
	c.credit(0)
	return true
}

// relieve makes what is held as small as it can be, and resets streams from which nobody reads, as far as that is needed
// to come within the bound again.
func (c *conn) relieve() {
	for _, st := range c.streams {
		st.tighten()
	}
	for c.held > c.maxHeld() {
		var worst *stream
		for _, st := range c.streams {
			if held := st.queued + st.out; held > 0 && (worst == nil || st.since < worst.since || st.since == worst.since && held > worst.queued+worst.out) {
				worst = st
			}
		}
		if worst == nil {
			return
		}
		if due := worst.since + int64(c.cfg.StallGrace); c.now < due {
			c.wantTurn(due)
			return
		}
		worst.end(&codec.ResetError{Code: uint32(EnhanceYourCalm)})
		worst.dropReceived()
		c.forget(worst)
		c.sendReset(worst.id, EnhanceYourCalm)
	}
}

// windowUpdate puts a WINDOW_UPDATE into the output. The lock is held.
func (c *conn) windowUpdate(id uint32, n int) {
	var b [headerBytes + 4]byte
	c.out.append(c.bufs, binary.BigEndian.AppendUint32(appendFrameHeader(b[:0], 4, frameWindowUpdate, 0, id), uint32(n)), true)
}

// windowGiven handles a WINDOW_UPDATE frame (RFC 9113 section 6.9).
func (c *conn) windowGiven(f *frame) error {
	if len(f.payload) != 4 {
		return connError(FrameSizeError, "bad WINDOW_UPDATE frame")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.abuse.window(c.dataSent); err != nil {
		return err
	}
	if f.id == 0 {
		if n == 0 {
			return connError(ProtocolError, "WINDOW_UPDATE of 0")
		}
		if c.sendWindow+n > maxWindow {
			return connError(FlowControlError, "the connection's window is too large")
		}
		c.sendWindow += n
		c.pass()
		return nil
	}
	st := c.streams[f.id]
	switch {
	case st == nil && c.role.idle(f.id):
		return connError(ProtocolError, "WINDOW_UPDATE on an idle stream")
	case st == nil:
		return nil // RFC 9113 section 5.1: it may be under way for a while
	case n == 0:
		return c.streamError(f.id, st, ProtocolError, nil)
	case st.sendWindow+n > maxWindow:
		return c.streamError(f.id, st, FlowControlError, nil)
	}
	st.sendWindow += n
	st.wakeForWindow()
	return nil
}

// initialWindow applies SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.9.2).
func (c *conn) initialWindow(v uint32) error {
	if v > maxWindow {
		return connError(FlowControlError, "bad SETTINGS_INITIAL_WINDOW_SIZE")
	}
	by := int64(v) - c.peer.window
	c.peer.window = int64(v)
	for _, st := range c.streams {
		if st.sendWindow += by; st.sendWindow > maxWindow {
			return connError(FlowControlError, "a stream's window is too large")
		}
		if by > 0 {
			st.wakeForWindow()
		}
	}
	return nil
}

// pass wakes the first stream that waits for room in the output, and the first that waits for the connection's window, if
// there is some. Whoever was woken passes on what it leaves, whatever becomes of it. So while there is something to be had
// and somebody waits for it, somebody is awake who will take or pass it: none waits for ever. The lock is held.
func (c *conn) pass() {
	if !c.hasRoom() {
		return
	}
	if st := c.forRoom.head; st != nil {
		st.wakeWriter()
	}
	if st := c.forWindow.head; st != nil && c.sendWindow > 0 {
		st.wakeWriter()
	}
}

// timers does what is due at now.
func (c *conn) timers(now int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.blocked && now-c.out.stuck >= int64(c.cfg.StallTimeout) {
		return errStalled
	}
	if c.out.err != nil {
		return c.out.err
	}
	if t := int64(c.cfg.HeadTimeout); t > 0 && c.partial != 0 && now-c.partial >= t {
		return errSlow
	}
	if c.withheld {
		c.relieve()
		c.credit(0)
	}
	for _, st := range c.streams {
		if c.stalls == 0 {
			break
		}
		if st.waiting != 0 && now-st.waiting >= int64(c.cfg.StallTimeout) {
			c.count(metrics.HTTP2TxFlushTimeout)
			if err := c.streamError(st.id, st, Cancel, nil); err != nil {
				return err
			}
		}
	}
	if c.goingAway == announced && now-c.announcedAt >= int64(c.cfg.DrainTimeout) {
		c.sayLast()
	}
	return c.keepAlive(now)
}

// keepAlive asks a silent peer whether it is there.
func (c *conn) keepAlive(now int64) error {
	switch every := int64(c.cfg.PingInterval); {
	case every == 0:
	case c.pinged != 0 && now-c.pinged >= int64(c.cfg.PingTimeout):
		return errSilent
	case c.pinged == 0 && now-c.heard >= every:
		c.pinged = now
		c.sendPing(0, alivePing)
	}
	return nil
}

// What our PINGs say.
const (
	alivePing = "meshtap?"
	drainPing = "draining"
)

var (
	errStalled = connError(EnhanceYourCalm, "the peer takes no bytes")
	errSilent  = connError(NoError, "the peer does not answer PING")
	errSlow    = connError(EnhanceYourCalm, "a head takes too long")
	errClosed  = connError(NoError, "the connection has ended")
)

// arm asks for the next turn that time brings. The lock is held.
func (c *conn) arm() {
	next := c.owners
	at := func(t int64) {
		if next == 0 || t < next {
			next = t
		}
	}
	if c.expire != 0 {
		at(c.expire) // somebody asked while the turn went on
	}
	if c.out.blocked {
		at(c.out.stuck + int64(c.cfg.StallTimeout))
	}
	if every := int64(c.cfg.PingInterval); every != 0 {
		if c.pinged != 0 {
			at(c.pinged + int64(c.cfg.PingTimeout))
		} else {
			at(c.heard + every)
		}
	}
	if t := int64(c.cfg.HeadTimeout); t > 0 && c.partial != 0 {
		at(c.partial + t)
	}
	if c.goingAway == announced {
		at(c.announcedAt + int64(c.cfg.DrainTimeout))
	}
	if c.withheld {
		at(c.now + int64(max(c.cfg.StallGrace, time.Millisecond)))
	}
	if c.stalls > 0 {
		at(c.now + int64(c.cfg.StallTimeout))
	}
	c.expire = next
	c.io.SetExpire(next)
}

// drain begins to end the connection in order (RFC 9113 section 6.8).
func (c *conn) drain() {
	if c.goingAway != staying || c.err != nil {
		return
	}
	// There may have been no turn for a while: the client's time begins now.
	c.goingAway, c.announcedAt = announced, max(c.now, mono.Now())
	c.sendGoAway(maxStreamID, NoError)
	c.sendPing(0, drainPing)
	c.wantTurn(c.announcedAt + int64(c.cfg.DrainTimeout))
}

// sayLast ends the time in which new streams are taken.
func (c *conn) sayLast() {
	c.goingAway = final
	c.sendGoAway(c.lastID, NoError)
	if c.active == 0 {
		c.wantTurn(1)
	}
}
