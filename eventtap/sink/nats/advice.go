// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// explain adds to an error of the client what a person can do about it, where that is known.
func (s *Sink) explain(err error) error {
	if err == nil {
		return nil
	}
	if advice := s.advice(err); advice != "" {
		return fmt.Errorf("%w: %s", err, advice)
	}
	return err
}

func (s *Sink) advice(err error) string {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var op *net.OpError
	switch {
	case isAny(err, nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired):
		return "the server refused " + s.shown()
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server offers no TLS, which is required: turn it on there, or set allow_plaintext and no tls"
	case errors.As(err, &authority):
		return "the server's certificate is not signed by " + s.trusted()
	case errors.As(err, &host):
		return "set tls.server_name to a name of the server's certificate"
	// With TLS 1.3 the client learns of it after its own handshake, by an alert or by the end of the connection.
	case errors.As(err, &op) && op.Op == "remote error", errors.Is(err, nats.ErrTLS):
		return "the server ended the handshake; it may want another client certificate than " + s.certificate()
	case isAny(err, jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, nats.ErrNoResponders):
		return "turn JetStream on at the server and for the account"
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Sprintf("nobody answers at %s: check that the server runs, and urls", s.cfg.URLs)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v: JetStream has no leader, or the user may not use the subject $JS.API.>", dialTimeout)
	}
	return ""
}

func isAny(err error, list ...error) bool {
	for _, is := range list {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// shown says which credentials the server was shown, without their secrets.
func (s *Sink) shown() string {
	switch c := &s.cfg; {
	case c.CredentialsFile != "":
		return "the credentials of " + c.CredentialsFile
	case c.User != "":
		return fmt.Sprintf("the user %s with the password of %s", c.User, c.PasswordFile)
	case c.TokenFile != "":
		return "the token of " + c.TokenFile
	}
	return "a client without credentials: set credentials_file, user or token_file"
}

// trusted says which authorities are trusted.
func (s *Sink) trusted() string {
	if t := s.cfg.TLS; t != nil && t.CAFile != "" {
		return "an authority of " + t.CAFile
	}
	return "an authority that this system trusts: set tls.ca_file"
}

// certificate says which client certificate the server was shown.
func (s *Sink) certificate() string {
	if t := s.cfg.TLS; t != nil && t.CertificateFile != "" {
		return t.CertificateFile
	}
	return "none: set tls.certificate_file and tls.private_key_file"
}
