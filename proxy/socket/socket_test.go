// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
)

// hang is how long a test waits for what must come. It is no bound on speed.
const hang = 20 * time.Second

func engine(t testing.TB) *Engine {
	e, err := NewEngine(Options{Sets: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// serve accepts connections and hands them to a handler made for each.
func serve(t testing.TB, e *Engine, h func() Handler) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fd := dup(t, c)
			if err := e.Adopt(fd, h()).Start(false); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// dup takes a connection's descriptor away from package net.
func dup(t testing.TB, c net.Conn) int {
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

func dial(t testing.TB, addr string) *net.TCPConn {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	return c.(*net.TCPConn)
}

// echo writes back what it reads until there is no more.
type echo struct {
	closed  chan struct{}
	expired atomic.Bool
}

func (h *echo) Ready(w *Worker, c *Conn) bool {
	if c.Expired() {
		h.expired.Store(true)
		return false
	}
	b := c.Bufs().Get()
	defer c.Bufs().Put(b)
	for {
		n, err := c.TryRead(b.Free())
		if err == ErrWouldBlock {
			return true
		}
		if err != nil {
			return false
		}
		if c.Write(w, b.Free()[:n]) != nil {
			return false
		}
	}
}

func (h *echo) Closed(*Conn) { close(h.closed) }

func newEcho() Handler { return &echo{closed: make(chan struct{})} }

func wait(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(hang):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s did not come\n%s", what, buf[:runtime.Stack(buf, true)])
	}
}

func TestConnEchoManyTimes(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := serve(t, e, newEcho)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c := dial(t, addr)
			defer c.Close()
			msg, got := []byte("sixteen bytes..."), make([]byte, 16)
			for range 2000 {
				c.Write(msg)
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(msg, got) {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestConnSlowReader fills the socket until the worker has to wait, then reads it all.
func TestConnSlowReader(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := serve(t, e, newEcho)
	c := dial(t, addr)
	defer c.Close()
	const total = 32 << 20
	var wg sync.WaitGroup
	wg.Go(func() {
		block := bytes.Repeat([]byte("x"), 1<<20)
		for range total >> 20 {
			if _, err := c.Write(block); err != nil {
				t.Error(err)
			}
		}
		c.CloseWrite()
	})
	n, err := io.Copy(io.Discard, c)
	wg.Wait()
	if n != total || err != nil {
		t.Errorf("got %d of %d bytes, %v", n, total, err)
	}
}

func TestConnFINWithData(t *testing.T) {
	t.Parallel()
	e := engine(t)
	for range 200 {
		h := newEcho()
		addr := serve(t, e, func() Handler { return h })
		c := dial(t, addr)
		c.Write([]byte("bye"))
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if string(got) != "bye" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		c.Close()
		wait(t, "the close", h.(*echo).closed)
	}
}

func TestConnExpires(t *testing.T) {
	t.Parallel()
	e := engine(t)
	h := newEcho().(*echo)
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(b)
	c := e.Adopt(a, h)
	c.SetExpire(mono.Now() + int64(50*time.Millisecond))
	if err := c.Start(false); err != nil {
		t.Fatal(err)
	}
	wait(t, "the expiry", h.closed)
	if !h.expired.Load() {
		t.Error("closed, but not as expired")
	}
}

func pair() (a, b int, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	return fds[0], fds[1], err
}

// owner stops its worker for a reason that a test can set.
type owner struct {
	stop   func() error
	asked  atomic.Int64
	result chan error
	op     func(w *Worker) error
}

func (o *owner) Interrupted() error {
	o.asked.Add(1)
	return o.stop()
}

func (o *owner) Run(w *Worker) {
	w.Own(o)
	o.result <- o.op(w)
}

var errStop = errors.New("stop")

func run(t *testing.T, e *Engine, o *owner) error {
	t.Helper()
	o.result = make(chan error, 1)
	e.Go(o)
	select {
	case err := <-o.result:
		return err
	case <-time.After(hang):
		t.Fatal("the worker hangs")
		return nil
	}
}

func upstream(t testing.TB, f func(c *net.TCPConn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func connect(t testing.TB, e *Engine, addr string) *Peer {
	p, err := e.Dial(context.Background(), &Dialer{Timeout: hang}, "tcp", addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestPeerCallManyTimes is the one that a lost wake-up would hang.
func TestPeerCallManyTimes(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := upstream(t, func(c *net.TCPConn) { io.Copy(c, c) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			p := connect(t, e, addr)
			err := run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error {
				for range 5000 {
					b, err := p.Call(w, []byte("ping"))
					if err != nil {
						return err
					}
					if string(b.Bytes()) != "ping" {
						return errors.New("got " + string(b.Bytes()))
					}
					e.Bufs.Put(b)
				}
				return nil
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestPeerCallIsInterruptedByItsDeadline(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := upstream(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	p := connect(t, e, addr)
	over := mono.Now() + int64(30*time.Millisecond)
	o := &owner{op: func(w *Worker) error {
		w.SetDeadline(over)
		_, err := p.Call(w, []byte("ping"))
		return err
	}}
	o.stop = func() error {
		if mono.Now() >= over {
			return errStop
		}
		return nil
	}
	if err := run(t, e, o); err != errStop {
		t.Errorf("got %v", err)
	}
}

// TestPeerSpuriousInterrupts: whatever is interrupted for no reason goes on, and loses nothing.
func TestPeerSpuriousInterrupts(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := upstream(t, func(c *net.TCPConn) { io.Copy(c, c) })
	p := connect(t, e, addr)
	calls := make(chan *Worker)
	var wg sync.WaitGroup
	wg.Go(func() {
		for w := range calls {
			w.Interrupt()
			runtime.Gosched()
			w.Interrupt()
		}
	})
	o := &owner{stop: func() error { return nil }, op: func(w *Worker) error {
		defer close(calls)
		for range 3000 {
			calls <- w
			b, err := p.Call(w, []byte("ping"))
			if err != nil {
				return err
			}
			n := b.Len()
			e.Bufs.Put(b)
			if n != 4 {
				return errors.New("short")
			}
		}
		return nil
	}}
	if err := run(t, e, o); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if o.asked.Load() == 0 {
		t.Error("nothing was interrupted")
	}
}

// TestPeerWriteInterrupted: a write that an upstream does not take ends at the deadline.
func TestPeerWriteInterrupted(t *testing.T) {
	t.Parallel()
	e := engine(t)
	hold := make(chan struct{})
	defer close(hold)
	addr := upstream(t, func(c *net.TCPConn) { <-hold })
	p := connect(t, e, addr)
	over := mono.Now() + int64(50*time.Millisecond)
	for name, op := range map[string]func(w *Worker) error{
		"write": func(w *Worker) error { return p.Write(w, make([]byte, 64<<20)) },
		"call":  func(w *Worker) error { _, err := p.Call(w, make([]byte, 64<<20)); return err },
	} {
		o := &owner{op: func(w *Worker) error { w.SetDeadline(over); return op(w) }}
		o.stop = func() error {
			if mono.Now() >= over {
				return errStop
			}
			return nil
		}
		if err := run(t, e, o); err != errStop {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPeerHangUp(t *testing.T) {
	t.Parallel()
	e := engine(t)
	for name, bye := range map[string]func(c *net.TCPConn){
		"close":      func(c *net.TCPConn) {},
		"half-close": func(c *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) },
		"reset":      func(c *net.TCPConn) { c.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := upstream(t, func(c *net.TCPConn) {
				io.ReadFull(c, make([]byte, 1)) // once both sides are connected for certain
				bye(c)
			})
			gone := make(chan struct{})
			p, err := e.Dial(context.Background(), &Dialer{Timeout: hang}, "tcp", addr, func(*Peer) { close(gone) })
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error { return p.Write(w, []byte("x")) }}); err != nil {
				t.Fatal(err)
			}
			wait(t, "the hang-up", gone)
			if !p.Stale() {
				t.Error("not stale")
			}
			// A request on it anyway ends with an error and does not hang.
			err = run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error {
				_, err := p.Call(w, []byte("ping"))
				return err
			}})
			if err == nil {
				t.Error("a call on a closed connection gave no error")
			}
		})
	}
}

// TestPeerHangUpWhileTaken closes the connection at about the time a request is sent on it: it must never hang.
func TestPeerHangUpWhileTaken(t *testing.T) {
	t.Parallel()
	e := engine(t)
	addr := upstream(t, func(c *net.TCPConn) {
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	for range 300 {
		p := connect(t, e, addr)
		err := run(t, e, &owner{stop: func() error { return nil }, op: func(w *Worker) error {
			_, err := p.Call(w, []byte("ping"))
			return err
		}})
		if err == nil {
			t.Fatal("no error")
		}
		p.Close()
	}
}

func TestPeerUnaskedBytesAreStale(t *testing.T) {
	t.Parallel()
	e := engine(t)
	sent := make(chan struct{})
	hold := make(chan struct{})
	defer close(hold)
	addr := upstream(t, func(c *net.TCPConn) { c.Write([]byte("HTTP/1.1 200 OK\r\n")); close(sent); <-hold })
	p := connect(t, e, addr)
	wait(t, "the bytes", sent)
	for deadline := time.Now().Add(hang); !p.Stale(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("never stale")
		}
	}
}

// TestHangUpInterruptsWatcher: a client that goes away ends what its worker waits for upstream.
func TestHangUpInterruptsWatcher(t *testing.T) {
	t.Parallel()
	e := engine(t)
	silent := upstream(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	h := &watcher{peer: connect(t, e, silent), err: make(chan error, 1), started: make(chan struct{})}
	addr := serve(t, e, func() Handler { return h })
	c := dial(t, addr)
	c.Write([]byte("x"))
	wait(t, "the request", h.started)
	c.Close()
	select {
	case err := <-h.err:
		if err != errStop {
			t.Errorf("got %v", err)
		}
	case <-time.After(hang):
		t.Fatal("the worker still waits for the upstream")
	}
}

type watcher struct {
	peer    *Peer
	conn    *Conn
	err     chan error
	started chan struct{}
}

func (h *watcher) Ready(w *Worker, c *Conn) bool {
	var one [1]byte
	if _, err := c.TryRead(one[:]); err == ErrWouldBlock {
		return true
	}
	h.conn = c
	w.Own(h)
	c.WatchHangUp(w)
	close(h.started)
	_, err := h.peer.Call(w, []byte("x"))
	h.err <- err
	return false
}

func (h *watcher) Closed(*Conn) {}

func (h *watcher) Interrupted() error {
	if h.conn.HungUp() {
		return errStop
	}
	return nil
}

// TestNoGoroutineForIdle: idle connections hold no goroutine beyond the workers that are kept.
func TestNoGoroutineForIdle(t *testing.T) {
	e := engine(t)
	addr := serve(t, e, newEcho)
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range 1000 {
		c := dial(t, addr)
		c.Write([]byte("x"))
		var one [1]byte
		if _, err := io.ReadFull(c, one[:]); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if n := runtime.NumGoroutine() - before; n > 200 {
		t.Errorf("%d goroutines more for 1,000 idle connections", n)
	}
	for _, c := range conns {
		c.Close()
	}
}

func BenchmarkEcho(b *testing.B) {
	e := engine(b)
	addr := serve(b, e, newEcho)
	c := dial(b, addr)
	defer c.Close()
	c.SetDeadline(time.Time{})
	msg := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(msg)
		if _, err := io.ReadFull(c, msg); err != nil {
			b.Fatal(err)
		}
	}
}
