// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/sys"
)

// Layer stands between a connection and its descriptor, as TLS does: everything above reads and writes through it. One
// goroutine reads and one, which may be another, writes at a time. No call may wait.
type Layer interface {
	// Bind is called once, before all others: raw is what the layer reads from and writes to from then on.
	Bind(raw Raw)
	// TryRead fills p as far as it can: ErrWouldBlock where there is nothing, io.EOF at an end in order. n > 0 comes
	// without an error. When the end was seen behind the bytes, raw.HungUp has been told.
	TryRead(p []byte) (n int, err error)
	// TryWrite keeps the contract of Conn.TryWrite.
	TryWrite(p []byte) (n int, err error)
	// Buffered reports whether TryRead may find something without the descriptor. The reader asks.
	Buffered() bool
	// Protocol is the application protocol that was negotiated, "" for none.
	Protocol() string
	// CloseWrite tells the other side that no more will come, and ends the sending side of raw once that is sent.
	CloseWrite() error
	// Close gives back what the layer holds, and, unless quiet, tells the other side the same as far as that goes without
	// waiting. The descriptor is closed next.
	Close(quiet bool)
}

// Raw is a connection below its layer.
type Raw interface {
	// TryRead reads once: ErrWouldBlock where there is nothing, io.EOF at the end.
	TryRead(p []byte) (n int, err error)
	// TryWrite sends as much as the socket takes; n < len(p) comes with ErrWouldBlock or another error.
	TryWrite(p []byte) (n int, err error)
	// HungUp reports whether the other side has closed, so that its end may be read without another edge. SetHungUp says
	// that it has, in the layer's own words.
	HungUp() bool
	SetHungUp()
	// CloseWrite ends the sending side.
	CloseWrite() error
	// Bufs are the engine's buffers.
	Bufs() *bytebuf.Pool
}

// SetLayer puts a layer on the connection. Only its worker, or the owner before Start, may call it, once. What the layer
// has read already is no edge: Ready must be called next, as by Start(true).
func (c *Conn) SetLayer(l Layer) {
	c.layer = l
	l.Bind((*rawConn)(c))
}

// Protocol returns the application protocol that the connection's layer negotiated, "" for none.
func (c *Conn) Protocol() string { return protocol(c.layer) }

// Protocol returns the application protocol that the connection's layer negotiated, "" for none.
func (p *Peer) Protocol() string { return protocol(p.layer) }

func protocol(l Layer) string {
	if l == nil {
		return ""
	}
	return l.Protocol()
}

// rawConn is a Conn below its layer.
type rawConn Conn

func (r *rawConn) TryRead(p []byte) (int, error)  { return (*Conn)(r).rawRead(p) }
func (r *rawConn) TryWrite(p []byte) (int, error) { return (*Conn)(r).rawTryWrite(p) }
func (r *rawConn) HungUp() bool                   { return r.flags.has(hup) }
func (r *rawConn) SetHungUp()                     { r.flags.set(hup) }
func (r *rawConn) CloseWrite() error              { return (*Conn)(r).rawCloseWrite() }
func (r *rawConn) Bufs() *bytebuf.Pool            { return &r.set.e.Bufs }

// writeLayer is Write through the layer: it waits until all of p is encrypted and sent.
func (c *Conn) writeLayer(w *Worker, p []byte) error {
	for {
		n, err := c.layer.TryWrite(p)
		if p = p[n:]; err != ErrWouldBlock {
			return err
		}
		c.writer.Store(w)
		n, err = c.layer.TryWrite(p)
		if p = p[n:]; err != ErrWouldBlock {
			c.writer.CompareAndSwap(w, nil)
			return err
		}
		if err := w.Sleep(); err != nil {
			c.writer.CompareAndSwap(w, nil)
			return err
		}
	}
}

// setLayer puts a layer on a peer, before anyone uses it.
func (p *Peer) setLayer(l Layer) {
	p.layer, p.more = l, p.layerStep
	l.Bind((*rawPeer)(p))
}

// rawPeer is a Peer below its layer.
type rawPeer Peer

func (r *rawPeer) TryRead(b []byte) (int, error) { return (*Peer)(r).rawRead(b) }

func (r *rawPeer) TryWrite(b []byte) (n int, err error) {
	for n < len(b) {
		m, e := r.flags.send(r.fd, b[n:])
		if e == syscall.EAGAIN {
			return n, ErrWouldBlock
		}
		if e != 0 {
			return n, e
		}
		n += m
	}
	return n, nil
}

func (r *rawPeer) HungUp() bool      { return r.flags.has(hup) }
func (r *rawPeer) SetHungUp()        { r.flags.set(hup) }
func (r *rawPeer) CloseWrite() error { return (*Peer)(r).rawCloseWrite() }

func (r *rawPeer) Bufs() *bytebuf.Pool { return &r.set.e.Bufs }

func (p *Peer) rawRead(b []byte) (int, error) {
	invariant.Check(len(b) > 0, "socket: no room to read into, which would look like the end")
	n, e := sys.Recv(p.fd, b)
	if n == 0 && e == 0 && p.flags.tookReset() {
		e = syscall.ECONNRESET
	}
	return result(n, e)
}

// tryRead reads through the layer, where there is one.
func (p *Peer) tryRead(b []byte) (int, error) {
	if p.layer != nil {
		return p.layer.TryRead(b)
	}
	return p.rawRead(b)
}

// writeLayer is Write through the layer: it sleeps as awaitWrite does, until all of b is encrypted and sent.
func (p *Peer) writeLayer(w *Worker, b []byte) error {
	p.rest = b
	defer func() { p.rest = nil }()
	for {
		w.at.Store(&p.wr)
		if err := w.interrupted(); err != nil {
			w.at.Store(nil)
			return err
		}
		err := p.rc.Write(p.more)
		w.at.Store(nil)
		if err == nil {
			return p.layerErr
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		p.wr.set(time.Time{})
	}
}

// layerStep runs inside RawConn.Write; false sleeps until the next edge.
func (p *Peer) layerStep(uintptr) bool {
	n, err := p.layer.TryWrite(p.rest)
	p.rest, p.layerErr = p.rest[n:], err
	p.wrote.Add(int64(n))
	return err != ErrWouldBlock
}

// staleLayer is Stale for a connection with a layer: what the other side sends there may concern the layer alone, such as
// the tickets of TLS.
func (p *Peer) staleLayer() bool {
	var one [1]byte
	_, err := p.layer.TryRead(one[:])
	return err != ErrWouldBlock || p.flags.has(hup)
}
