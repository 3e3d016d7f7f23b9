// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// DefaultWithin is how long before its end a certificate is told of.
const DefaultWithin = 7 * 24 * time.Hour

// Watch finds certificates whose time is nearly over, each once as long as it is in force. The zero value tells of none but
// those whose time is over.
type Watch struct {
	// Within is how long before its end a certificate is told of.
	Within time.Duration
	told   map[[sha256.Size]byte]bool
}

// Due returns what is to be told at now. What is not in force any more is forgotten.
func (w *Watch) Due(now time.Time, list []Use) []mesh.CertificateNotice {
	var out []mesh.CertificateNotice
	told := map[[sha256.Size]byte]bool{}
	look := func(u *Use, t mesh.SecretType, c *x509.Certificate) {
		id := sha256.Sum256(c.Raw)
		if c.NotAfter.Sub(now) > w.Within || told[id] {
			return
		}
		told[id] = true
		if w.told[id] {
			return
		}
		n := Notice(c)
		n.Secret, n.Resource, n.Type = u.Secret, u.Resource, t
		out = append(out, n)
	}
	for i := range list {
		u := &list[i]
		for _, chain := range u.Chains {
			for _, c := range chain {
				look(u, mesh.SecretCertificate, c)
			}
		}
		for _, c := range u.Authorities {
			look(u, mesh.SecretValidation, c)
		}
	}
	w.told = told
	return out
}
