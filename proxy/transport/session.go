// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"io"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Session is the TLS of one connection after its handshake. It implements socket.Layer.
type Session struct {
	tls  *tls.Conn
	wire wire
	// more says that the last read did not end for want of bytes, so that crypto/tls may hold some. It belongs to the
	// reader.
	more bool
	alpn string
	read input
}

// recordBytes is the plaintext that is encrypted at a time: a record (RFC 8446 5.1).
const recordBytes = 16 << 10

// shake makes the handshake over w, which waits.
func (s *Session) shake(w waiter) (*mesh.TLSInfo, error) {
	s.wire.wait, s.wire.budget = w, maxHandshakeBytes
	err := s.tls.Handshake()
	s.wire.wait = nil
	if err != nil {
		return nil, err
	}
	// What came behind the last message of the handshake may be inside already.
	s.more = true
	s.read.init(s.tls)
	cs := s.tls.ConnectionState()
	s.alpn = cs.NegotiatedProtocol
	return info(&cs), nil
}

// Bind implements socket.Layer.
func (s *Session) Bind(raw socket.Raw) { s.wire.raw = raw }

// Protocol implements socket.Layer.
func (s *Session) Protocol() string { return s.alpn }

// Buffered implements socket.Layer.
func (s *Session) Buffered() bool { return s.more }

// TryRead implements socket.Layer.
func (s *Session) TryRead(p []byte) (n int, err error) {
	// Answers to requests for new keys may be held while nobody writes. Where they cannot be sent, reading goes on.
	_ = s.wire.flush()
	s.wire.empty = false
	s.read.take(s.wire.raw.Bufs())
	if n, err = s.readRecords(p); !s.more {
		s.read.put(s.wire.raw.Bufs())
	}
	return n, err
}

// readRecords reads until p is full or there is nothing more.
func (s *Session) readRecords(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := s.tls.Read(p[n:])
		n += m
		switch {
		case err == nil:
		case err == errDry && n == 0:
			s.more = false
			return 0, socket.ErrWouldBlock
		case err == errDry:
			s.more = false
			return n, nil
		default:
			s.more = true // crypto/tls says it again
			s.wire.raw.SetHungUp()
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
	}
	s.more = true
	return n, nil
}

// TryWrite implements socket.Layer.
func (s *Session) TryWrite(p []byte) (n int, err error) {
	for {
		if err := s.wire.flush(); err != nil {
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
		m := min(len(p)-n, recordBytes)
		if _, err := s.tls.Write(p[n : n+m]); err != nil {
			return n, err
		}
		n += m
	}
}

// CloseWrite implements socket.Layer.
func (s *Session) CloseWrite() error {
	err := s.tls.CloseWrite()
	if finErr := s.wire.finish(); err == nil {
		err = finErr
	}
	return err
}

// Close implements socket.Layer.
func (s *Session) Close(quiet bool) {
	if !quiet {
		_ = s.tls.CloseWrite()
	}
	s.read.drop(s.wire.raw.Bufs())
}

// Interface guards.
var (
	_ socket.Layer = (*Session)(nil)
	_ io.Reader    = (*wire)(nil)
)
