// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/proxy/socket"
)

const (
	// maxHandshakeBytes bounds what the other side may send before the handshake is over. A chain of ten certificates with
	// large keys has some 30 KiB.
	maxHandshakeBytes = 128 << 10
	// maxHeld bounds the ciphertext that the socket has not taken. A record has at most 16 KiB and some bytes; the rest is
	// for answers to a peer that asks for new keys and does not read.
	maxHeld = 32 << 10
)

// ErrTruncated is the end of a connection without close_notify (RFC 8446 6.1): what came may not be all.
var ErrTruncated = errors.New("transport: the connection ended without close_notify")

var (
	errTooMuch = errors.New("transport: the other side sent too much before the handshake was over")
	errHeld    = errors.New("transport: the other side asks for more than it reads")
)

// dryError says that there is nothing to read. It is temporary, which lets crypto/tls go on later.
type dryError struct{}

func (dryError) Error() string   { return "transport: nothing to read" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }

var errDry net.Error = dryError{}

// waiter is what a handshake reads from and writes to: it waits.
type waiter interface {
	io.Reader
	io.Writer
}

// wire is the connection that crypto/tls sees.
type wire struct {
	// wait is set during the handshake, in which budget bytes may yet be read.
	wait   waiter
	budget int

	raw socket.Raw // after the handshake
	// empty says that the last read has emptied the socket, so that there is no use in another before the next edge. It
	// belongs to the reader.
	empty bool

	mu   sync.Mutex
	held []byte // guarded by mu: what the socket did not take, in order
	fin  bool   // guarded by mu: the sending side ends once held is sent
	full atomic.Bool
}

// Read implements net.Conn.
func (x *wire) Read(p []byte) (int, error) {
	if x.wait != nil {
		return x.readHandshake(p)
	}
	if x.empty && !x.raw.HungUp() {
		return 0, errDry
	}
	n, err := x.raw.TryRead(p)
	switch err {
	case nil:
		x.empty = n < len(p)
		return n, nil
	case socket.ErrWouldBlock:
		return 0, errDry
	case io.EOF:
		return 0, ErrTruncated // crypto/tls takes io.EOF between two records for an end in order
	}
	return 0, err
}

func (x *wire) readHandshake(p []byte) (int, error) {
	if x.budget == 0 {
		return 0, errTooMuch
	}
	n, err := x.wait.Read(p[:min(len(p), x.budget)])
	x.budget -= n
	return n, err
}

// Write implements net.Conn. After the handshake it keeps what the socket does not take.
func (x *wire) Write(p []byte) (int, error) {
	if x.wait != nil {
		return x.wait.Write(p)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	rest := p
	if len(x.held) == 0 {
		n, err := x.raw.TryWrite(p)
		if err == nil {
			return len(p), nil
		}
		if err != socket.ErrWouldBlock {
			return n, err
		}
		rest = p[n:]
	}
	if len(x.held)+len(rest) > maxHeld {
		return 0, errHeld
	}
	x.held = append(x.held, rest...)
	x.full.Store(true)
	return len(p), nil
}

// flush sends what is held: ErrWouldBlock where the socket does not take it all.
func (x *wire) flush() error {
	if !x.full.Load() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := x.raw.TryWrite(x.held)
	if x.held = x.held[n:]; err != nil {
		return err
	}
	x.held = nil
	x.full.Store(false)
	if x.fin {
		return x.raw.CloseWrite()
	}
	return nil
}

// finish ends the sending side, now or once what is held is sent.
func (x *wire) finish() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.held) > 0 {
		x.fin = true
		return nil
	}
	return x.raw.CloseWrite()
}

// The rest of net.Conn. crypto/tls asks for the remote address to find a session by where there is no server name: without
// an address it finds none. It sets deadlines to bound its last words, which do not wait here.

func (*wire) Close() error                     { return nil }
func (*wire) LocalAddr() net.Addr              { return noAddr{} }
func (*wire) RemoteAddr() net.Addr             { return noAddr{} }
func (*wire) SetDeadline(time.Time) error      { return nil }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

type noAddr struct{}

func (noAddr) Network() string { return "" }
func (noAddr) String() string  { return "" }
