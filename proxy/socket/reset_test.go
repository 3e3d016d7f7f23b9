// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
)

// The system tells of a reset once. Whoever is told, nobody may take it for an end in order.

// TestPeerResetIsNoEnd: the worker that sends is told of the reset first; the reader sees no end.
func TestPeerResetIsNoEnd(t *testing.T) {
	t.Parallel()
	e := engine(t)
	reset := make(chan struct{})
	addr := upstream(t, func(c *net.TCPConn) {
		<-reset
		c.SetLinger(0)
	})
	p := connect(t, e, addr)
	close(reset)
	err := run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error {
		var err error
		for err == nil { // the first sends may be under way before the reset is
			err = p.Write(w, []byte("x"))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("sending gave %v", err)
		}
		var b *bytebuf.Buf
		b, err = p.Recv(w, nil)
		if err == nil {
			e.Bufs.Put(b)
		}
		return err
	}})
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the reader saw %v", err)
	}
}

// TestPeerEndStaysAnEnd: what was said before an end in order is whole, also where sending fails after it.
func TestPeerEndStaysAnEnd(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := upstream(t, func(c *net.TCPConn) { io.WriteString(c, "all") })
	gone := make(chan struct{})
	p, err := e.Dial(context.Background(), &Dialer{Timeout: hang}, "tcp", addr, func(*Peer) { close(gone) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	wait(t, "the peer's end", gone)
	err = run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error {
		var err error
		for err == nil {
			err = p.Write(w, []byte("x"))
		}
		b, err := p.Recv(w, nil)
		if err != nil {
			return err
		}
		if string(b.Bytes()) != "all" {
			t.Errorf("got %q", b.Bytes())
		}
		e.Bufs.Put(b)
		_, err = p.Recv(w, nil)
		return err
	}})
	if err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// TestPeerBreakAfterItsEnd: a peer that ended its side and then resets is found by who watches for it.
func TestPeerBreakAfterItsEnd(t *testing.T) {
	t.Parallel()
	e := engine(t)
	reset := make(chan struct{})
	addr := upstream(t, func(c *net.TCPConn) {
		c.CloseWrite()
		<-reset
		c.SetLinger(0)
	})
	p := connect(t, e, addr)
	err := run(t, e, &owner{stop: func() error {
		if p.Broken() {
			return errStop
		}
		return nil
	}, op: func(w *Worker) error {
		if _, err := p.Recv(w, nil); err != io.EOF {
			t.Errorf("its end is %v", err)
		}
		if p.Broken() {
			t.Error("an end in order is no reset")
		}
		p.WatchBreak(w)
		close(reset)
		for {
			if err := w.Sleep(); err != nil {
				return err
			}
		}
	}})
	if err != errStop {
		t.Error(err)
	}
}

// resetting reads until it is told of an end.
type resetting struct {
	read chan error
}

// Ready implements Handler.
func (h *resetting) Ready(w *Worker, c *Conn) bool {
	for {
		if err := c.AwaitRead(w); err != nil {
			h.read <- err
			return false
		}
		switch _, err := c.TryRead(make([]byte, 10)); err {
		case nil, ErrWouldBlock:
		default:
			h.read <- err
			return false
		}
	}
}

// Closed implements Handler.
func (h *resetting) Closed(*Conn) {}

// TestConnResetIsNoEnd: looking whether there is something to read does not turn a reset into an end.
func TestConnResetIsNoEnd(t *testing.T) {
	t.Parallel()
	e := engine(t)
	h := &resetting{read: make(chan error, 1)}
	c := dial(t, serve(t, e, func() Handler { return h }))
	io.WriteString(c, "some")
	c.SetLinger(0)
	c.Close()
	if err := <-h.read; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the reader saw %v", err)
	}
}
