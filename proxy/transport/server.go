// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Server makes the handshakes of a filter chain. It may be used by many workers.
type Server struct {
	tls   *setting
	stats *metrics.TLS
}

// NewServer returns what makes the handshakes that m describes, with the secrets that it names.
func NewServer(m *mesh.TLSContext, secrets *Secrets, stats *metrics.TLS) (*Server, error) {
	c, err := newSetting(m, secrets, stats, serverConfig)
	if err != nil {
		return nil, err
	}
	return &Server{tls: c, stats: stats}, nil
}

// Unready returns why there can be no handshake now, nil where there can: a secret may be missing.
func (s *Server) Unready() error {
	_, err := s.tls.config()
	return err
}

// Refuse counts a connection that is closed for what Unready has said.
func (s *Server) Refuse(shard uint32, why error) *Error { return failed(s.stats, shard, why) }

func serverConfig(m *mesh.TLSContext) (*tls.Config, error) {
	if len(m.Certificates) == 0 {
		return nil, errors.New("no certificate to show")
	}
	c, err := tlsconf.Base(m)
	if err != nil {
		return nil, err
	}
	// A resumed session would not show its certificate again.
	c.SessionTicketsDisabled = m.NoTickets || m.Validation != nil
	switch {
	case m.Validation != nil:
		if err := verifyClients(c, m); err != nil {
			return nil, err
		}
	case m.RequireClientCertificate:
		return nil, errors.New("clients must show a certificate, and there is nothing to verify it with")
	}
	return c, nil
}

func verifyClients(c *tls.Config, m *mesh.TLSContext) error {
	v, err := tlsconf.NewVerifier(m.Validation, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	// crypto/tls itself builds the chain, so that the client is told what is wrong with it.
	c.ClientCAs, c.ClientAuth = v.Roots, tls.VerifyClientCertIfGiven
	if m.RequireClientCertificate {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		switch n := len(cs.PeerCertificates); {
		case n == 0:
			return nil // crypto/tls has refused it where one is required
		case n > tlsconf.MaxChain:
			return tlsconf.ErrChain
		case len(cs.VerifiedChains) == 0:
			return tlsconf.ErrNoCert
		}
		return v.Names(cs.PeerCertificates[0])
	}
	return nil
}

var errTime = errors.New("transport: the handshake took too long")

// clock ends a handshake when its time is over.
type clock struct {
	w        *socket.Worker
	deadline int64
}

// Interrupted implements socket.Owner.
func (k *clock) Interrupted() error {
	if mono.Now() >= k.deadline {
		return errTime
	}
	k.w.SetDeadline(k.deadline)
	return nil
}

// onWorker reads and writes a connection on its worker, waiting.
type onWorker struct {
	w *socket.Worker
	c *socket.Conn
}

func (o onWorker) Read(p []byte) (int, error) { return o.c.Read(o.w, p) }

func (o onWorker) Write(p []byte) (int, error) {
	if err := o.c.Write(o.w, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Handshake makes the handshake with a client on the connection's worker, which sleeps whenever it has to wait. It must be
// over at deadline (of mono.Now). The connection is secure then, and what the client has sent already may be inside: the
// caller goes on reading. On an error the connection must be closed.
func (s *Server) Handshake(w *socket.Worker, c *socket.Conn, deadline int64) (*mesh.TLSInfo, *Error) {
	config, err := s.tls.config()
	if err != nil {
		return nil, failed(s.stats, w.Shard, err)
	}
	x := &Session{}
	x.tls = tls.Server(&x.wire, config)
	previous := w.Own(&clock{w, deadline})
	w.SetDeadline(deadline)
	i, err := x.shake(onWorker{w, c})
	w.SetDeadline(0)
	w.Own(previous)
	if err != nil {
		return nil, failed(s.stats, w.Shard, err)
	}
	succeeded(s.stats, w.Shard, i)
	c.SetLayer(x)
	return i, nil
}

func succeeded(stats *metrics.TLS, shard uint32, i *mesh.TLSInfo) {
	stats.Inc(shard, metrics.TLSHandshake)
	if i.Resumed {
		stats.Inc(shard, metrics.TLSSessionReused)
	}
	if i.Peer == nil {
		stats.Inc(shard, metrics.TLSNoCertificate)
	}
	stats.Settled(shard, i.Version, i.Cipher, i.Group)
}
