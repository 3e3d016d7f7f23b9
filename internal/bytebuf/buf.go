// SPDX-License-Identifier: Apache-2.0

// Package bytebuf holds the buffers of the data path: pooled, with room in front of the bytes for a head and behind them
// for the end of a chunk, so that what is forwarded leaves in one send and is not copied.
//
// A buffer has one owner at a time. Whoever calls Get calls Put, in the same function or in its own Close.
package bytebuf

import (
	"sync"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/invariant"
)

const (
	// Room is the space in front of the bytes that a Buf is born with, in bytes: enough for a rewritten head.
	Room = 2 << 10
	// Size is what a Buf can take behind Room: a body of 64 KiB with its head, which then leave in one send. Pages that
	// nothing was ever written to cost no memory.
	Size = 68 << 10
	// Tail is kept free behind the bytes for what ends a chunk.
	Tail = 16
)

// Buf is a buffer whose bytes are at [Lo, Hi). Free space is behind them, and in front down to 0.
type Buf struct {
	b      []byte
	Lo, Hi int
}

// Pool hands out buffers. The zero value is ready; it is shared by everyone who moves bytes.
type Pool struct {
	p sync.Pool
	// out counts the buffers that are in use, where invariants are checked.
	out atomic.Int64
}

// Get returns an empty buffer with Room in front.
func (p *Pool) Get() *Buf {
	if invariant.On {
		p.out.Add(1)
	}
	b, _ := p.p.Get().(*Buf)
	if b == nil {
		b = &Buf{b: make([]byte, Room+Size+Tail)}
	}
	b.Lo, b.Hi = Room, Room
	return b
}

// Put gives a buffer back. A buffer that had to grow is left to the collector.
func (p *Pool) Put(b *Buf) {
	if invariant.On {
		n := p.out.Add(-1)
		invariant.Check(n >= 0, "bytebuf: a buffer was given back twice")
	}
	if len(b.b) == Room+Size+Tail {
		p.p.Put(b)
	}
}

// InUse returns the number of buffers that were taken and not given back, where invariants are checked; otherwise it is 0.
func (p *Pool) InUse() int64 { return p.out.Load() }

// Bytes returns the bytes, which are the buffer's own.
func (b *Buf) Bytes() []byte { return b.b[b.Lo:b.Hi] }

// Len returns the number of bytes.
func (b *Buf) Len() int { return b.Hi - b.Lo }

// Free returns the space behind the bytes. Add to Hi what was written to it.
func (b *Buf) Free() []byte { return b.b[b.Hi : len(b.b)-Tail] }

// Piece returns the bytes [lo, hi), which need not be all, with the room around them that nothing else uses: from front
// to back.
func (b *Buf) Piece(front, lo, hi, back int) Piece {
	return Piece{b: b.b, front: front, lo: lo, hi: hi, back: back}
}

// End is the greatest index that a Piece of the buffer may use.
func (b *Buf) End() int { return len(b.b) }

// Grow makes sure that the bytes and the free space behind them are at least n together: it moves the bytes to where an
// empty buffer begins, or, where the buffer is too small, to a larger one that will not return to the pool.
func (b *Buf) Grow(n int) {
	switch {
	case len(b.b)-Tail-b.Lo >= n:
		return
	case len(b.b)-Tail-Room >= n:
		b.Hi = Room + copy(b.b[Room:], b.b[b.Lo:b.Hi])
	default:
		nb := make([]byte, Room+n+Tail)
		b.Hi = Room + copy(nb[Room:], b.b[b.Lo:b.Hi])
		b.b = nb
	}
	b.Lo = Room
}

// Piece is a run of bytes on its way, with the room around it that belongs to it. It is borrowed from whoever handed it
// out, until the next call to them.
type Piece struct {
	b                   []byte
	front, lo, hi, back int
}

// Of returns a piece without room.
func Of(p []byte) Piece { return Piece{b: p, hi: len(p), back: len(p)} }

// Within returns the bytes [lo, hi) of b as a piece that may use all of b as its room.
func Within(b []byte, lo, hi int) Piece { return Piece{b: b, lo: lo, hi: hi, back: len(b)} }

// Bytes returns the bytes.
func (p Piece) Bytes() []byte { return p.b[p.lo:p.hi] }

// Len returns the number of bytes.
func (p Piece) Len() int { return p.hi - p.lo }

// Wrap returns head, the piece's bytes and tail as one run, written into the piece's own room. ok is false where there
// is not room enough, and then nothing was written.
func (p Piece) Wrap(head []byte, tail string) (out []byte, ok bool) {
	if p.lo-p.front < len(head) || p.back-p.hi < len(tail) {
		return nil, false
	}
	copy(p.b[p.lo-len(head):], head)
	copy(p.b[p.hi:p.back], tail)
	return p.b[p.lo-len(head) : p.hi+len(tail)], true
}
