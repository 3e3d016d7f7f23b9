// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"slices"
)

// group is what one call of Append has written, in memory: a reader that keeps up takes it from there, and neither reads
// the disk nor computes sums again. It is in the window from when its records may be read until someone has read them,
// or its memory is needed for newer ones.
type group struct {
	seg        *segment
	first, end uint64 // the numbers of its records
	at, till   int64  // where its frames begin and end in the file
	buf        []byte // frames, never sealed
}

// blank returns a group with room for so many bytes. The oldest one in the window makes place where it must.
func (l *Log) blank(size int) *group {
	l.mu.Lock()
	defer l.mu.Unlock()
	var g *group
	switch n := len(l.free); {
	case n > 0:
		g, l.free = l.free[n-1], l.free[:n-1]
	case l.made < max(l.cfg.Groups, 1):
		g = &group{}
		l.made++
	default:
		g = l.window[0]
		l.window = slices.Delete(l.window, 0, 1)
	}
	if cap(g.buf) < size {
		g.buf = make([]byte, 0, 1<<bits.Len(uint(size-1)))
	}
	return g
}

// putBack gives a group back that was not written.
func (l *Log) putBack(g *group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, g)
}

// publish lets the group be read that was just appended to the active segment. mu must be held.
func (l *Log) publish(g *group) {
	if l.cfg.Groups < 2 {
		l.free = append(l.free, g)
	} else {
		l.window = append(l.window, g)
	}
}

// recent takes the group with a record out of the window, nil where it is not there. It stays the reader's until the next
// call. mu must be held.
func (l *Log) recent(seq uint64) *group {
	for len(l.window) > 0 && l.window[0].first <= seq {
		g := l.window[0]
		l.window = slices.Delete(l.window, 0, 1)
		if seq < g.end {
			l.reader.group = g
			return g
		}
		l.free = append(l.free, g)
	}
	return nil
}

func (g *group) fill(s *segment, first uint64, heads, tails [][]byte) {
	g.seg, g.first, g.end, g.buf = s, first, first+uint64(len(tails)), g.buf[:0]
	for i, tail := range tails {
		at := len(g.buf)
		g.buf = openFrame(g.buf, first+uint64(i))
		if heads != nil {
			g.buf = append(g.buf, heads[i]...)
		}
		g.buf = append(g.buf, tail...)
		closeFrame(g.buf[at:])
	}
}

// seal appends the frames as they are written where records are encrypted.
func (g *group) seal(dst []byte, aead cipher.AEAD) []byte {
	for seq, b := g.first, g.buf; seq < g.end; seq++ {
		payload := payloadOf(b)
		dst = appendRecord(dst, seq, payload, aead, g.seg.head)
		b = b[frameSize+len(payload):]
	}
	return dst
}

// records appends the records from a number on.
func (g *group) records(dst []Record, from uint64) []Record {
	for seq, b := g.first, g.buf; seq < g.end; seq++ {
		payload := payloadOf(b)
		if seq >= from {
			dst = append(dst, Record{Seq: seq, Payload: payload, Tag: g.seg.head.tag})
		}
		b = b[frameSize+len(payload):]
	}
	return dst
}

// payloadOf returns the payload of the frame at the beginning of b, which is known to be one.
func payloadOf(b []byte) []byte {
	end := frameSize + int(binary.LittleEndian.Uint32(b[4:]))
	return b[frameSize:end:end]
}
