// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"
	"math"

	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// handle handles one frame (RFC 9113 section 6).
func (c *conn) handle(f *frame) error {
	if !c.settled && (f.typ != frameSettings || f.has(flagAck)) {
		return connError(ProtocolError, "the first frame is not SETTINGS")
	}
	if c.open.id != 0 && (f.typ != frameContinuation || f.id != c.open.id) {
		return errBlockInterrupt
	}
	switch f.typ {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case frameContinuation:
		return c.continuation(f)
	case framePriority:
		return c.priority(f)
	case frameReset:
		return c.reset(f)
	case frameSettings:
		return c.settings(f)
	case framePushPromise:
		return connError(ProtocolError, "PUSH_PROMISE")
	case framePing:
		return c.ping(f)
	case frameGoAway:
		return c.goAway(f)
	case frameWindowUpdate:
		return c.windowGiven(f)
	}
	return nil // RFC 9113 section 5.5
}

// headers handles a HEADERS frame (RFC 9113 section 6.2).
func (c *conn) headers(f *frame) error {
	p, ok := f.unpad()
	if !ok || f.id == 0 {
		return connError(ProtocolError, "bad HEADERS frame")
	}
	if f.has(flagPriority) {
		if len(p) < 5 {
			return connError(FrameSizeError, "HEADERS frame too short")
		}
		if binary.BigEndian.Uint32(p)&maxStreamID == f.id {
			return connError(ProtocolError, "stream depends on itself")
		}
		p = p[5:]
	}
	c.abuse.useful()
	if f.has(flagEndHeaders) {
		c.partial = 0 // the time of the next begins with the next
		return c.role.headers(f.id, p, f.has(flagEndStream))
	}
	c.open = block{id: f.id, end: f.has(flagEndStream), bytes: append(c.open.bytes[:0], p...)}
	return nil
}

