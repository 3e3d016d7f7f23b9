// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Frames of HTTP/2 (RFC 9113, section 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePush         = 5
	framePing         = 6
	frameGoAway       = 7
	frameWindow       = 8
	frameContinuation = 9

	flagEndStream  = 1 // of DATA and HEADERS
	flagAck        = 1 // of SETTINGS and PING
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 32

	settingTable   = 1
	settingPush    = 2
	settingStreams = 3
	settingWindow  = 4

	frameHead = 9
	maxFrame  = 16 << 10 // both sides keep the limit that holds without a setting

	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	startWindow  = 65535 // of connections, and of streams without a setting
	streamWindow = 1 << 20
	connWindow   = 16 << 20
	streamLimit  = 100 // of what an upstream takes on one connection
	tableSize    = 4 << 10
)

var errFrame = errors.New("load: a frame that is no HTTP/2, or longer than 16 KiB")

// appendFrame appends the head of a frame whose payload has n bytes.
func appendFrame(b []byte, n int, kind, flags byte, id uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

// appendSettings appends what a client or a server announces, and the window of the connection.
func appendSettings(b []byte, client bool) []byte {
	first, value := uint16(settingStreams), uint32(streamLimit)
	if client {
		first, value = settingPush, 0
	}
	b = appendFrame(b, 12, frameSettings, 0, 0)
	b = binary.BigEndian.AppendUint16(b, first)
	b = binary.BigEndian.AppendUint32(b, value)
	b = binary.BigEndian.AppendUint16(b, settingWindow)
	b = binary.BigEndian.AppendUint32(b, streamWindow)
	return appendWindow(b, 0, connWindow-startWindow)
}

func appendWindow(b []byte, id uint32, n int64) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameWindow, 0, id), uint32(n))
}

// feed takes bytes of the connection and handles the frames that are whole; the rest waits for more.
func (s *session) feed(b []byte) error {
	if len(s.begun) > 0 {
		s.begun = append(s.begun, b...)
		b = s.begun
	}
	if !s.client && !s.greeted {
		if len(b) < len(preface) {
			s.begun = append(s.begun[:0], b...)
			return nil
		}
		if string(b[:len(preface)]) != preface {
			return errFrame
		}
		s.greeted, b = true, b[len(preface):]
	}
	for len(b) >= frameHead {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if n > maxFrame {
			return errFrame
		}
		if len(b) < frameHead+n {
			break
		}
		if err := s.frame(b[3], b[4], binary.BigEndian.Uint32(b[5:])&(1<<31-1), b[frameHead:frameHead+n]); err != nil || s.fd < 0 {
			return err
		}
		b = b[frameHead+n:]
	}
	s.begun = append(s.begun[:0], b...)
	return nil
}

// frame handles one frame.
func (s *session) frame(kind, flags byte, id uint32, p []byte) error {
	if s.blockID != 0 && (kind != frameContinuation || id != s.blockID) {
		return errFrame
	}
	switch kind {
	case frameData:
		return s.data(id, flags, p)
	case frameHeaders:
		p, err := unpad(flags, p)
		if err != nil {
			return err
		}
		if flags&flagPriority != 0 {
			if len(p) < 5 {
				return errFrame
			}
			p = p[5:]
		}
		if flags&flagEndHeaders != 0 {
			return s.head(id, flags, p)
		}
		s.blockID, s.blockFlags, s.block = id, flags, append(s.block[:0], p...)
	case frameContinuation:
		if s.block = append(s.block, p...); s.blockID == 0 || len(s.block) > maxHead {
			return errFrame
		}
		if flags&flagEndHeaders != 0 {
			s.blockID = 0
			return s.head(id, s.blockFlags, s.block)
		}
	case frameReset:
		return s.reset(id, p)
	case frameSettings:
		return s.settings(flags, p)
	case framePing:
		if flags&flagAck == 0 {
			s.out = append(appendFrame(s.output(), len(p), framePing, flagAck, 0), p...)
		}
	case frameGoAway:
		if s.client && len(p) >= 8 {
			return fmt.Errorf("load: the proxy wants to end a connection: code %d %.60q", binary.BigEndian.Uint32(p[4:]), p[8:])
		}
	case frameWindow:
		return s.widen(id, p)
	case framePush:
		return errFrame
	}
	return nil // PRIORITY, and what may be added to the protocol
}

