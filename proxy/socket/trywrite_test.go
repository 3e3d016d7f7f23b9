// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
)

// pusher sends everything it has with TryWrite and goes idle whenever the socket is full.
type pusher struct {
	rest   []byte
	full   int // how often the socket was
	err    error
	closed chan struct{}
}

func (h *pusher) Ready(_ *Worker, c *Conn) bool {
	n, err := c.TryWrite(h.rest)
	h.rest = h.rest[n:]
	if err == ErrWouldBlock {
		h.full++
		return true
	}
	h.err = err
	return false
}

func (h *pusher) Closed(*Conn) { close(h.closed) }

// TestTryWrite sends more than fits, from a connection that is idle whenever it cannot go on.
func TestTryWrite(t *testing.T) {
	t.Parallel()
	e := engine(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var wg sync.WaitGroup
	for range 4 {
		a, b, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		h := &pusher{rest: want, closed: make(chan struct{})}
		if err := e.Adopt(a, h).Start(true); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			r := os.NewFile(uintptr(b), "peer")
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
		wait(t, "the close", h.closed)
		if h.err != nil || h.full == 0 {
			t.Errorf("full %d times, %v", h.full, h.err)
		}
	}
	wg.Wait()
}

// TestTryWriteAfterReset is told of the reset.
func TestTryWriteAfterReset(t *testing.T) {
	t.Parallel()
	e := engine(t)
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(b)
	h := &pusher{rest: []byte("x"), closed: make(chan struct{})}
	if err := e.Adopt(a, h).Start(true); err != nil {
		t.Fatal(err)
	}
	wait(t, "the close", h.closed)
	if h.err != syscall.EPIPE {
		t.Errorf("got %v, want EPIPE", h.err)
	}
}

// holder is a layer without a meaning of its own.
type holder struct{ Raw }

func (h *holder) Bind(raw Raw)   { h.Raw = raw }
func (*holder) Buffered() bool   { return false }
func (*holder) Protocol() string { return "" }
func (*holder) Close(bool)       {}

// TestTryWriteBesideReader: a layer that sends what it holds while it is read from does not take away the news that there is
// room again, for which a writer waits.
func TestTryWriteBesideReader(t *testing.T) {
	t.Parallel()
	e := engine(t)
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	c := e.Adopt(a, &pusher{closed: make(chan struct{})})
	h := &holder{}
	c.SetLayer(h)
	defer c.Close()
	peer := os.NewFile(uintptr(b), "peer")
	defer peer.Close()
	n := 0
	for err = nil; err == nil; {
		var m int
		m, err = c.TryWrite(make([]byte, 64<<10))
		n += m
	}
	if err != ErrWouldBlock {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.TryWrite([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !c.flags.has(full) {
		t.Error("the writer is forgotten")
	}
	if _, err := c.TryWrite(nil); err != nil || c.flags.has(full) {
		t.Errorf("%v, still full", err)
	}
}
