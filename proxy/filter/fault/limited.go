// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// A second has so many slices, as in Envoy: so long a limited body waits before it goes on. A second's worth may come at
// once where there was nothing to send for that long.
const (
	perSecond = 20
	slice     = time.Second / perSecond
)

// limited is what is left of a body at so many bytes a second: a token bucket, from which a reader takes what is there.
// While the reader waits, the source is not read on, so that the upstream is slowed down as well.
type limited struct {
	x    *exchange.Exchange
	src  codec.Body
	rate int64 // bytes a second
	step int64 // those of a slice

	level int64 // bytes that may go on now
	at    int64 // mono: when that was so
	rest  []byte
	ended bool // the source has, behind rest
}

func newLimited(x *exchange.Exchange, src codec.Body, rate int64) *limited {
	step := max(rate/perSecond, 1)
	return &limited{x: x, src: src, rate: rate, step: step, level: step, at: mono.Now()}
}

// Buffered implements codec.Body.
func (b *limited) Buffered() (bytebuf.Piece, bool, error) {
	if len(b.rest) == 0 && !b.ended {
		if err := b.took(b.src.Buffered()); err != nil {
			return bytebuf.Piece{}, false, err
		}
	}
	b.fill()
	return b.take()
}

// Next implements codec.Body.
func (b *limited) Next(w *socket.Worker) (bytebuf.Piece, bool, error) {
	for len(b.rest) == 0 && !b.ended {
		if err := b.took(b.src.Next(w)); err != nil {
			return bytebuf.Piece{}, false, err
		}
	}
	for b.fill(); b.level < min(b.step, int64(len(b.rest))); b.fill() {
		if err := b.x.Pause(slice); err != nil {
			return bytebuf.Piece{}, false, err
		}
	}
	b.x.Touch()
	return b.take()
}

func (b *limited) took(p bytebuf.Piece, end bool, err error) error {
	b.rest, b.ended = p.Bytes(), end
	return err
}

// fill lets in what has become free since it was called last.
func (b *limited) fill() {
	now := mono.Now()
	gone := min(now-b.at, int64(time.Second))
	if n := int64(float64(b.rate) * time.Duration(gone).Seconds()); n > 0 { // the time of a part of a byte is not lost
		b.level, b.at = min(b.level+n, b.rate), now
	}
}

// take returns what may go on.
func (b *limited) take() (bytebuf.Piece, bool, error) {
	n := min(b.level, int64(len(b.rest)))
	p := b.rest[:n]
	b.level -= n
	b.rest = b.rest[n:]
	return bytebuf.Of(p), b.ended && len(b.rest) == 0, nil
}

// Trailers implements codec.Body.
func (b *limited) Trailers() *header.List { return b.src.Trailers() }

var _ codec.Body = (*limited)(nil)