// unpad takes the padding away.
func unpad(flags byte, p []byte) ([]byte, error) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) < 1 || len(p) < 1+int(p[0]) {
		return nil, errFrame
	}
	return p[1 : len(p)-int(p[0])], nil
}

// data counts bytes of a body and gives windows back when half of them is used.
func (s *session) data(id uint32, flags byte, p []byte) error {
	whole := int64(len(p)) // padding counts for the windows
	p, err := unpad(flags, p)
	if err != nil {
		return err
	}
	if s.received += whole; s.received > connWindow/2 {
		s.out = appendWindow(s.output(), 0, s.received)
		s.received = 0
	}
	st := s.streams[id]
	if st == nil {
		return s.unknown(id)
	}
	st.body += int64(len(p))
	if flags&flagEndStream != 0 {
		return s.ended(st)
	}
	if st.received += whole; st.received > streamWindow/2 {
		s.out = appendWindow(s.output(), id, st.received)
		st.received = 0
	}
	if s.loop.job.Streaming {
		s.messages(st)
	}
	return nil
}

// unknown is a frame of a stream that is not open: one that has ended, unless it is the client who hears of it.
func (s *session) unknown(id uint32) error {
	if s.client || id == 0 || id > s.last {
		return fmt.Errorf("load: a frame of stream %d, on which nobody asked for anything", id)
	}
	return nil
}

// settings takes what the peer announces and says so.
func (s *session) settings(flags byte, p []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	for ; len(p) >= 6; p = p[6:] {
		value := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingTable:
			if s.bare = value < tableSize; s.bare {
				s.named = false
			}
		case settingWindow:
			more := int64(value) - s.initial
			s.initial += more
			for _, st := range s.streams {
				st.window += more
			}
		}
	}
	s.out = appendFrame(s.output(), 0, frameSettings, flagAck, 0)
	s.resume()
	return nil
}

func (s *session) widen(id uint32, p []byte) error {
	if len(p) != 4 {
		return errFrame
	}
	more := int64(binary.BigEndian.Uint32(p) & (1<<31 - 1))
	if id == 0 {
		s.window += more
	} else if st := s.streams[id]; st != nil {
		st.window += more
	}
	s.resume()
	return nil
}

// push sends as much of a stream's body as the windows allow, and what goes behind it. It reports whether all has gone.
func (s *session) push(st *stream) bool {
	for len(st.unsent) > 0 {
		n := int(min(int64(len(st.unsent)), maxFrame, s.window, st.window))
		if n <= 0 {
			return false
		}
		flags := byte(0)
		if n == len(st.unsent) && !st.trailers && !st.stands {
			flags = flagEndStream
		}
		s.out = append(appendFrame(s.output(), n, frameData, flags, st.id), st.unsent[:n]...)
		st.unsent = st.unsent[n:]
		s.window -= int64(n)
		st.window -= int64(n)
	}
	if st.trailers {
		s.out = append(appendFrame(s.output(), len(trailers), frameHeaders, flagEndHeaders|flagEndStream, st.id), trailers...)
	}
	return true
}

// resume goes on with the bodies that waited for windows, first come, first served.
func (s *session) resume() {
	s.waiting = slices.DeleteFunc(s.waiting, func(st *stream) bool {
		if s.streams[st.id] != st {
			return true // it was reset
		}
		all := s.push(st)
		if all && !s.client && !st.stands {
			s.forget(st)
		}
		return all
	})
}
