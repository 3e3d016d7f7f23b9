// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handshakeLimit is how long the proxy may take for a handshake, which the whole generator waits for.
const handshakeLimit = 10 * time.Second

// secure is the client's end of TLS on a connection: crypto/tls over memory, which the loop fills and empties.
type secure struct {
	tls  *tls.Conn
	fd   int // while the handshake lasts, which waits for its bytes; -1 then
	in   bytes.Buffer
	out  []byte
	text [16 << 10]byte
}

// handshake makes a connection secure and speaks for HTTP/2 alone. That the proxy's certificate is its own was looked at
// before.
func handshake(fd int, host string) (*secure, error) {
	s := &secure{fd: fd}
	s.tls = tls.Client(s, &tls.Config{
		ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
	})
	if err := s.tls.Handshake(); err != nil {
		return nil, fmt.Errorf("load: handshake: %w", err)
	}
	if p := s.tls.ConnectionState().NegotiatedProtocol; p != "h2" {
		return nil, fmt.Errorf("load: the proxy chose %q by ALPN", p)
	}
	s.fd = -1
	return s, nil
}

// read returns the next bytes that are here whole, nothing where there are none.
func (s *secure) read() ([]byte, error) {
	n, err := s.tls.Read(s.text[:])
	if errors.As(err, new(dry)) {
		err = nil
	}
	return s.text[:n], err
}

// write makes records of p, to be sent from out.
func (s *secure) write(p []byte) { _, _ = s.tls.Write(p) } // into memory

// dry says that there are no more bytes now: an error that crypto/tls does not keep.
type dry struct{}

func (dry) Error() string   { return "load: nothing to read" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

// Read implements net.Conn.
func (s *secure) Read(p []byte) (int, error) {
	for deadline := time.Now().Add(handshakeLimit); s.in.Len() == 0 && s.fd >= 0; {
		n, e := read(s.fd, p)
		switch {
		case e == 0 && n > 0:
			return n, nil
		case e == 0:
			return 0, errors.New("the proxy closed the connection")
		case e != syscall.EAGAIN:
			return 0, e
		case time.Now().After(deadline):
			return 0, errors.New("it takes too long")
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 100)
	}
	if s.in.Len() == 0 {
		return 0, dry{}
	}
	return s.in.Read(p)
}

// Write implements net.Conn. What a handshake says fits into the socket.
func (s *secure) Write(p []byte) (int, error) {
	if s.fd < 0 {
		s.out = append(s.out, p...)
		return len(p), nil
	}
	n, e := write(s.fd, p)
	if e != 0 {
		return 0, e
	}
	return n, nil
}

// The rest of net.Conn, which nobody asks for.
func (*secure) Close() error                     { return nil }
func (*secure) LocalAddr() net.Addr              { return nil }
func (*secure) RemoteAddr() net.Addr             { return nil }
func (*secure) SetDeadline(time.Time) error      { return nil }
func (*secure) SetReadDeadline(time.Time) error  { return nil }
func (*secure) SetWriteDeadline(time.Time) error { return nil }
