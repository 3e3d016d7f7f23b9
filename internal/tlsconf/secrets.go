// SPDX-License-Identifier: Apache-2.0

package tlsconf

import (
	"fmt"

	"github.com/meshtap/meshtap/mesh"
)

// WithSecrets returns a context with what its secrets hold in place of their names: the certificates in the order of
// m.CertificateSecrets, and what others are verified by, which is nil where m.ValidationSecret is "". None of the others
// may be nil.
func WithSecrets(m *mesh.TLSContext, certificates []*mesh.Secret, validation *mesh.Secret) (*mesh.TLSContext, error) {
	out := *m
	out.CertificateSecrets, out.ValidationSecret = nil, ""
	if len(certificates) > 0 {
		out.Certificates = nil
	}
	for _, s := range certificates {
		if s.Certificate == nil {
			return nil, fmt.Errorf("the secret %q is a %v; a %v is needed", s.Name, s.Type(), mesh.SecretCertificate)
		}
		out.Certificates = append(out.Certificates, s.Certificate)
	}
	if validation == nil {
		return &out, nil
	}
	if validation.Validation == nil {
		return nil, fmt.Errorf("the secret %q is a %v; a %v is needed", validation.Name, validation.Type(), mesh.SecretValidation)
	}
	out.Validation = together(m.Validation, validation.Validation)
	return &out, nil
}

// together adds what a secret says to what stands beside its name, as Envoy merges the two messages: the secret's
// authorities count, and the names of both are good. Tests of a type of names replace those of any type.
func together(beside, secret *mesh.TLSValidation) *mesh.TLSValidation {
	if beside == nil {
		return secret
	}
	out := &mesh.TLSValidation{Roots: secret.Roots}
	var any []mesh.SANMatch
	for _, list := range [][]mesh.SANMatch{beside.SANs, secret.SANs} {
		for _, s := range list {
			if s.Type == mesh.SANAny {
				any = append(any, s)
			} else {
				out.SANs = append(out.SANs, s)
			}
		}
	}
	if len(out.SANs) == 0 {
		out.SANs = any
	}
	return out
}
