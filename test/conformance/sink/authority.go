// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
)

// Authority signs certificates for a test, and writes them to files.
type Authority struct {
	// File holds the authority's certificate, in PEM.
	File string
	ca   *testcert.Authority
}

// NewAuthority makes an authority that nobody else trusts.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	ca := testcert.New(t)
	return &Authority{File: WriteFile(t, string(ca.PEM), 0o644), ca: ca}
}

// issue makes a certificate for 127.0.0.1 and localhost, for servers and clients.
func (a *Authority) issue(t testing.TB) *testcert.Pair {
	t.Helper()
	return a.ca.Issue(t, "127.0.0.1", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
}

// Issue returns the files of a certificate for 127.0.0.1 and localhost, for servers and clients, and of its key.
func (a *Authority) Issue(t testing.TB) (cert, key string) {
	t.Helper()
	p := a.issue(t)
	return WriteFile(t, string(p.CertPEM), 0o644), WriteFile(t, string(p.KeyPEM), 0o600)
}

// Server returns the settings of a server whose clients must show a certificate of this authority.
func (a *Authority) Server(t testing.TB) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.issue(t).Certificate}, ClientCAs: a.ca.Pool(),
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
}

// WriteFile writes a file of the test's own, and returns its path.
func WriteFile(t testing.TB, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}
