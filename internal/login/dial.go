// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// Dial connects to an address, host:port, within timeout, and does TLS where secure says so. The connection is closed when
// ctx ends, since the clients of buses take no context.
func (t *TLS) Dial(ctx context.Context, address string, secure bool, timeout time.Duration) (net.Conn, error) {
	opening, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(opening, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, stop: context.AfterFunc(ctx, func() { raw.Close() })}
	if !secure {
		return c, nil
	}
	s, err := t.handshake(opening, c, address)
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (t *TLS) handshake(ctx context.Context, c net.Conn, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	settings, err := t.Client(host)
	if err != nil {
		return nil, err
	}
	s := tls.Client(c, settings)
	return s, s.HandshakeContext(ctx)
}

// conn is a connection that a context closes.
type conn struct {
	net.Conn
	stop func() bool
}

// Close closes the connection.
func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}
