// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// options are those of the connection. Files are read again whenever it is made, so that secrets can change; they are
// read here once as well, so that a file that is missing is an error now.
func (s *Sink) options(ctx context.Context) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.SetCustomDialer(dialer(func(network, address string) (net.Conn, error) { return dial(ctx, network, address) })),
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
	login, err := s.login()
	if err != nil {
		return nil, err
	}
	if login != nil {
		opts = append(opts, login)
	}
	return s.secure(opts)
}

// login returns the option for the credentials that are configured, or nil.
func (s *Sink) login() (nats.Option, error) {
	switch c := &s.cfg; {
	case c.CredentialsFile != "":
		if _, err := secret(c.CredentialsFile); err != nil {
			return nil, err
		}
		return nats.UserCredentials(c.CredentialsFile), nil
	case c.User != "":
		if _, err := secret(c.PasswordFile); err != nil {
			return nil, err
		}
		return nats.UserInfoHandler(func() (string, string) { return c.User, s.read(c.PasswordFile) }), nil
	case c.TokenFile != "":
		if _, err := secret(c.TokenFile); err != nil {
			return nil, err
		}
		return nats.TokenHandler(func() string { return s.read(c.TokenFile) }), nil
	}
	return nil, nil
}

// read returns a secret, or "", which the server will refuse.
func (s *Sink) read(path string) string {
	v, err := secret(path)
	if err != nil {
		s.log.Warn("cannot read a secret of the NATS sink", zap.Error(err))
	}
	return v
}

// maxSecretMode is the widest mode of a file with a secret.
const maxSecretMode = 0o640

// secret returns what a file holds, without the line break at its end. A file that others may read is refused.
func secret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("nats: %w", err)
	}
	if m := info.Mode().Perm(); m&^maxSecretMode != 0 {
		return "", fmt.Errorf("nats: %s has the mode %#o, at most %#o is allowed for a secret", path, m, maxSecretMode)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("nats: %w", err)
	}
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", fmt.Errorf("nats: %s is empty", path)
	}
	return v, nil
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
	if t.CAFile != "" {
		if _, err := roots(t.CAFile); err != nil {
			return nil, err
		}
	}
	if t.CertificateFile != "" {
		if _, err := pair(t); err != nil {
			return nil, err
		}
	}
	// Each connection asks for these again.
	var cert nats.TLSCertHandler
	if t.CertificateFile != "" {
		cert = func() (tls.Certificate, error) { return pair(t) }
	}
	var ca nats.RootCAsHandler
	if t.CAFile != "" {
		ca = func() (*x509.CertPool, error) { return roots(t.CAFile) }
	}
	return append(opts, func(o *nats.Options) error {
		o.TLSCertCB, o.RootCAsCB = cert, ca
		return nil
	}), nil
}

func roots(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("nats: %s holds no certificate", path)
	}
	return pool, nil
}

func pair(t *TLS) (tls.Certificate, error) {
	if _, err := secret(t.KeyFile); err != nil {
		return tls.Certificate{}, err
	}
	c, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
	if err != nil {
		return tls.Certificate{}, errors.Join(fmt.Errorf("nats: %s and %s are not a certificate and its key", t.CertificateFile, t.KeyFile), err)
	}
	return c, nil
}

// dialer is a nats.CustomDialer.
type dialer func(network, address string) (net.Conn, error)

// Dial connects.
func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }

// dial connects, and closes the connection when ctx ends: the client itself takes no context.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, stop: context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
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
