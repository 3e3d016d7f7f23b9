// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asker sends a question at once and keeps what comes until the end.
type asker struct {
	question string
	asked    bool
	answer   []byte
	err      error
	closed   chan struct{}
}

func (h *asker) Ready(w *Worker, c *Conn) bool {
	if !h.asked {
		h.asked = true
		if h.err = c.Write(w, []byte(h.question)); h.err != nil {
			return false
		}
	}
	var p [64]byte
	for {
		n, err := c.TryRead(p[:])
		if err == ErrWouldBlock {
			return true
		}
		if err != nil {
			h.err = err
			return false
		}
		h.answer = append(h.answer, p[:n]...)
	}
}

func (h *asker) Closed(*Conn) { close(h.closed) }

func TestDialConn(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			e := engine(t)
			at := "127.0.0.1:0"
			if network == "unix" {
				at = filepath.Join(t.TempDir(), "s")
			}
			l, err := net.Listen(network, at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			from := make(chan net.Addr, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				from <- c.RemoteAddr()
				var q [4]byte
				if _, err := io.ReadFull(c, q[:]); err == nil {
					c.Write(append([]byte("you said "), q[:]...))
				}
			}()
			h := &asker{question: "ping", closed: make(chan struct{})}
			d := &Dialer{Timeout: hang, Source: netip.MustParseAddrPort("127.0.0.9:0")}
			c, err := e.DialConn(t.Context(), d, network, l.Addr().String(), h)
			if err != nil {
				t.Fatal(err)
			}
			local, remote := Addrs(c.FD())
			if err := c.Start(true); err != nil {
				t.Fatal(err)
			}
			wait(t, "the close", h.closed)
			if string(h.answer) != "you said ping" || h.err != io.EOF {
				t.Errorf("got %q, %v", h.answer, h.err)
			}
			if network == "tcp" && (local.String() != (<-from).String() || local.Addr() != d.Source.Addr() || remote.String() != l.Addr().String()) {
				t.Errorf("local %v, remote %v", local, remote)
			}
		})
	}
}

func TestDialConnFails(t *testing.T) {
	t.Parallel()
	e := engine(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := e.DialConn(t.Context(), &Dialer{Timeout: hang}, "tcp", l.Addr().String(), nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
	if _, err := e.DialConn(t.Context(), &Dialer{Timeout: time.Nanosecond}, "tcp", "127.0.0.1:1", nil); !os.IsTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
}
