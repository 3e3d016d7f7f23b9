// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/meshtap/meshtap/internal/sys"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/transport"
)

// exchange is what is said on a connection in one check.
type exchange func(*stream) answer

// answer is what one check found out.
type answer struct {
	verdict verdict
	reason  string // of a failure
	// keep says that the connection is in a state in which it can be used again.
	keep bool
	// named says that the name of the service was looked at.
	named bool
}

var errTooLong = errors.New("health: the answer is too long")

// link holds the connection of a Checker, and says on it what is said in each check. Its goroutine opens and drops it;
// shut may come from any other.
type link struct {
	dial     func(context.Context) (net.Conn, error)
	exchange exchange
	reuse    bool

	mu   sync.Mutex
	conn net.Conn // guarded by mu: nil while there is none
	over bool     // guarded by mu: there will be none any more
}

// ask makes one check. Between two checks a host may close the connection, which is no failure, and which can become known
// only now: it is made again then, on a new one.
func (l *link) ask(ctx context.Context) answer {
	for {
		s, err := l.open(ctx)
		if err != nil {
			return answer{verdict: unreachable, reason: reason("connect", err)}
		}
		a := l.exchange(s)
		if !a.keep || !l.reuse {
			l.drop()
		}
		if a.verdict != unreachable || !s.hungUp() {
			return a
		}
	}
}

// open returns the connection that was kept, or a new one, with ctx's deadline.
func (l *link) open(ctx context.Context) (*stream, error) {
	l.mu.Lock()
	s := &stream{Conn: l.conn, reused: l.conn != nil}
	l.mu.Unlock()
	if s.reused && stale(s.Conn) {
		l.drop()
		s.reused = false
	}
	if !s.reused {
		c, err := l.dial(ctx)
		if err != nil {
			return nil, err
		}
		if !l.put(c) {
			return nil, net.ErrClosed
		}
		s.Conn = c
	}
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline) // fails where the connection is closed, as will the next write
	return s, nil
}

func (l *link) put(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		c.Close()
		return false
	}
	l.conn = c
	return true
}

// drop closes the connection.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// shut closes the connection for good. An exchange that is under way fails at once.
func (l *link) shut() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.drop()
}

// stale reports whether an idle connection cannot be used: it was closed, or it holds bytes that nobody asked for, such
// as the 408 that some servers send before they close.
func stale(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false // not a socket; the exchange will tell
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var e syscall.Errno
	err = rc.Control(func(fd uintptr) {
		var one [1]byte
		_, e = sys.Peek(int(fd), one[:])
	})
	return err != nil || e != syscall.EAGAIN
}

// stream is the connection in one check.
type stream struct {
	net.Conn
	reused bool
	limit  int   // bytes to read at most, and a buffer more
	got    int   // bytes read
	err    error // the last of reading or writing
}

// Read reads and takes note of what came.
func (s *stream) Read(p []byte) (int, error) {
	if s.got > s.limit {
		s.err = errTooLong
		return 0, s.err
	}
	n, err := s.Conn.Read(p)
	s.got += n
	if err != nil {
		s.err = err
	}
	return n, err
}

// Write writes and takes note of what came of it.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// hungUp reports whether a connection that had been kept turned out to be closed before a byte came.
func (s *stream) hungUp() bool { return s.reused && s.got == 0 && s.err != nil && !timeout(s.err) }

// failed returns the answer for an exchange that the connection cut short, in the operation that what names.
func (s *stream) failed(what string) answer {
	return answer{verdict: unreachable, reason: reason(what, s.err)}
}

// reason puts the failure of an operation into words without addresses.
func reason(what string, err error) string {
	var errno syscall.Errno
	var secure *transport.Error
	switch {
	case timeout(err):
		return "timeout"
	case errors.Is(err, errTooLong):
		return "the answer is too long"
	case errors.As(err, &secure):
		return secure.Reason
	case errors.As(err, &errno):
		return what + ": " + errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return what + ": connection closed"
	}
	return what + ": failed"
}

func timeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// address returns where the check connects to.
func address(cfg *mesh.HealthCheck, t *Target) string {
	port := t.CheckPort
	if port == 0 {
		port = cfg.AltPort
	}
	if port == 0 || t.Address.Pipe != "" {
		return t.Address.String()
	}
	return netip.AddrPortFrom(t.Address.IP.Addr(), port).String()
}

// dialer returns how to connect to an address.
func dialer(d *Deps, network, address string) func(context.Context) (net.Conn, error) {
	dial := d.Dial
	if dial == nil {
		nd := &net.Dialer{KeepAlive: -1}
		if d.Source.IsValid() && network == "tcp" {
			nd.LocalAddr = net.TCPAddrFromAddrPort(d.Source)
		}
		dial = nd.DialContext
	}
	secure := d.Secure
	if secure == nil {
		return func(ctx context.Context) (net.Conn, error) { return dial(ctx, network, address) }
	}
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s, err := secure(ctx, c)
		if err != nil {
			c.Close()
			return nil, err
		}
		return s, nil
	}
}
