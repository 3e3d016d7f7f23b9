// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/sys"
)

// Peer is an upstream connection. One worker reads from it, and the same or one other writes to it; only pokes and the
// hang-up come from elsewhere.
type Peer struct {
	c     net.Conn
	rc    syscall.RawConn
	fd    int
	set   *set
	watch watch
	gone  func(*Peer) // told of the peer's hang-up, by who looks at the set
	local netip.AddrPort

	flags   flags
	told    bool                   // gone was called; of who looks at the set
	watcher atomic.Pointer[Worker] // interrupted when the connection breaks
	closed  atomic.Bool
	wrote   atomic.Int64
	rd, wr  sleeper
	layer   Layer // nil for plain connections

	// These belong to the worker that writes: what it sleeps on, and what came of the last try.
	more  func(uintptr) bool // writeStep
	rest  []byte
	taken int
	full  syscall.Errno
	// layerErr is what came of the last try where there is a layer.
	layerErr error

	// The rest belongs to the worker that reads.
	w    *Worker
	step func(uintptr) bool
	out  []byte // what Call has not sent yet
	buf  *bytebuf.Buf
	err  error
}

// sleeper is one direction of a peer that a worker may sleep on. Each direction has a deadline of its own in the
// runtime's poller, which only its own worker clears: so no poke is lost to the other.
type sleeper struct {
	p     *Peer
	write bool
}

// poke makes the worker that sleeps here, or the next that will, look again.
func (s *sleeper) poke() { s.set(past) }

func (s *sleeper) set(t time.Time) {
	if s.write {
		s.p.c.SetWriteDeadline(t)
	} else {
		s.p.c.SetReadDeadline(t)
	}
}

var past = time.Unix(1, 0)

// Dialer says how to reach an upstream.
type Dialer struct {
	Timeout time.Duration
	// Source is the local address; the zero value leaves it to the system.
	Source    netip.AddrPort
	KeepAlive net.KeepAliveConfig
	// Secure makes the layer of a connection once it is made, within what is left of the timeout; nil for plain
	// connections.
	Secure Securer
}

// Securer makes the layer of a connection that was just made. It waits, until ctx ends at most. On an error the connection
// is closed.
type Securer interface {
	Secure(ctx context.Context, c net.Conn) (Layer, error)
}

// Dial connects to address. It blocks until it is connected or the timeout is over; gone is called once if the peer
// closes its side, at any time, from the engine's goroutine: it must not block.
func (e *Engine) Dial(ctx context.Context, d *Dialer, network, address string, gone func(*Peer)) (*Peer, error) {
	l, err := e.Connect(ctx, d, network, address)
	if err != nil {
		return nil, err
	}
	return l.Peer(gone)
}

// bindLate lets the kernel choose the source port by the whole address pair, so that one source address can hold more
// connections than it has ports (ip(7), IP_BIND_ADDRESS_NO_PORT).
func bindLate(_, _ string, rc syscall.RawConn) error {
	const ipBindAddressNoPort = 24
	return rc.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	})
}

