// SPDX-License-Identifier: Apache-2.0

package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// MaxChain bounds the certificates that the other side may send.
const MaxChain = 10

// What is wrong with the other side, where crypto/x509 does not say.
var (
	ErrChain  = fmt.Errorf("the certificate chain has more than %d certificates", MaxChain)
	ErrNoCert = errors.New("no certificate was shown")
	ErrSAN    = errors.New("none of the certificate's names is one that is asked for")
)

// Verifier decides which certificates of the other side are good.
type Verifier struct {
	// Roots are the authorities that a chain has to end at.
	Roots *x509.CertPool
	sans  []mesh.SANMatch
	usage x509.ExtKeyUsage
}

// NewVerifier returns what v asks for, of certificates for one use.
func NewVerifier(v *mesh.TLSValidation, usage x509.ExtKeyUsage) (*Verifier, error) {
	if len(v.Roots) == 0 {
		return nil, errors.New("no trusted certificate to verify with")
	}
	out := &Verifier{Roots: x509.NewCertPool(), sans: v.SANs, usage: usage}
	for _, c := range v.Roots {
		out.Roots.AddCert(c)
	}
	return out, nil
}

// Chain builds a chain from the certificates that were shown to one of the roots.
func (v *Verifier) Chain(cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return ErrNoCert
	}
	if len(certs) > MaxChain {
		return ErrChain
	}
	opts := x509.VerifyOptions{Roots: v.Roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{v.usage}}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	return nil
}

// Names tests the subject alternative names: one test has to hold for one name.
func (v *Verifier) Names(c *x509.Certificate) error {
	if len(v.sans) == 0 {
		return nil
	}
	for i := range v.sans {
		if matchesSAN(&v.sans[i], c) {
			return nil
		}
	}
	return ErrSAN
}

func matchesSAN(m *mesh.SANMatch, c *x509.Certificate) bool {
	if m.Type == mesh.SANDNS || m.Type == mesh.SANAny {
		for _, n := range c.DNSNames {
			if matchesDNS(&m.Match, n) {
				return true
			}
		}
	}
	if m.Type == mesh.SANURI || m.Type == mesh.SANAny {
		for _, u := range c.URIs {
			if m.Match.Test(u.String()) {
				return true
			}
		}
	}
	if m.Type == mesh.SANEmail || m.Type == mesh.SANAny {
		for _, e := range c.EmailAddresses {
			if m.Match.Test(e) {
				return true
			}
		}
	}
	if m.Type == mesh.SANIP || m.Type == mesh.SANAny {
		for _, ip := range c.IPAddresses {
			if m.Match.Test(ip.String()) {
				return true
			}
		}
	}
	return false
}

// matchesDNS lets a certificate for *.example.com stand for www.example.com where the test is for the whole name, as
// Envoy does. Case does not count then (RFC 6125 6.4.1).
func matchesDNS(m *mesh.StringMatch, name string) bool {
	if m.Kind != mesh.MatchExact {
		return m.Test(name)
	}
	want := strings.ToLower(m.Value)
	name = strings.ToLower(name)
	if name == want {
		return true
	}
	suffix, wild := strings.CutPrefix(name, "*")
	label, ok := strings.CutSuffix(want, suffix)
	return wild && ok && len(suffix) > 1 && suffix[0] == '.' && label != "" && !strings.Contains(label, ".")
}
