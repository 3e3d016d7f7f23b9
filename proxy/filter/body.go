// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Stage is what a filter does to a body on its way.
type Stage interface {
	// Piece takes the next piece and returns what goes on in its place, perhaps nothing, borrowed until the next call. It
	// is called with an empty piece at the end only. trailers are those behind the end, nil before it and where there are
	// none.
	Piece(p bytebuf.Piece, end bool, trailers *header.List) (bytebuf.Piece, error)
	// Trailers returns what goes on in place of the trailers, which may be nil.
	Trailers(trailers *header.List) *header.List
}

// Wrap returns what is left of a body behind a stage.
func Wrap(src codec.Body, s Stage) codec.Body { return &wrapped{src, s} }

type wrapped struct {
	src   codec.Body
	stage Stage
}

// Buffered implements codec.Body.
func (b *wrapped) Buffered() (bytebuf.Piece, bool, error) {
	p, end, err := b.src.Buffered()
	return b.piece(p, end, err)
}

// Next implements codec.Body.
func (b *wrapped) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	p, end, err := b.src.Next(w)
	return b.piece(p, end, err)
}

func (b *wrapped) piece(p bytebuf.Piece, end bool, err error) (bytebuf.Piece, bool, error) {
	if err != nil || p.Len() == 0 && !end {
		return p, end, err
	}
	var trailers *header.List
	if end {
		trailers = b.src.Trailers()
	}
	p, err = b.stage.Piece(p, end, trailers)
	return p, end, err
}

// Trailers implements codec.Body.
func (b *wrapped) Trailers() *header.List { return b.stage.Trailers(b.src.Trailers()) }

// MaxCollected is how much of a body a filter may hold, in bytes: Envoy's default for per_connection_buffer_limit_bytes.
const MaxCollected = 1 << 20

// Collect reads a body of x to its end. whole is false where there is more than MaxCollected of it, and it was not read on.
func Collect(x *exchange.Exchange, src codec.Body) (body []byte, whole bool, err error) {
	p, end, err := src.Buffered()
	for {
		if err != nil {
			return nil, false, err
		}
		if len(body)+p.Len() > MaxCollected {
			return nil, false, nil
		}
		body = append(body, p.Bytes()...)
		if end {
			return body, true, nil
		}
		p, end, err = src.Next(x.Worker)
		x.Touch()
	}
}

// Held returns a body that is here whole, and has no trailers.
func Held(body []byte) codec.Body { return &held{body: body} }

// Broken returns a body that cannot be read.
func Broken(err error) codec.Body { return &held{err: err} }

type held struct {
	body []byte
	err  error
}

// Buffered implements codec.Body.
func (h *held) Buffered() (bytebuf.Piece, bool, error) {
	p := bytebuf.Of(h.body)
	h.body = nil
	return p, h.err == nil, h.err
}

// Next implements codec.Body.
func (h *held) Next(*socket.Worker) (bytebuf.Piece, bool, error) { return h.Buffered() }

// Trailers implements codec.Body.
func (h *held) Trailers() *header.List { return nil }

var (
	_ codec.Body = (*wrapped)(nil)
	_ codec.Body = (*held)(nil)
)
