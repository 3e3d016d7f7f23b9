// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/meshtap/meshtap/internal/sys"
)

// Link is a connection to an upstream that was just made, before it is known who will read from it: the protocol that was
// negotiated may decide that. Exactly one of Peer, Conn and Close is called.
type Link struct {
	e     *Engine
	c     net.Conn
	layer Layer // nil for plain connections
}

// Connect connects to address and, where d says so, makes the connection secure. It blocks until that is done or the
// timeout is over.
func (e *Engine) Connect(ctx context.Context, d *Dialer, network, address string) (*Link, error) {
	nd := net.Dialer{KeepAliveConfig: d.KeepAlive, KeepAlive: -1}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	if d.Source.IsValid() && network != "unix" {
		nd.LocalAddr = net.TCPAddrFromAddrPort(d.Source)
		nd.Control = bindLate
	}
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l := &Link{e: e, c: c}
	if d.Secure != nil {
		if l.layer, err = d.Secure.Secure(ctx, c); err != nil {
			c.Close()
			return nil, err
		}
	}
	return l, nil
}

// Protocol returns the application protocol that was negotiated, "" for none.
func (l *Link) Protocol() string { return protocol(l.layer) }

// Peer makes the connection one whose user reads from it. gone is as for Dial. On an error the connection is closed.
func (l *Link) Peer(gone func(*Peer)) (*Peer, error) { return l.e.newPeer(l.c, l.layer, gone) }

// Conn makes the connection one that has a reader of its own: h. The caller calls Start, with now where the connection is
// secure; until then nobody reads, and the caller may Close it. On an error the connection is closed.
func (l *Link) Conn(h Handler) (*Conn, error) {
	defer l.c.Close()
	fd, err := takeFD(l.c)
	if err != nil {
		return nil, fmt.Errorf("socket: take over a connection: %w", err)
	}
	c := l.e.Adopt(fd, h)
	if l.layer != nil {
		c.SetLayer(l.layer)
	}
	return c, nil
}

// Close closes a connection that nobody wants.
func (l *Link) Close() { l.c.Close() }

// DialConn is Connect and Conn.
func (e *Engine) DialConn(ctx context.Context, d *Dialer, network, address string, h Handler) (*Conn, error) {
	l, err := e.Connect(ctx, d, network, address)
	if err != nil {
		return nil, err
	}
	return l.Conn(h)
}

// takeFD returns a descriptor of the connection that the runtime's poller does not know; c can be closed then. The two
// share their mode, which is non-blocking.
func takeFD(c net.Conn) (fd int, err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T has no descriptor", c)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	var e syscall.Errno
	if err := rc.Control(func(old uintptr) { fd, e = sys.Dup(int(old)) }); err != nil {
		return -1, err
	}
	if e != 0 {
		return -1, e
	}
	return fd, nil
}
