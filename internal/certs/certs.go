// SPDX-License-Identifier: Apache-2.0

// Package certs says which certificates a configuration has in force, and when their time is nearly over. It reads no clock.
// Package xds tells of rotations with it, the process of the end of certificates, and /certs shows them.
package certs

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// Use is one place that has certificates in force: a secret, or a transport socket that holds its own.
type Use struct {
	// Secret is the name of the secret, or Resource such as `listener "web"` holds them itself.
	Secret, Resource string
	// Authorities are what others are verified by; Chains are our own, each with its leaf first.
	Authorities []*x509.Certificate
	Chains      [][]*x509.Certificate
}

// InForce returns the certificates of a snapshot and of secrets, in a fixed order.
func InForce(s *mesh.Snapshot, secrets []*mesh.Secret) []Use {
	var out []Use
	for _, x := range secrets {
		u := Use{Secret: x.Name}
		u.add(x.Certificate, x.Validation)
		out = append(out, u)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Listeners)) {
		l := s.Listeners[name]
		u := Use{Resource: fmt.Sprintf("%v %q", mesh.KindListener, name)}
		for _, c := range append(slices.Clip(l.Chains), l.DefaultChain) {
			if c != nil {
				u.context(c.TLS)
			}
		}
		out = u.appendTo(out)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Clusters)) {
		u := Use{Resource: fmt.Sprintf("%v %q", mesh.KindCluster, name)}
		u.context(s.Clusters[name].TLS)
		out = u.appendTo(out)
	}
	return out
}

func (u *Use) appendTo(out []Use) []Use {
	if len(u.Authorities)+len(u.Chains) == 0 {
		return out
	}
	return append(out, *u)
}

func (u *Use) context(c *mesh.TLSContext) {
	if c == nil {
		return
	}
	for _, cert := range c.Certificates {
		u.add(cert, nil)
	}
	u.add(nil, c.Validation)
}

func (u *Use) add(c *mesh.TLSCertificate, v *mesh.TLSValidation) {
	if c != nil {
		u.Chains = append(u.Chains, c.Chain)
	}
	if v != nil {
		u.Authorities = append(u.Authorities, v.Roots...)
	}
}

// First returns the certificate that stands for a secret: its own, or the authority whose time is over first.
func First(s *mesh.Secret) *x509.Certificate {
	if s.Certificate != nil {
		return s.Certificate.Chain[0]
	}
	return Soonest(s.Validation.Roots)
}

// Soonest returns the certificate whose time is over first, nil of none.
func Soonest(list []*x509.Certificate) *x509.Certificate {
	if len(list) == 0 {
		return nil
	}
	return slices.MinFunc(list, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// Serial returns a certificate's number in hexadecimal digits.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// Notice describes a certificate for observers.
func Notice(c *x509.Certificate) mesh.CertificateNotice {
	return mesh.CertificateNotice{Subject: c.Subject.String(), Serial: Serial(c), NotAfter: c.NotAfter.UnixNano()}
}
