// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/login"
)

// options are those of the connection. Files are read again whenever it is made, so that secrets can change; they are
// read here once as well, so that a file that is missing is an error now.
func (s *Sink) options(ctx context.Context) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.SetCustomDialer(dialer(func(_, address string) (net.Conn, error) {
			return s.cfg.TLS.Dial(ctx, address, false, dialTimeout) // the client does TLS itself, when the server has told of it
		})),
		nats.Name("meshtap"),
		nats.Timeout(dialTimeout),
		nats.IgnoreDiscoveredServers(), // of which nobody has said that they may have our secrets
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // the runner keeps what is not sent
		nats.CustomReconnectDelay(s.reconnectDelay),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsLost),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			s.log.Warn("lost the connection to the NATS server", zap.Error(err))
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			err = s.explain(err)
			s.why.Store(&err)
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			s.why.Store(nil)
			s.log.Info("connected to the NATS server again")
		}),
		nats.NoCallbacksAfterClientClose(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Warn("error of the NATS connection", zap.Error(err))
		}),
	}
	auth, err := s.login()
	if err != nil {
		return nil, err
	}
	if auth != nil {
		opts = append(opts, auth)
	}
	return s.secure(opts)
}

// login returns the option for the credentials that are configured, or nil.
func (s *Sink) login() (nats.Option, error) {
	switch c := &s.cfg; {
	case c.CredentialsFile != "":
		if _, err := login.Secret(c.CredentialsFile); err != nil {
			return nil, err
		}
		return nats.UserCredentials(c.CredentialsFile), nil
	case c.User != "":
		if _, err := login.Secret(c.PasswordFile); err != nil {
			return nil, err
		}
		return nats.UserInfoHandler(func() (string, string) { return c.User, s.read(c.PasswordFile) }), nil
	case c.TokenFile != "":
		if _, err := login.Secret(c.TokenFile); err != nil {
			return nil, err
		}
		return nats.TokenHandler(func() string { return s.read(c.TokenFile) }), nil
	}
	return nil, nil
}

// read returns a secret, or "", which the server will refuse.
func (s *Sink) read(path string) string {
	v, err := login.Secret(path)
	if err != nil {
		s.log.Warn("cannot read a secret of the NATS sink", zap.Error(prefix(err)))
	}
	return v
}

// secure adds what TLS needs.
func (s *Sink) secure(opts []nats.Option) ([]nats.Option, error) {
	t := s.cfg.TLS
	if t == nil {
		if s.cfg.Secure {
			opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
		}
		return opts, nil
	}
	opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}))
	if _, err := t.Client(""); err != nil {
		return nil, err
	}
	// Each connection asks for these again.
	var cert nats.TLSCertHandler
	if t.CertificateFile != "" {
		cert = func() (tls.Certificate, error) {
			c, err := t.Certificate()
			return c, prefix(err)
		}
	}
	var ca nats.RootCAsHandler
	if t.CAFile != "" {
		ca = func() (*x509.CertPool, error) {
			pool, err := t.Authorities()
			return pool, prefix(err)
		}
	}
	return append(opts, func(o *nats.Options) error {
		o.TLSCertCB, o.RootCAsCB = cert, ca
		return nil
	}), nil
}

// dialer is a nats.CustomDialer.
type dialer func(network, address string) (net.Conn, error)

// Dial connects.
func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }
