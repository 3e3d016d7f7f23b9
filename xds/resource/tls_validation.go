// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto/x509"
	"encoding/pem"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// validation reads which certificates are good. There is always an authority: without one nothing would be verified,
// whatever else is said.
func (s *scope) validation(p *at, m *tlsv3.CertificateValidationContext) *mesh.TLSValidation {
	if m.GetTrustedCa() == nil {
		s.errorf(p.field("trusted_ca"), "is required: without it no certificate is verified")
		return &mesh.TLSValidation{}
	}
	return s.partOfValidation(p, m)
}

// partOfValidation reads the same of what a secret completes: the authority may be the secret's.
func (s *scope) partOfValidation(p *at, m *tlsv3.CertificateValidationContext) *mesh.TLSValidation {
	v := &mesh.TLSValidation{}
	if m.GetTrustedCa() != nil {
		cp := p.field("trusted_ca")
		if b := s.dataSource(cp, m.GetTrustedCa(), maxCertificateBytes); b != nil {
			v.Roots = s.authorities(cp, b)
		}
	}
	for i, sm := range m.GetMatchTypedSubjectAltNames() {
		mp := p.item("match_typed_subject_alt_names", i)
		v.SANs = append(v.SANs, mesh.SANMatch{Type: s.sanType(mp, sm.GetSanType()), Match: s.sanMatch(mp.field("matcher"), sm.GetMatcher())})
	}
	for i, sm := range m.GetMatchSubjectAltNames() {
		if len(m.GetMatchTypedSubjectAltNames()) > 0 {
			s.notef(p.field("match_subject_alt_names"), "match_typed_subject_alt_names counts, as in Envoy")
			break
		}
		v.SANs = append(v.SANs, mesh.SANMatch{Match: s.sanMatch(p.item("match_subject_alt_names", i), sm)})
	}
	return v
}

// authorities reads a bundle of certificates in PEM.
func (s *scope) authorities(p *at, b []byte) (out []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			s.errorf(p, "certificate %d of the bundle: %v", len(out)+1, err)
			return out
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		s.errorf(p, "holds no certificate in PEM")
	}
	return out
}

func (s *scope) sanType(p *at, t tlsv3.SubjectAltNameMatcher_SanType) mesh.SANType {
	switch t {
	case tlsv3.SubjectAltNameMatcher_EMAIL:
		return mesh.SANEmail
	case tlsv3.SubjectAltNameMatcher_DNS:
		return mesh.SANDNS
	case tlsv3.SubjectAltNameMatcher_URI:
		return mesh.SANURI
	case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
		return mesh.SANIP
	}
	s.errorf(p.field("san_type"), "%s is not supported; supported: EMAIL, DNS, URI, IP_ADDRESS", t)
	return mesh.SANAny
}

// sanMatch reads a test of a name. One that says nothing would hold for all names.
func (s *scope) sanMatch(p *at, m *matcherv3.StringMatcher) mesh.StringMatch {
	out := s.stringMatch(p, m)
	if out.Value == "" && out.Kind != mesh.MatchRegex {
		s.errorf(p, "must not be empty: it would hold for any name, or for none")
	}
	return out
}

func addTLSValidationFields(t *protofields.Table) {
	t.Add(&tlsv3.CertificateValidationContext{},
		protofields.Honour("trusted_ca", "match_typed_subject_alt_names", "match_subject_alt_names", "watched_directory"),
		protofields.Refuse(noProvider, "ca_certificate_provider_instance"),
		protofields.Refuse("the authorities of the system are not read; use trusted_ca", "system_root_certs"),
		protofields.Refuse("certificates are verified by trusted_ca", "verify_certificate_spki", "verify_certificate_hash"),
		protofields.Refuse("signed certificate timestamps are not looked at", "require_signed_certificate_timestamp=false"),
		protofields.Refuse("lists of revoked certificates are not looked at", "crl"),
		protofields.Refuse("an expired certificate is never good", "allow_expired_certificate=false"),
		protofields.Refuse("a certificate that is not verified is never good", "trust_chain_verification"),
		protofields.Refuse("validators such as SPIFFE's are not supported yet; use trusted_ca", "custom_validator_config"),
		protofields.Refuse("lists of revoked certificates are not looked at", "only_verify_leaf_cert_crl=false"),
		protofields.Refuse("a chain has ten certificates at most; leave it out", "max_verify_depth"),
		protofields.Refuse("clients are told the names of the authorities", "suppress_client_ca_list=false"))
	t.Add(&tlsv3.SubjectAltNameMatcher{}, protofields.Honour("san_type", "matcher"),
		protofields.Refuse("other names by OID are not supported", "oid"))
}
