// SPDX-License-Identifier: Apache-2.0

package bytebuf_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
)

// fill puts n bytes that tell their place behind what is there.
func fill(b *bytebuf.Buf, n int) {
	free := b.Free()
	for i := range n {
		free[i] = byte('a' + i%26)
	}
	b.Hi += n
}

func TestGetIsEmptyWithRoom(t *testing.T) {
	t.Parallel()
	var p bytebuf.Pool
	b := p.Get()
	fill(b, 100)
	b.Lo += 10
	p.Put(b)
	b = p.Get()
	if b.Len() != 0 || b.Lo != bytebuf.Room || len(b.Free()) != bytebuf.Size {
		t.Errorf("%d bytes at %d, %d free", b.Len(), b.Lo, len(b.Free()))
	}
}

func TestGrow(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		fill, used int // bytes that came, and how many of them were used up
		grow       int
		pooled     bool // the buffer may still return to the pool
	}{
		{"there is room", 100, 0, 1000, true},
		{"room behind used bytes", 1000, 900, 2000, true},
		{"the bytes have to move to the front", bytebuf.Size - 10, bytebuf.Size - 500, 4096, true},
		{"full, with one byte left", bytebuf.Size, bytebuf.Size - 1, bytebuf.Size, true},
		{"larger than a buffer", bytebuf.Size, 0, 2 * bytebuf.Size, false},
		{"larger, with used bytes", bytebuf.Size, 77, bytebuf.Size + 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var p bytebuf.Pool
			b := p.Get()
			fill(b, tc.fill)
			b.Lo += tc.used
			want := bytes.Clone(b.Bytes())
			b.Grow(tc.grow)
			if !bytes.Equal(b.Bytes(), want) {
				t.Fatal("the bytes changed")
			}
			if got := b.Len() + len(b.Free()); got < tc.grow {
				t.Errorf("room for %d in all, want %d", got, tc.grow)
			}
			if pooled := b.End() == bytebuf.Room+bytebuf.Size+bytebuf.Tail; pooled != tc.pooled {
				t.Errorf("may return to the pool: %v, want %v", pooled, tc.pooled)
			}
		})
	}
}

// TestGrownBufferIsNotPooled: memory that one large head asked for does not stay.
func TestGrownBufferIsNotPooled(t *testing.T) {
	t.Parallel()
	var p bytebuf.Pool
	b := p.Get()
	b.Grow(4 * bytebuf.Size)
	p.Put(b)
	for range 10 {
		if got := p.Get(); got == b {
			t.Fatal("a grown buffer came back")
		}
	}
}

func TestPieceWrap(t *testing.T) {
	t.Parallel()
	const data = "0123456789"
	for _, tc := range []struct {
		name        string
		front, back int // the room, from the bytes
		head, tail  int
		ok          bool
	}{
		{"nothing around it", 0, 0, 0, 0, true},
		{"just fits", 5, 3, 5, 3, true},
		{"more room than needed", 50, 30, 5, 3, true},
		{"the head does not fit", 4, 30, 5, 3, false},
		{"the tail does not fit", 50, 2, 5, 3, false},
		{"no room in front and no head", 0, 3, 0, 3, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var p bytebuf.Pool
			b := p.Get()
			b.Hi += copy(b.Free(), strings.Repeat("<", 100)+data+strings.Repeat(">", 100))
			lo := b.Lo + 100
			hi := lo + len(data)
			piece := b.Piece(lo-tc.front, lo, hi, hi+tc.back)
			head, tail := strings.Repeat("H", tc.head), strings.Repeat("T", tc.tail)
			out, ok := piece.Wrap([]byte(head), tail)
			if ok != tc.ok || ok && string(out) != head+data+tail {
				t.Errorf("%q, %v", out, ok)
			}
			if string(piece.Bytes()) != data || piece.Len() != len(data) {
				t.Errorf("the piece is %q now", piece.Bytes())
			}
			// What is outside of the room is somebody else's.
			all := string(b.Bytes())
			if !strings.HasPrefix(all, strings.Repeat("<", 100-tc.front)) || !strings.HasSuffix(all, strings.Repeat(">", 100-tc.back)) {
				t.Errorf("written outside of the room: %q", all)
			}
			if !ok && all != strings.Repeat("<", 100)+data+strings.Repeat(">", 100) {
				t.Errorf("written in vain: %q", all)
			}
		})
	}
}

func TestOfHasNoRoom(t *testing.T) {
	t.Parallel()
	under := []byte("xxabcxx")
	p := bytebuf.Of(under[2:5])
	if _, ok := p.Wrap([]byte("h"), ""); ok {
		t.Error("a head was written in front of memory that is not the piece's")
	}
	if _, ok := p.Wrap(nil, "t"); ok {
		t.Error("a tail was written behind memory that is not the piece's")
	}
	if out, ok := p.Wrap(nil, ""); !ok || string(out) != "abc" || string(under) != "xxabcxx" {
		t.Errorf("%q, %v, %q", out, ok, under)
	}
}