func (e *Engine) newPeer(c net.Conn, l Layer, gone func(*Peer)) (*Peer, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("socket: %T has no descriptor", c)
	}
	p := &Peer{c: c, set: e.pickSet(), gone: gone, local: localAddr(c)}
	rc, err := sc.SyscallConn()
	if err == nil {
		p.rc = rc
		err = rc.Control(func(fd uintptr) { p.fd = int(fd) })
	}
	if err == nil {
		p.step, p.more = p.readStep, p.writeStep
		p.rd, p.wr = sleeper{p, false}, sleeper{p, true}
		if l != nil {
			p.setLayer(l)
		}
		p.watch.target = p
		err = p.set.add(p.fd, &p.watch, sys.RdHup|sys.Edge)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

// event is called by the set's goroutine: the peer has hung up, or reset the connection, perhaps after that.
func (p *Peer) event(ev uint32) {
	if p.flags.broke(ev) {
		p.flags.set(broken)
		if w := p.watcher.Load(); w != nil {
			w.Interrupt()
		}
	}
	p.flags.set(hup)
	if p.told {
		return
	}
	p.told = true
	if p.gone != nil {
		p.gone(p)
	}
	p.rd.poke()
}

// HungUp reports whether the peer has closed its side.
func (p *Peer) HungUp() bool { return p.flags.has(hup) }

// Broken reports whether the peer has reset the connection.
func (p *Peer) Broken() bool { return p.flags.has(broken) }

// WatchBreak makes a reset by the peer interrupt w, also one that was before; nil ends that. It is for who does not read:
// a reader is told by its call.
func (p *Peer) WatchBreak(w *Worker) {
	p.watcher.Store(w)
	if w != nil && p.flags.has(broken) {
		w.Interrupt()
	}
}

// Stale reports whether an idle connection cannot take a request: it was closed, or it holds bytes nobody asked for.
func (p *Peer) Stale() bool {
	if p.flags.has(hup) {
		return true
	}
	if p.layer != nil {
		return p.staleLayer()
	}
	var one [1]byte
	_, e := sys.Peek(p.fd, one[:])
	return e != syscall.EAGAIN
}

// Call sends out whole and waits for the first bytes of the answer, which are in the buffer it returns. The buffer is
// taken when the bytes are there, and is the caller's to put back.
//
// The bytes leave inside RawConn.Read: that call begins by forgetting earlier edges, so whatever the request brings
// about comes after that and ends the wait. Sent before it, one answer in some thousands would be slept through.
func (p *Peer) Call(w *Worker, out []byte) (*bytebuf.Buf, error) {
	p.out, p.buf = out, nil
	err := p.run(w)
	p.out = nil
	b := p.buf
	p.buf = nil
	if err != nil && b != nil {
		p.set.e.Bufs.Put(b)
		b = nil
	}
	return b, err
}

// Recv waits for bytes and appends them to b, or to a new buffer where b is nil; that is taken when the bytes are there.
func (p *Peer) Recv(w *Worker, b *bytebuf.Buf) (*bytebuf.Buf, error) {
	p.out, p.buf = nil, b
	err := p.run(w)
	got := p.buf
	p.buf = nil
	if err != nil && b == nil && got != nil {
		p.set.e.Bufs.Put(got)
		got = nil
	}
	return got, err
}

// run drives the read step until it has bytes, or there is a reason to stop.
func (p *Peer) run(w *Worker) error {
	p.w = w
	for {
		w.at.Store(&p.rd)
		// An interrupter sets its mark before it looks at w.at: one of the two sees the other.
		if err := w.interrupted(); err != nil {
			w.at.Store(nil)
			return err
		}
		p.err = nil
		err := p.rc.Read(p.step)
		w.at.Store(nil)
		if err == nil {
			return p.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		p.rd.set(time.Time{})
		// Where the poke was the hang-up's, what is left to read is there at once.
		if p.flags.has(hup) && len(p.out) == 0 && p.take() {
			return p.err
		}
	}
}

// readStep runs inside RawConn.Read; false sleeps until the next edge.
func (p *Peer) readStep(uintptr) bool {
	if len(p.out) == 0 {
		return p.take()
	}
	p.err = p.Write(p.w, p.out)
	p.out = nil
	p.w.at.Store(&p.rd)
	// An interrupt that came while the worker was not seen to sleep here has left its mark only.
	if p.err == nil {
		p.err = p.w.interrupted()
	}
	// After a hang-up no edge will tell that there is an end to read, nor of what the layer holds already.
	return p.err != nil || (p.flags.has(hup) || p.layer != nil && p.layer.Buffered()) && p.take()
}

// take reads once. It reports false where there is nothing to read yet.
func (p *Peer) take() bool {
	fresh := p.buf == nil
	if fresh {
		p.buf = p.set.e.Bufs.Get()
	}
	n, err := p.tryRead(p.buf.Free())
	if err == ErrWouldBlock {
		if fresh {
			p.set.e.Bufs.Put(p.buf)
			p.buf = nil
		}
		return false
	}
	p.buf.Hi += n
	p.err = err
	return true
}

// Write sends all of b, waiting while the socket is full.
func (p *Peer) Write(w *Worker, b []byte) error {
	if p.layer != nil {
		return p.writeLayer(w, b)
	}
	for len(b) > 0 {
		n, e := p.flags.send(p.fd, b)
		if e == syscall.EAGAIN {
			var err error
			if n, err = p.awaitWrite(w, b); err != nil {
				return err
			}
		} else if e != 0 {
			return e
		}
		p.wrote.Add(int64(n))
		b = b[n:]
	}
	return nil
}

// awaitWrite sleeps until the socket takes a part of b.
func (p *Peer) awaitWrite(w *Worker, b []byte) (n int, err error) {
	p.rest = b
	defer func() { p.rest = nil }()
	for {
		w.at.Store(&p.wr)
		if err := w.interrupted(); err != nil {
			w.at.Store(nil)
			return 0, err
		}
		err := p.rc.Write(p.more)
		w.at.Store(nil)
		switch {
		case err == nil && p.full == 0:
			return p.taken, nil
		case err == nil:
			return 0, p.full
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		}
		p.wr.set(time.Time{})
	}
}

// writeStep runs inside RawConn.Write; false sleeps until the next edge.
func (p *Peer) writeStep(uintptr) bool {
	p.taken, p.full = p.flags.send(p.fd, p.rest)
	return p.full != syscall.EAGAIN
}

// Wrote returns the bytes that the system has taken for sending since the connection was made.
func (p *Peer) Wrote() int64 { return p.wrote.Load() }

// CloseWrite ends the sending side.
func (p *Peer) CloseWrite() error {
	if p.layer != nil {
		return p.layer.CloseWrite()
	}
	return p.rawCloseWrite()
}

func (p *Peer) rawCloseWrite() error {
	p.flags.set(ended)
	if c, ok := p.c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Reset makes the coming Close abort the connection with RST.
func (p *Peer) Reset() {
	p.flags.set(silent)
	if c, ok := p.c.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
}

// Close closes the connection. It may be called more than once, and from any goroutine that owns p then.
func (p *Peer) Close() {
	if p.closed.Swap(true) {
		return
	}
	if p.layer != nil {
		p.layer.Close(p.flags.has(silent | hup))
	}
	p.set.forget(p.fd, &p.watch)
	p.c.Close()
}

// LocalAddr returns the local address of a TCP connection, the zero value for others.
func (p *Peer) LocalAddr() netip.AddrPort { return p.local }

func localAddr(c net.Conn) netip.AddrPort {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// FD returns the descriptor, for socket options. It must not be closed or kept.
func (p *Peer) FD() int { return p.fd }
