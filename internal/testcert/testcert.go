// SPDX-License-Identifier: Apache-2.0

// Package testcert makes certificates for tests: an authority, and what it signs. Keys are made anew each time and are
// good for nothing else.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	// PEM is the certificate.
	PEM []byte
	key *ecdsa.PrivateKey
}

// Pair is a certificate with its key.
type Pair struct {
	tls.Certificate
	CertPEM, KeyPEM []byte
}

// New returns an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t)}
	m := template("authority")
	m.IsCA, m.BasicConstraintsValid, m.KeyUsage = true, true, x509.KeyUsageCertSign
	m.ExtKeyUsage = nil
	a.Certificate, a.PEM = sign(t, m, m, &a.key.PublicKey, a.key)
	return a
}

// Change changes what is signed.
type Change func(*x509.Certificate)

// Expired makes a certificate whose time is over.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

// ForServers makes a certificate that is not for clients.
func ForServers(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

// URI adds a name such as spiffe://mesh/ns/default.
func URI(uri string) Change {
	return func(c *x509.Certificate) {
		u, err := url.Parse(uri)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
}

// Issue returns a certificate for a DNS name or an IP address, for servers and clients.
func (a *Authority) Issue(t testing.TB, name string, changes ...Change) *Pair {
	t.Helper()
	key := newKey(t)
	m := template(name)
	if ip := net.ParseIP(name); ip != nil {
		m.IPAddresses = []net.IP{ip}
	} else {
		m.DNSNames = []string{name}
	}
	for _, change := range changes {
		change(m)
	}
	leaf, certPEM := sign(t, m, a.Certificate, &key.PublicKey, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Pair{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		CertPEM:     certPEM,
		KeyPEM:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
}

// Pool returns the authority as what others trust.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"test"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func sign(t testing.TB, m, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, m, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
