// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/sys"
)

// ErrWouldBlock says that nothing can be read now.
var ErrWouldBlock = errors.New("socket: nothing to read")

// Handler serves a downstream connection.
type Handler interface {
	// Ready serves what the connection holds, on w's goroutine, until reading from it gives ErrWouldBlock. It reports
	// whether the connection stays open; if not, the caller closes it. It is never called twice at a time. It is also
	// called when the connection's time is over (Conn.Expired) and when the client has hung up.
	Ready(w *Worker, c *Conn) (open bool)
	// Closed is called once, after the connection was closed.
	Closed(c *Conn)
}

// Conn is a downstream connection: a bare descriptor. Between requests this struct and its handler are all there is.
type Conn struct {
	fd    int
	set   *set
	watch watch

	h     Handler // the serving worker
	layer Layer   // nil for plain connections; set once by the serving worker
	state atomic.Uint32
	flags flags
	// expire is when an idle connection's time is over (mono); 0 for never.
	expire atomic.Int64

	// Who sleeps until the socket can be read or written, and who is to be interrupted when the client hangs up.
	reader, writer, watcher atomic.Pointer[Worker]
}

// States of a Conn. There is a worker in all but idle.
const (
	idle uint32 = iota
	busy
	again // busy, and an edge came since
	closed
)

// Adopt makes a Conn of a connected non-blocking descriptor, which it owns from now on. Start begins to serve it.
func (e *Engine) Adopt(fd int, h Handler) *Conn {
	c := &Conn{fd: fd, set: e.pickSet(), h: h}
	c.watch.target = c
	return c
}

// Start watches the connection: h.Ready is called when there is something to read. With now, it is called at once.
func (c *Conn) Start(now bool) error {
	if now {
		c.state.Store(busy)
	}
	if err := c.set.add(c.fd, &c.watch, sys.In|sys.Out|sys.RdHup|sys.Edge); err != nil {
		return err
	}
	if now {
		c.set.e.Go(c)
	}
	return nil
}

// Handle replaces the handler. Only the handler itself may call it, from Ready.
func (c *Conn) Handle(h Handler) { c.h = h }

// event is called by who looks at the set, for each edge.
func (c *Conn) event(ev uint32) {
	if ev&(sys.RdHup|sys.Hup|sys.Err) != 0 {
		if c.flags.broke(ev) {
			c.flags.set(broken)
		}
		c.flags.set(hup)
		if w := c.watcher.Load(); w != nil {
			w.Interrupt()
		}
	}
	if w := c.reader.Swap(nil); w != nil {
		w.signal()
	}
	if w := c.writer.Swap(nil); w != nil {
		w.signal()
	}
	for {
		switch c.state.Load() {
		case idle:
			if ev&^sys.Out == 0 && !c.flags.has(full) {
				return
			}
			if c.state.CompareAndSwap(idle, busy) {
				c.set.e.Go(c)
				return
			}
		case busy:
			if c.state.CompareAndSwap(busy, again) {
				return
			}
		default:
			return
		}
	}
}

// expireNow hands a connection whose deadline d has passed to its handler, if it is idle. A connection that was busy when
// d was read may have become idle since, with a later deadline: it is looked at for nothing then.
func (c *Conn) expireNow(d int64) bool {
	if !c.state.CompareAndSwap(idle, busy) {
		return c.state.Load() == closed
	}
	if c.expire.CompareAndSwap(d, 0) {
		c.flags.set(over)
	}
	c.set.e.Go(c)
	return true
}

// Run serves the connection until it is dry or closed. It is called by the engine.
func (c *Conn) Run(w *Worker) {
	for c.h.Ready(w, c) {
		if c.state.CompareAndSwap(busy, idle) {
			return
		}
		c.state.Store(busy)
	}
	c.Close()
}

// Close closes the connection at once. Only its worker, or the owner before Start, may call it; Ready returns false
// instead.
func (c *Conn) Close() {
	if c.layer != nil {
		c.layer.Close(c.flags.has(silent | broken))
	}
	c.state.Store(closed)
	c.set.forget(c.fd, &c.watch)
	sys.Close(c.fd) // no connection lingers: see Reset
	c.h.Closed(c)
}

// SetExpire sets when an idle connection's time is over (of mono.Now): its handler is called and finds Expired. 0 means
// never. It has no effect while a worker serves the connection.
func (c *Conn) SetExpire(t int64) {
	c.expire.Store(t)
	e := c.set.e
	if t != 0 && t < e.nextIdle.Load() {
		e.hurry(&e.nextIdle, t)
	}
}

// Expired takes the news that the connection's time is over.
func (c *Conn) Expired() bool { return c.flags.take(over) }

