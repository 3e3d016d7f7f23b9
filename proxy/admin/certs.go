// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"crypto/x509"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/internal/certs"
)

// certificatesJSON is envoy.admin.v3.Certificate: what one secret, or one resource, has in force.
type certificatesJSON struct {
	Authorities []certificateJSON `json:"ca_cert"`
	Chains      []certificateJSON `json:"cert_chain"`
}

// certificateJSON is envoy.admin.v3.CertificateDetails. Path says where it comes from: a file, a secret, or a resource.
type certificateJSON struct {
	Path      string         `json:"path"`
	Serial    string         `json:"serial_number"`
	Names     []certNameJSON `json:"subject_alt_names"`
	Days      string         `json:"days_until_expiration"`
	ValidFrom time.Time      `json:"valid_from"`
	Expires   time.Time      `json:"expiration_time"`
}

type certNameJSON struct {
	DNS   string `json:"dns,omitempty"`
	URI   string `json:"uri,omitempty"`
	IP    string `json:"ip_address,omitempty"`
	Email string `json:"email,omitempty"`
}

// certs lists the certificates in force.
func (s *Server) certs(*request) (*answer, error) {
	now := time.Now()
	out := []certificatesJSON{}
	for _, u := range s.views.Certificates() {
		c := certificatesJSON{[]certificateJSON{}, []certificateJSON{}}
		path := cmp.Or(u.Resource, "secret "+strconv.Quote(u.Secret))
		for _, x := range u.Authorities {
			c.Authorities = append(c.Authorities, certificateOf(now, path, []*x509.Certificate{x}))
		}
		for _, chain := range u.Chains {
			c.Chains = append(c.Chains, certificateOf(now, path, chain))
		}
		out = append(out, c)
	}
	return jsonAnswer(struct {
		Certificates []certificatesJSON `json:"certificates"`
	}{out})
}

// certificateOf describes the first certificate of a chain; what counts of the days is the one that ends first.
func certificateOf(now time.Time, path string, chain []*x509.Certificate) certificateJSON {
	x := chain[0]
	c := certificateJSON{
		Path: path, Serial: certs.Serial(x), Names: []certNameJSON{}, ValidFrom: x.NotBefore.UTC(), Expires: x.NotAfter.UTC(),
		Days: strconv.FormatInt(max(0, int64(certs.Soonest(chain).NotAfter.Sub(now)/(24*time.Hour))), 10),
	}
	for _, n := range x.DNSNames {
		c.Names = append(c.Names, certNameJSON{DNS: n})
	}
	for _, n := range x.URIs {
		c.Names = append(c.Names, certNameJSON{URI: n.String()})
	}
	for _, n := range x.IPAddresses {
		c.Names = append(c.Names, certNameJSON{IP: n.String()})
	}
	for _, n := range x.EmailAddresses {
		c.Names = append(c.Names, certNameJSON{Email: n})
	}
	return c
}
