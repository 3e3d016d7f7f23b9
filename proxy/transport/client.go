// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Client makes the handshakes with the hosts of a cluster. It is immutable but for the sessions it keeps, and may be used
// by many goroutines.
type Client struct {
	config *tls.Config
	stats  *metrics.TLS
}

// NewClient returns what makes the handshakes that m describes.
func NewClient(m *mesh.TLSContext, stats *metrics.TLS) (*Client, error) {
	c, err := base(m)
	if err != nil {
		return nil, err
	}
	c.ServerName = m.SNI
	// crypto/tls would hold the certificate's names against the server name. Envoy asks for a good chain, and for the names
	// that the configuration lists; without any such list, and without roots, it takes any certificate.
	c.InsecureSkipVerify = true
	if m.Validation != nil {
		v, err := newVerifier(m.Validation, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return nil, err
		}
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := v.chain(cs); err != nil {
				return err
			}
			return v.names(cs.PeerCertificates[0])
		}
	}
	if m.SessionKeys > 0 {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(m.SessionKeys)
	}
	return &Client{config: c, stats: stats}, nil
}

// Secure makes the handshake on a connection that was just made, and waits for it. It is a socket.Dialer's Secure: c must
// not be read or written by others until the layer is on it.
func (cl *Client) Secure(ctx context.Context, c net.Conn) (socket.Layer, error) {
	x := &Session{}
	x.tls = tls.Client(&x.wire, cl.config)
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
	c := cl.config.Clone()
	c.NextProtos = slices.Clone(protocols)
	return &Client{config: c, stats: cl.stats}
}

// Conn makes the handshake on c within ctx's time, and returns what is read and written in its place: for those who wait
// on package net, as active checks do.
func (cl *Client) Conn(ctx context.Context, c net.Conn) (net.Conn, error) {
	t := tls.Client(c, cl.config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, failed(cl.stats, 0, err)
	}
	cs := t.ConnectionState()
	succeeded(cl.stats, 0, info(&cs))
	return t, nil
}