// continuation handles a CONTINUATION frame (RFC 9113 section 6.10). A block is kept until it is whole, in no more than
// Continuations+1 frames.
func (c *conn) continuation(f *frame) error {
	if c.open.id == 0 {
		return connError(ProtocolError, "CONTINUATION without a header block")
	}
	if c.open.frames++; c.open.frames > c.cfg.Continuations {
		return errContinuations
	}
	if len(c.open.bytes)+len(f.payload) > c.cfg.HeadBytes+frameBytes {
		return errBlockTooLarge
	}
	c.open.bytes = append(c.open.bytes, f.payload...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	b := c.open
	c.open, c.partial = block{}, 0
	return c.role.headers(b.id, b.bytes, b.end)
}

// priority checks a PRIORITY frame, which means nothing any more (RFC 9113 section 6.3).
func (c *conn) priority(f *frame) error {
	switch {
	case f.id == 0:
		return connError(ProtocolError, "PRIORITY on stream 0")
	case len(f.payload) != 5:
		return connError(FrameSizeError, "bad PRIORITY frame")
	case binary.BigEndian.Uint32(f.payload)&maxStreamID == f.id:
		return connError(ProtocolError, "stream depends on itself")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abuse.priority()
}

// reset handles a RST_STREAM frame (RFC 9113 section 6.4).
func (c *conn) reset(f *frame) error {
	if len(f.payload) != 4 {
		return connError(FrameSizeError, "bad RST_STREAM frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.id == 0 || c.role.idle(f.id) {
		return connError(ProtocolError, "RST_STREAM on an idle stream")
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	c.count(metrics.HTTP2RxReset)
	if code == RefusedStream {
		c.count(metrics.HTTP2StreamRefused)
	}
	st := c.streams[f.id]
	if st != nil {
		st.end(c.role.failed(st, &codec.ResetError{
			Code: uint32(code), Remote: true, Unprocessed: code == RefusedStream && c.client,
		}))
		c.forget(st)
		st.count()
	}
	if c.client {
		return nil
	}
	return c.abused(st != nil && !st.sentEnd && c.now-st.born < prematureAge)
}

// abused notes a stream that was reset by the peer or for its fault. The lock is held.
func (c *conn) abused(premature bool) error {
	for ; c.finished > 0; c.finished-- {
		c.abuse.end()
	}
	return c.abuse.reset(c.now, premature)
}

// settings handles a SETTINGS frame (RFC 9113 section 6.5).
func (c *conn) settings(f *frame) error {
	ack := f.has(flagAck)
	switch {
	case f.id != 0:
		return connError(ProtocolError, "SETTINGS on a stream")
	case ack && len(f.payload) != 0, len(f.payload)%6 != 0:
		return connError(FrameSizeError, "bad SETTINGS frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ack {
		if c.acked {
			return connError(ProtocolError, "SETTINGS acknowledged twice")
		}
		c.acked = true
		c.dec.acknowledged(min(c.cfg.TableBytes, maxTable))
		return nil
	}
	if c.settled {
		if err := c.abuse.ping(c.now); err != nil {
			return err
		}
	}
	if !c.settled {
		c.peer.streams = math.MaxInt32 // where they do not say
	}
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.settled, c.peer.known = true, true
	var b [headerBytes]byte
	c.out.append(c.bufs, appendFrameHeader(b[:0], 0, frameSettings, flagAck, 0), true)
	c.role.settings()
	return nil
}

// setting applies one setting of the peer (RFC 9113 section 6.5.2).
func (c *conn) setting(id uint16, v uint32) error {
	switch id {
	case settingTableSize:
		c.enc.allow(int(min(v, defaultTable)))
	case settingPush:
		if v > 1 || v == 1 && c.client {
			return connError(ProtocolError, "bad SETTINGS_ENABLE_PUSH")
		}
	case settingStreams:
		c.peer.streams = min(v, uint32(c.cfg.Streams))
	case settingWindow:
		return c.initialWindow(v)
	case settingFrameSize:
		if v < 16<<10 || v > 1<<24-1 {
			return connError(ProtocolError, "bad SETTINGS_MAX_FRAME_SIZE")
		}
		// Larger frames than we would take are not worth sending: others wait behind them.
	case settingHeaderList:
		c.peer.section = int(v)
	case settingConnectProtocol:
		if v > 1 || v == 0 && c.peer.protocol {
			return connError(ProtocolError, "bad SETTINGS_ENABLE_CONNECT_PROTOCOL")
		}
		c.peer.protocol = v == 1
	}
	return nil
}

// ping handles a PING frame (RFC 9113 section 6.7).
func (c *conn) ping(f *frame) error {
	switch {
	case f.id != 0:
		return connError(ProtocolError, "PING on a stream")
	case len(f.payload) != 8:
		return connError(FrameSizeError, "bad PING frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagAck) {
		if string(f.payload) == drainPing && c.goingAway == announced {
			c.sayLast()
		}
		return nil
	}
	if err := c.abuse.ping(c.now); err != nil {
		return err
	}
	c.sendPing(flagAck, string(f.payload))
	return nil
}

// sendPing puts a PING into the output. The lock is held.
func (c *conn) sendPing(flags uint8, payload string) {
	var b [headerBytes + 8]byte
	c.out.append(c.bufs, append(appendFrameHeader(b[:0], 8, framePing, flags, 0), payload...), true)
}

// goAway handles a GOAWAY frame (RFC 9113 section 6.8).
func (c *conn) goAway(f *frame) error {
	switch {
	case f.id != 0:
		return connError(ProtocolError, "GOAWAY on a stream")
	case len(f.payload) < 8:
		return connError(FrameSizeError, "bad GOAWAY frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.role.peerGoes(binary.BigEndian.Uint32(f.payload)&maxStreamID, Code(binary.BigEndian.Uint32(f.payload[4:])))
}

// sendGoAway puts a GOAWAY into the output. The lock is held.
func (c *conn) sendGoAway(last uint32, code Code) {
	var b [headerBytes + 8]byte
	p := appendFrameHeader(b[:0], 8, frameGoAway, 0, 0)
	p = binary.BigEndian.AppendUint32(p, last)
	c.count(metrics.HTTP2GoAwaySent)
	c.out.append(c.bufs, binary.BigEndian.AppendUint32(p, uint32(code)), true)
}

// takeTrailers handles the second header block of a stream's message (RFC 9113 section 8.1).
func (c *conn) takeTrailers(id uint32, p []byte, end bool) error {
	bad, err := c.sec.trailers(p, &c.trailers)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	switch {
	case st == nil:
		return c.closed(id) // its user has finished meanwhile
	case st.recvEnd && st.sentEnd:
		// Both messages have ended: the stream is closed, though its user may not have finished yet.
		return connError(StreamClosed, "HEADERS on a closed stream")
	case st.recvEnd:
		return c.streamError(id, st, StreamClosed, nil)
	case !end:
		bad = errTrailersOpen
	case st.length >= 0 && st.got != st.length:
		bad = errLengthBody
	}
	if bad != nil {
		return c.refuse(id, st, bad)
	}
	c.count(metrics.HTTP2Trailers)
	st.trailers, c.trailers = c.trailers, st.trailers
	st.hasTrailers = st.trailers.Len() > 0
	st.received += int64(len(p))
	st.endHere()
	st.wakeReader()
	return nil
}

// refuse resets a stream whose message is not as it should be. The lock is held.
func (c *conn) refuse(id uint32, st *stream, bad *refusal) error {
	c.countRefusal(bad)
	code := ProtocolError
	if !bad.malformed {
		code = EnhanceYourCalm
	}
	return c.streamError(id, st, code, &bad.ProtocolError)
}

// streamError resets a stream for the peer's fault. The lock is held.
func (c *conn) streamError(id uint32, st *stream, code Code, why *codec.ProtocolError) error {
	if st != nil {
		var err error = &codec.ResetError{Code: uint32(code)}
		if why != nil {
			err = why
		}
		st.end(err)
		c.forget(st)
	}
	c.sendReset(id, code)
	if c.client {
		return nil
	}
	if st == nil {
		c.finished++ // it had no user who will say so
	} else {
		st.count()
	}
	return c.abused(st == nil || c.now-st.born < prematureAge)
}

// sendReset puts a RST_STREAM into the output, and notes the stream: what was under way for it is no fault.
func (c *conn) sendReset(id uint32, code Code) {
	var b [headerBytes + 4]byte
	c.out.append(c.bufs, binary.BigEndian.AppendUint32(appendFrameHeader(b[:0], 4, frameReset, 0, id), uint32(code)), true)
	c.count(metrics.HTTP2TxReset)
	c.ours[c.oursNext%len(c.ours)] = id
	c.oursNext++
}

// wasOurs reports whether we have reset this stream, as far as we remember.
func (c *conn) wasOurs(id uint32) bool {
	for _, o := range c.ours[:min(c.oursNext, len(c.ours))] {
		if o == id {
			return true
		}
	}
	return false
}

// closed handles a frame on a stream that has ended (RFC 9113 section 5.1). The lock is held.
func (c *conn) closed(id uint32) error {
	if c.wasOurs(id) || c.oursNext > len(c.ours) {
		return nil
	}
	return connError(StreamClosed, "frame on a closed stream")
}