// HungUp reports whether the client has closed its side.
func (c *Conn) HungUp() bool { return c.flags.has(hup) }

// Broken reports whether the client has reset the connection: it will not read either.
func (c *Conn) Broken() bool { return c.flags.has(broken) }

// WatchHangUp makes a hang-up of the client interrupt w, also one that was before; nil ends that.
func (c *Conn) WatchHangUp(w *Worker) {
	c.watcher.Store(w)
	if w != nil && c.flags.has(hup) {
		w.Interrupt()
	}
}

// FD returns the descriptor, for socket options. It must not be closed or kept.
func (c *Conn) FD() int { return c.fd }

// Bufs returns the engine's buffers.
func (c *Conn) Bufs() *bytebuf.Pool { return &c.set.e.Bufs }

// TryRead reads what is there: ErrWouldBlock where there is nothing, io.EOF at the end.
func (c *Conn) TryRead(p []byte) (int, error) {
	if c.layer != nil {
		return c.layer.TryRead(p)
	}
	return c.rawRead(p)
}

func (c *Conn) rawRead(p []byte) (int, error) {
	invariant.Check(len(p) > 0, "socket: no room to read into, which would look like the end")
	n, e := sys.Recv(c.fd, p)
	if n == 0 && e == 0 && c.flags.tookReset() {
		e = syscall.ECONNRESET
	}
	return result(n, e)
}

// Peek is TryRead without taking the bytes. It looks below a layer.
func (c *Conn) Peek(p []byte) (int, error) {
	n, e := sys.Peek(c.fd, p)
	return result(n, e)
}

// Read waits for bytes.
func (c *Conn) Read(w *Worker, p []byte) (int, error) {
	for {
		n, err := c.TryRead(p)
		if err != ErrWouldBlock {
			return n, err
		}
		if n, err = c.waitRead(w, p); err != ErrWouldBlock {
			return n, err
		}
	}
}

// waitRead registers, tries once more, and sleeps. ErrWouldBlock means that it has slept.
func (c *Conn) waitRead(w *Worker, p []byte) (int, error) {
	c.reader.Store(w)
	if n, err := c.TryRead(p); err != ErrWouldBlock {
		c.reader.CompareAndSwap(w, nil)
		return n, err
	}
	if err := w.Sleep(); err != nil {
		c.reader.CompareAndSwap(w, nil)
		return 0, err
	}
	return 0, ErrWouldBlock
}

// AwaitRead sleeps until there is something to read, so that a buffer can be taken then. It may return early. The error
// is that of the connection, too: looking takes it, and what is read after that is an end like any other.
func (c *Conn) AwaitRead(w *Worker) error {
	if c.layer != nil && c.layer.Buffered() {
		return nil
	}
	c.reader.Store(w)
	var one [1]byte
	_, err := c.Peek(one[:])
	if err == ErrWouldBlock {
		err = w.Sleep()
	} else if err == io.EOF {
		err = nil
	}
	c.reader.CompareAndSwap(w, nil)
	return err
}

// Write sends all of p, waiting while the socket is full.
func (c *Conn) Write(w *Worker, p []byte) error {
	if c.layer != nil {
		return c.writeLayer(w, p)
	}
	for len(p) > 0 {
		n, e := c.flags.send(c.fd, p)
		if e == syscall.EAGAIN {
			c.writer.Store(w)
			if n, e = c.flags.send(c.fd, p); e == syscall.EAGAIN {
				if err := w.Sleep(); err != nil {
					c.writer.CompareAndSwap(w, nil)
					return err
				}
				continue
			}
			c.writer.CompareAndSwap(w, nil)
		}
		if e != 0 {
			return e
		}
		p = p[n:]
	}
	return nil
}

// CloseWrite ends the sending side.
func (c *Conn) CloseWrite() error {
	if c.layer != nil {
		return c.layer.CloseWrite()
	}
	return c.rawCloseWrite()
}

func (c *Conn) rawCloseWrite() error {
	c.flags.set(ended)
	return syscall.Shutdown(c.fd, syscall.SHUT_WR)
}

// Reset makes the coming Close abort the connection with RST instead of ending it in order. The time to linger must be 0:
// Close may not wait.
func (c *Conn) Reset() {
	c.flags.set(silent)
	syscall.SetsockoptLinger(c.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}

func result(n int, e syscall.Errno) (int, error) {
	switch {
	case e == syscall.EAGAIN:
		return 0, ErrWouldBlock
	case e != 0:
		return 0, e
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Addrs returns the local and the remote address of a TCP connection; zero values for others.
func Addrs(fd int) (local, remote netip.AddrPort) {
	local, _ = sys.LocalAddr(fd)
	remote, _ = sys.RemoteAddr(fd)
	return local, remote
}
