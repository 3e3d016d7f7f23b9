// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"bytes"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// decoder finds the data of a message body in the bytes of a connection, buffer by buffer, and its end.
type decoder struct {
	mode  bodyMode
	state chunkState
	ended bool
	err   error // the first; there is no way on from it
	// left is what is left of the body, or of the chunk.
	left   int64
	digits uint8
	ext    uint16
	trail  []byte       // the trailer section so far
	list   *header.List // the trailer fields, once they are read
	hop    [][]byte     // names of trailer fields that end here
}

type bodyMode uint8

const (
	noBody bodyMode = iota
	byLength
	byChunks
	toClose // the end of the connection ends the body
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkCR
	chunkLF
	chunkTrailers
)

// begin prepares for a body; length is that of mode byLength.
func (d *decoder) begin(mode bodyMode, length int64) {
	*d = decoder{mode: mode, trail: d.trail[:0]}
	if mode == byLength {
		d.left = length
	}
	d.ended = mode == noBody || mode == byLength && length == 0
}

// take returns the data at the front of b as one piece, moving the data of several chunks together in place, and takes
// it out of b. What is behind the body's end stays in b.
func (d *decoder) take(b *bytebuf.Buf, lim *Limits) (bytebuf.Piece, error) {
	lo, hi := b.Lo, b.Lo
	switch {
	case d.ended:
	case d.mode == byLength:
		n := int(min(int64(b.Len()), d.left))
		d.left -= int64(n)
		d.ended = d.left == 0
		hi += n
		b.Lo = hi
	case d.mode == toClose:
		hi = b.Hi
		b.Lo = hi
	default:
		if d.err != nil {
			return bytebuf.Piece{}, d.err
		}
		from, to, used, err := d.chunks(b.Bytes(), lim)
		if err != nil {
			d.err = err
			return bytebuf.Piece{}, err
		}
		lo, hi = b.Lo+from, b.Lo+to
		b.Lo += used
	}
	// The bytes in front were used up, those between the data and b.Lo too.
	back := b.Lo
	if b.Len() == 0 {
		back = b.End()
	}
	return b.Piece(0, lo, hi, back), nil
}

// chunks decodes the chunked coding (RFC 9112 section 7.1) in p. The data of later chunks is moved behind that of the
// first: all of it is p[from:to] then. used is how much of p belongs to the body.
func (d *decoder) chunks(p []byte, lim *Limits) (from, to, used int, err error) {
	i := 0
	for i < len(p) && !d.ended {
		c := p[i]
		switch d.state {
		case chunkSize:
			if err := d.sizeByte(c); err != nil {
				return 0, 0, 0, err
			}
			i++
		case chunkExt:
			if d.ext++; d.ext > chunkExtBytes {
				return 0, 0, 0, errChunkExt
			}
			if c == '\r' {
				d.state = chunkSizeLF
			} else if codec.IsControl(c) {
				return 0, 0, 0, errChunkSize
			}
			i++
		case chunkSizeLF:
			if c != '\n' {
				return 0, 0, 0, errChunkSize
			}
			d.digits, d.ext = 0, 0
			if d.state = chunkData; d.left == 0 {
				d.state = chunkTrailers
			}
			i++
		case chunkData:
			k := int(min(int64(len(p)-i), d.left))
			if to == from {
				from, to = i, i
			}
			if to != i {
				copy(p[to:], p[i:i+k])
			}
			to, i = to+k, i+k
			if d.left -= int64(k); d.left == 0 {
				d.state = chunkCR
			}
		case chunkCR, chunkLF:
			if (d.state == chunkCR) != (c == '\r') || d.state == chunkLF && c != '\n' {
				return 0, 0, 0, errChunkEnd
			}
			if d.state++; d.state == chunkTrailers {
				d.state = chunkSize
			}
			i++
		case chunkTrailers:
			k, err := d.trailers(p[i:], lim)
			if err != nil {
				return 0, 0, 0, err
			}
			i += k
		}
	}
	return from, to, i, nil
}

// sizeByte takes one byte of a chunk's size line.
func (d *decoder) sizeByte(c byte) error {
	v, ok := ascii.Unhex(c)
	switch {
	case ok && d.digits < 15:
		d.left = d.left<<4 | int64(v)
		d.digits++
	case d.digits == 0:
		return errChunkSize
	case c == '\r':
		d.state = chunkSizeLF
	case c == ';':
		d.state = chunkExt
	default:
		return errChunkSize
	}
	return nil
}

// trailers collects the trailer section (RFC 9112 section 7.1.2) up to its empty line and reads it. It returns how much
// of p belongs to it.
func (d *decoder) trailers(p []byte, lim *Limits) (int, error) {
	if len(d.trail) == 0 && len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
		d.ended = true // by far the most common: no trailers
		return 2, nil
	}
	before := len(d.trail)
	d.trail = append(d.trail, p[:min(len(p), lim.TrailerBytes+2-before)]...)
	end := bytes.Index(d.trail, []byte("\r\n\r\n"))
	if bytes.HasPrefix(d.trail, []byte("\r\n")) {
		end = -2 // no fields at all
	}
	if end == -1 {
		if len(d.trail) >= lim.TrailerBytes+2 {
			return 0, errTrailers
		}
		return len(p), nil
	}
	size := end + 4
	l := &header.List{}
	var h head
	tl := *lim
	tl.Fields, tl.HeadBytes = lim.Trailers, lim.TrailerBytes
	if n, err := fields(d.trail[:size], 0, l, &tl, &h); err != nil {
		return 0, err
	} else if n != size {
		return 0, errTrailers
	}
	l.Own(d.trail[:size])
	codec.DropFromTrailers(l)
	remove(l, d.hop)
	d.list, d.ended = l, true
	return size - before, nil
}
