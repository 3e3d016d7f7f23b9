// SPDX-License-Identifier: Apache-2.0

// Package login is what sinks have in common about who they are and whom they trust: secrets and certificates that stand
// in files, connections that use them, and the settings that name them, with the few others that many sinks have. Files
// are read when a connection is made, so that they can change.
package login

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// maxSecretMode is the widest mode of a file with a secret.
const maxSecretMode = 0o640

// Secret returns what a file holds, without the line break at its end. A file that is empty or that others may read is
// refused.
func Secret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if m := info.Mode().Perm(); m&^maxSecretMode != 0 {
		return "", fmt.Errorf("%s has the mode %#o, at most %#o is allowed for a secret", path, m, maxSecretMode)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return v, nil
}

// TLS names the files that a TLS connection needs, "" where it needs none. nil is the system's authorities and no client
// certificate.
type TLS struct{ CAFile, CertificateFile, KeyFile, ServerName string }

// Client reads the files and returns the settings of a client that connects to host, where no other name is configured.
func (t *TLS) Client(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t == nil {
		return c, nil
	}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		pool, err := t.Authorities()
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if t.CertificateFile != "" {
		pair, err := t.Certificate()
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Authorities reads the file of the authorities that are trusted.
func (t *TLS) Authorities() (*x509.CertPool, error) {
	b, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", t.CAFile)
	}
	return pool, nil
}

// Certificate reads the files of the client's certificate and its key.
func (t *TLS) Certificate() (tls.Certificate, error) {
	if _, err := Secret(t.KeyFile); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
	if err != nil {
		return tls.Certificate{}, errors.Join(fmt.Errorf("%s and %s are not a certificate and its key", t.CertificateFile, t.KeyFile), err)
	}
	return pair, nil
}

// Advice says what a person can do about an error of a handshake, or "".
func (t *TLS) Advice(err error) string {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &authority) && t != nil && t.CAFile != "":
		return "the server's certificate is not signed by an authority of " + t.CAFile
	case errors.As(err, &authority):
		return "the server's certificate is not signed by an authority that this system trusts: set tls.ca_file"
	case errors.As(err, &host):
		return "set tls.server_name to a name of the server's certificate"
	case errors.As(err, &record):
		return "the server speaks no TLS there, which is required: turn it on there, or set allow_plaintext and no tls"
	case errors.As(err, &op) && op.Op == "remote error":
		// With TLS 1.3 the client learns of it after its own handshake.
		cert := "none: set tls.certificate_file and tls.private_key_file"
		if t != nil && t.CertificateFile != "" {
			cert = t.CertificateFile
		}
		return "the server ended the handshake; it may want another client certificate than " + cert
	}
	return ""
}

// Local tells whether a host is this machine.
func Local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
