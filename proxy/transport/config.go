// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
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

// base is what clients and upstreams have in common.
func base(m *mesh.TLSContext) (*tls.Config, error) {
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
