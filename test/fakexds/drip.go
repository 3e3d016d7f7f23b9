// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"net"
	"sync"
	"time"
)

// Drip makes each connection of gRPC let one byte through each time every has passed, from now on: an hour is a server that
// accepts and never says anything. 0 ends that, and what was held back goes out.
func (s *Server) Drip(every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.paced)
	s.every, s.paced = every, make(chan struct{})
}

// pace returns how often a byte may go out, 0 for any, and what is closed when that changes.
func (s *Server) pace() (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.every, s.paced
}

// dripping is a connection at the pace of its server.
type dripping struct {
	net.Conn
	server *Server
	once   sync.Once
	closed chan struct{}
}

// Write writes all of b, at the pace of the server.
func (c *dripping) Write(b []byte) (n int, err error) {
	for n < len(b) {
		every, changed := c.server.pace()
		if every == 0 {
			rest, err := c.Conn.Write(b[n:])
			return n + rest, err
		}
		select {
		case <-changed:
		case <-c.closed:
			return n, net.ErrClosed
		case <-time.After(every):
			if _, err := c.Conn.Write(b[n : n+1]); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// Close ends what is being written, too.
func (c *dripping) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
