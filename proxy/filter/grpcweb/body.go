// SPDX-License-Identifier: Apache-2.0

package grpcweb

import (
	"bytes"
	"encoding/base64"
	"slices"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
)

// decoder makes a request's body of its base64. There may be padding at the end of any part that was encoded by itself,
// as PROTOCOL-WEB.md allows; Envoy takes it at the ends of its own buffers only.
type decoder struct {
	rest [4]byte // the beginning of a quantum
	n    int
	out  []byte
}

const (
	badData = "grpc_base_64_decode_failed"
	badSize = "grpc_base_64_decode_failed_bad_size"
)

// Piece implements filter.Stage.
func (d *decoder) Piece(p bytebuf.Piece, end bool, _ *header.List) (bytebuf.Piece, error) {
	d.out = d.out[:0]
	in := p.Bytes()
	if d.n > 0 {
		k := copy(d.rest[d.n:], in)
		in = in[k:]
		if d.n += k; d.n == len(d.rest) {
			d.n = 0
			if !d.decode(d.rest[:]) {
				return bytebuf.Piece{}, refused(badData)
			}
		}
	}
	whole := len(in) &^ 3
	if !d.decode(in[:whole]) {
		return bytebuf.Piece{}, refused(badData)
	}
	d.n += copy(d.rest[d.n:], in[whole:])
	if end && d.n > 0 {
		return bytebuf.Piece{}, refused(badSize)
	}
	return bytebuf.Of(d.out), nil
}

// decode appends what whole quanta stand for.
func (d *decoder) decode(in []byte) bool {
	if bytes.IndexByte(in, '\r') >= 0 || bytes.IndexByte(in, '\n') >= 0 {
		return false // which package base64 would pass over
	}
	d.out = slices.Grow(d.out, len(in)/4*3)
	for len(in) > 0 {
		k := len(in)
		if pad := bytes.IndexByte(in, '='); pad >= 0 {
			k = pad&^3 + 4 // the end of a part; the next one is read anew
		}
		var err error
		if d.out, err = base64.StdEncoding.AppendDecode(d.out, in[:k]); err != nil {
			return false
		}
		in = in[k:]
	}
	return true
}

// Trailers implements filter.Stage.
func (d *decoder) Trailers(t *header.List) *header.List { return t }

// trailerFlag is the flag of the frame that holds the trailers.
const trailerFlag = 0x80

// encoder puts the trailers of an answer behind its body, and makes base64 of both where the client asked for that. Each
// frame is encoded by itself.
type encoder struct {
	text  bool
	ended func(trailers *header.List) // is told of the trailers

	frames grpcwire.Counter
	rest   [3]byte // the beginning of a quantum
	n      int
	out    []byte
}

// Piece implements filter.Stage.
func (e *encoder) Piece(p bytebuf.Piece, end bool, trailers *header.List) (bytebuf.Piece, error) {
	if !e.text && trailers == nil {
		return p, nil
	}
	e.out = e.out[:0]
	if e.text {
		e.write(p.Bytes())
	} else {
		e.out = append(e.out, p.Bytes()...)
	}
	if end {
		e.flush() // a frame that broke off
	}
	if trailers != nil {
		e.ended(trailers)
		e.trailers(trailers)
	}
	return bytebuf.Of(e.out), nil
}

// write encodes the next bytes, frame by frame.
func (e *encoder) write(p []byte) {
	for len(p) > 0 {
		n, ended := e.frames.Next(p)
		e.encode(p[:n])
		p = p[n:]
		if ended {
			e.flush()
		}
	}
}

// encode appends the base64 of whole quanta and keeps what is left.
func (e *encoder) encode(p []byte) {
	if e.n > 0 {
		k := copy(e.rest[e.n:], p)
		p = p[k:]
		if e.n += k; e.n < len(e.rest) {
			return
		}
		e.n = 0
		e.out = base64.StdEncoding.AppendEncode(e.out, e.rest[:])
	}
	whole := len(p) - len(p)%3
	e.out = base64.StdEncoding.AppendEncode(e.out, p[:whole])
	e.n = copy(e.rest[:], p[whole:])
}

// flush ends a run of base64, with padding.
func (e *encoder) flush() {
	e.out = base64.StdEncoding.AppendEncode(e.out, e.rest[:e.n])
	e.n = 0
}

// trailers appends the trailers' frame.
func (e *encoder) trailers(t *header.List) {
	lines := make([]byte, 0, t.Size())
	for name, value := range t.All {
		at := len(lines)
		lines = append(lines, name...)
		lower(lines[at:])
		lines = append(append(append(lines, ':'), value...), "\r\n"...)
	}
	frame := append(grpcwire.AppendHead(make([]byte, 0, grpcwire.HeadSize+len(lines)), trailerFlag, len(lines)), lines...)
	if e.text {
		e.out = base64.StdEncoding.AppendEncode(e.out, frame)
	} else {
		e.out = append(e.out, frame...)
	}
}

func lower(b []byte) {
	for i, c := range b {
		if c-'A' < 26 {
			b[i] = c | 0x20
		}
	}
}

// Trailers implements filter.Stage: they are in the body now.
func (e *encoder) Trailers(*header.List) *header.List { return nil }

var (
	_ filter.Stage = (*decoder)(nil)
	_ filter.Stage = (*encoder)(nil)
)
