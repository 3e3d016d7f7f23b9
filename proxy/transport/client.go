// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Client makes the handshakes with the hosts of a cluster. It may be used by many goroutines.
type Client struct {
	tls   *setting
	stats *metrics.TLS
}

// NewClient returns what makes the handshakes that m describes, with the secrets that it names.
func NewClient(m *mesh.TLSContext, secrets *Secrets, stats *metrics.TLS) (*Client, error) {
	c, err := newSetting(m, secrets, stats, tlsconf.Client)
	if err != nil {
		return nil, err
	}
	return &Client{tls: c, stats: stats}, nil
}

// Secure makes the handshake on a connection that was just made, and waits for it. It is a socket.Dialer's Secure: c must
// not be read or written by others until the layer is on it.
func (cl *Client) Secure(ctx context.Context, c net.Conn) (socket.Layer, error) {
	config, err := cl.tls.config()
	if err != nil {
		return nil, failed(cl.stats, 0, err)
	}
	x := &Session{}
	x.tls = tls.Client(&x.wire, config)
	i, err := cl.shake(ctx, x, c)
	if err != nil {
		return nil, failed(cl.stats, 0, err)
	}
	succeeded(cl.stats, 0, i)
	return x, nil
}

// shake makes the handshake over c, which is as it was before in the end.
func (cl *Client) shake(ctx context.Context, x *Session, c net.Conn) (*mesh.TLSInfo, error) {
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(past) })
	i, err := x.shake(c)
	if !stop() {
		// The time was over, or the dial is not wanted any more: the deadline is in force, or about to be.
		if err == nil {
			err = errTime
		}
		return nil, err
	}
	return i, err
}

// WithALPN returns a client that offers these application protocols in place of those of the configuration.
func (cl *Client) WithALPN(protocols []string) *Client {
	return &Client{tls: cl.tls.withALPN(protocols), stats: cl.stats}
}

// Conn makes the handshake on c within ctx's time, and returns what is read and written in its place: for those who wait
// on package net, as active checks do.
func (cl *Client) Conn(ctx context.Context, c net.Conn) (net.Conn, error) {
	config, err := cl.tls.config()
	if err != nil {
		return nil, failed(cl.stats, 0, err)
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, failed(cl.stats, 0, err)
	}
	cs := t.ConnectionState()
	succeeded(cl.stats, 0, info(&cs))
	return t, nil
}
