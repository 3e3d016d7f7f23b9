// SPDX-License-Identifier: Apache-2.0

package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// defaultCiphers are the suites of TLS 1.2 where the configuration names none: Envoy's.
var defaultCiphers = [...]uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

// Base returns what both sides of a connection have in common, without anything that is verified.
func Base(m *mesh.TLSContext) (*tls.Config, error) {
	if len(m.CertificateSecrets) > 0 || m.ValidationSecret != "" {
		return nil, errors.New("its secrets are not there") // see WithSecrets
	}
	c := &tls.Config{
		MinVersion:   max(m.MinVersion, tls.VersionTLS12),
		MaxVersion:   m.MaxVersion,
		NextProtos:   slices.Clone(m.ALPN),
		CipherSuites: slices.Clone(m.CipherSuites),
		// Every record is a call of the system: those that begin small would cost an answer of 128 KiB eighty more.
		DynamicRecordSizingDisabled: true,
	}
	if c.MaxVersion != 0 && c.MaxVersion < c.MinVersion {
		return nil, errors.New("no version of TLS is left: the greatest is below the least")
	}
	if len(c.CipherSuites) == 0 {
		c.CipherSuites = defaultCiphers[:]
	}
	for _, g := range m.Groups {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(g))
	}
	for _, cert := range m.Certificates {
		own := tls.Certificate{PrivateKey: cert.Key, Leaf: cert.Chain[0]}
		for _, x := range cert.Chain {
			own.Certificate = append(own.Certificate, x.Raw)
		}
		c.Certificates = append(c.Certificates, own)
	}
	return c, nil
}

// Client returns what a client needs to connect to who m describes.
func Client(m *mesh.TLSContext) (*tls.Config, error) {
	c, err := Base(m)
	if err != nil {
		return nil, err
	}
	c.ServerName = m.SNI
	// crypto/tls would hold the certificate's names against the server name. Envoy asks for a good chain, and for the names
	// that the configuration lists; without any such list, and without roots, it takes any certificate.
	c.InsecureSkipVerify = true
	if m.Validation != nil {
		v, err := NewVerifier(m.Validation, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return nil, err
		}
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := v.Chain(cs); err != nil {
				return err
			}
			return v.Names(cs.PeerCertificates[0])
		}
	}
	if m.SessionKeys > 0 {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(m.SessionKeys)
	}
	return c, nil
}
