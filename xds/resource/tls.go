// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

const (
	rawBufferType     = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
	downstreamTLSType = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
	upstreamTLSType   = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
)

// The most that is read of a certificate chain or a bundle of authorities, and of a key, in bytes.
const (
	maxCertificateBytes = 1 << 20
	maxKeyBytes         = 64 << 10
)

// defaultSessionKeys is how many sessions with upstreams are kept: Envoy keeps one for a context; a cluster has hosts.
const defaultSessionKeys = 1

// transportSocket reads a transport socket of a filter chain or, with upstream, of a cluster; nil is plain text. What it
// cannot read must not be taken for plain text: it is an error then.
func (s *scope) transportSocket(p *at, m *corev3.TransportSocket, upstream bool) *mesh.TLSContext {
	if m == nil {
		return nil
	}
	p = p.field("typed_config")
	t := unwrap(m.GetTypedConfig())
	want := downstreamTLSType
	if upstream {
		want = upstreamTLSType
	}
	switch {
	case t.name == rawBufferType:
		s.message(p, t, &rawbufferv3.RawBuffer{})
	case t.name != want:
		s.errorf(p, "%s is not supported here; supported: %s, %s", orDefault(t.name, "a transport socket without a type"),
			want, rawBufferType)
	case upstream:
		m := &tlsv3.UpstreamTlsContext{}
		if s.message(p, t, m) {
			return s.upstreamTLS(p, m)
		}
	default:
		m := &tlsv3.DownstreamTlsContext{}
		if s.message(p, t, m) {
			return s.downstreamTLS(p, m)
		}
	}
	return nil
}

func (s *scope) downstreamTLS(p *at, m *tlsv3.DownstreamTlsContext) *mesh.TLSContext {
	cp := p.field("common_tls_context")
	common := m.GetCommonTlsContext()
	c := s.commonTLS(cp, common)
	c.RequireClientCertificate = m.GetRequireClientCertificate().GetValue()
	c.NoTickets = m.GetDisableStatelessSessionResumption()
	if len(common.GetTlsCertificates())+len(common.GetTlsCertificateSdsSecretConfigs()) == 0 {
		s.errorf(cp.field("tls_certificates"), "must have at least 1 item: there is nothing to show to clients")
	}
	if c.RequireClientCertificate && common.GetValidationContextType() == nil {
		// Envoy takes any certificate then, which looks like a protection and is none.
		s.errorf(cp.field("validation_context"), "is required, with trusted_ca, where require_client_certificate is set")
	}
	return c
}

func (s *scope) upstreamTLS(p *at, m *tlsv3.UpstreamTlsContext) *mesh.TLSContext {
	cp := p.field("common_tls_context")
	c := s.commonTLS(cp, m.GetCommonTlsContext())
	c.SNI = m.GetSni()
	c.SessionKeys = int(uint32Or(m.GetMaxSessionKeys(), defaultSessionKeys))
	for field, n := range map[string]int{
		"tls_certificates": len(c.Certificates), "tls_certificate_sds_secret_configs": len(c.CertificateSecrets),
	} {
		if n > 1 {
			s.errorf(cp.field(field), "a cluster has one certificate at most")
		}
	}
	if strings.ContainsAny(c.SNI, " \t\r\n\x00:/") {
		s.errorf(p.field("sni"), "%q is not a host name", c.SNI)
	}
	if m.GetCommonTlsContext().GetValidationContextType() == nil {
		s.notef(cp.field("validation_context"), "is not set: any certificate of an upstream is accepted, as in Envoy; "+
			"set trusted_ca to verify it")
	}
	return c
}

func (s *scope) commonTLS(p *at, m *tlsv3.CommonTlsContext) *mesh.TLSContext {
	c := &mesh.TLSContext{ALPN: m.GetAlpnProtocols(), MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}
	for i, a := range c.ALPN {
		if a == "" || len(a) > 255 {
			s.errorf(p.item("alpn_protocols", i), "must have 1 to 255 bytes (RFC 7301)")
		}
	}
	for i, cert := range m.GetTlsCertificates() {
		s.unwatched(p.item("tls_certificates", i), cert.GetWatchedDirectory())
		if x := s.certificate(p.item("tls_certificates", i), cert); x != nil {
			c.Certificates = append(c.Certificates, x)
		}
	}
	if v := m.GetValidationContext(); v != nil {
		s.unwatched(p.field("validation_context"), v.GetWatchedDirectory())
		c.Validation = s.validation(p.field("validation_context"), v)
	}
	s.secretKeys(p, c, m)
	s.tlsParams(p.field("tls_params"), c, m.GetTlsParams())
	return c
}

// certificate reads a certificate with its key, which must belong together.
func (s *scope) certificate(p *at, m *tlsv3.TlsCertificate) *mesh.TLSCertificate {
	if m.GetCertificateChain() == nil || m.GetPrivateKey() == nil {
		for field, d := range map[string]*corev3.DataSource{"certificate_chain": m.GetCertificateChain(), "private_key": m.GetPrivateKey()} {
			if d == nil {
				s.errorf(p.field(field), isRequired)
			}
		}
		return nil
	}
	before := len(s.errs)
	chain := s.dataSource(p.field("certificate_chain"), m.GetCertificateChain(), maxCertificateBytes)
	key := s.dataSource(p.field("private_key"), m.GetPrivateKey(), maxKeyBytes)
	if len(s.errs) > before {
		return nil
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		s.errorf(p, "%s", strings.TrimPrefix(err.Error(), "tls: "))
		return nil
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		s.errorf(p.field("private_key"), "a key of this kind cannot sign")
		return nil
	}
	out := &mesh.TLSCertificate{Key: signer}
	for i, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			s.errorf(p.field("certificate_chain"), "certificate %d: %v", i+1, err)
			return nil
		}
		out.Chain = append(out.Chain, c)
	}
	return out
}

// tlsVersions are the versions that are spoken.
var tlsVersions = map[tlsv3.TlsParameters_TlsProtocol]uint16{
	tlsv3.TlsParameters_TLSv1_2: tls.VersionTLS12,
	tlsv3.TlsParameters_TLSv1_3: tls.VersionTLS13,
}

// tlsCiphers are OpenSSL's names of the suites of TLS 1.2 that are spoken. Those of TLS 1.3 are not a choice, as in Envoy.
var tlsCiphers = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

var tlsGroups = map[string]uint16{
	"X25519": uint16(tls.X25519), "P-256": uint16(tls.CurveP256), "P-384": uint16(tls.CurveP384), "P-521": uint16(tls.CurveP521),
	"X25519MLKEM768": uint16(tls.X25519MLKEM768),
}

func (s *scope) tlsParams(p *at, c *mesh.TLSContext, m *tlsv3.TlsParameters) {
	c.MinVersion = s.tlsVersion(p, "tls_minimum_protocol_version", m.GetTlsMinimumProtocolVersion(), c.MinVersion)
	c.MaxVersion = s.tlsVersion(p, "tls_maximum_protocol_version", m.GetTlsMaximumProtocolVersion(), c.MaxVersion)
	if c.MinVersion > c.MaxVersion {
		s.errorf(p.field("tls_minimum_protocol_version"), "is above tls_maximum_protocol_version: no version is left")
	}
	for i, name := range m.GetCipherSuites() {
		c.CipherSuites = append(c.CipherSuites, s.tlsNames(p.item("cipher_suites", i), name, tlsCiphers)...)
	}
	if len(c.CipherSuites) > 1 {
		s.notef(p.field("cipher_suites"), "their order does not count: of those that both sides have, the fastest safe one is taken")
	}
	for i, name := range m.GetEcdhCurves() {
		c.Groups = append(c.Groups, s.tlsNames(p.item("ecdh_curves", i), name, tlsGroups)...)
	}
}

func (s *scope) tlsVersion(p *at, field string, v tlsv3.TlsParameters_TlsProtocol, def uint16) uint16 {
	if v == tlsv3.TlsParameters_TLS_AUTO {
		return def
	}
	n, ok := tlsVersions[v]
	if !ok {
		s.errorf(p.field(field), "%s is not supported; supported: TLSv1_2, TLSv1_3", v)
		return def
	}
	return n
}

// tlsNames reads one entry of a list: a name, or [A|B] for several that are equally good.
func (s *scope) tlsNames(p *at, entry string, known map[string]uint16) (out []uint16) {
	names := entry
	if group, ok := strings.CutPrefix(entry, "["); ok {
		names, _ = strings.CutSuffix(group, "]")
	}
	for _, name := range strings.Split(names, "|") {
		id, ok := known[name]
		if !ok {
			s.errorf(p, "%q is not supported; supported: %s", name, strings.Join(sortedKeys(known), ", "))
			return nil
		}
		out = append(out, id)
	}
	return out
}

// autoSNI refuses a server name, and names to verify, that come from each request. Without TLS there is no effect.
func (s *scope) autoSNI(p *at, m *clusterv3.Cluster, secure bool) {
	options := map[*at]*corev3.UpstreamHttpProtocolOptions{p.field("upstream_http_protocol_options"): m.GetUpstreamHttpProtocolOptions()}
	for key, a := range m.GetTypedExtensionProtocolOptions() {
		o := &upstreamhttpv3.HttpProtocolOptions{}
		if t := unwrap(a); isType(t, o) && proto.Unmarshal(t.value, o) == nil {
			op := p.entry("typed_extension_protocol_options", key).field("upstream_http_protocol_options")
			options[op] = o.GetUpstreamHttpProtocolOptions()
		}
	}
	for op, o := range options {
		switch {
		case o == nil:
		case !secure:
			s.notef(op, "no effect: this cluster does not speak TLS")
		case o.GetAutoSni():
			s.errorf(op.field("auto_sni"), "not supported: one server name is sent for all requests; set sni in the transport socket")
		case o.GetAutoSanValidation():
			s.errorf(op.field("auto_san_validation"), "not supported; set match_typed_subject_alt_names in the transport socket")
		case o.GetOverrideAutoSniHeader() != "":
			s.notef(op.field("override_auto_sni_header"), "no effect without auto_sni, as in Envoy")
		}
	}
}

const (
	noProvider = "certificate providers are not supported; use tls_certificates and validation_context"
)

func addTLSFields(t *protofields.Table) {
	t.Add(&rawbufferv3.RawBuffer{})
	t.Add(&tlsv3.DownstreamTlsContext{},
		protofields.Honour("common_tls_context", "require_client_certificate", "disable_stateless_session_resumption"),
		protofields.Ignore("sessions are kept by clients, in tickets", "disable_stateful_session_resumption"),
		protofields.Ignore("of the suites that both sides have, the fastest safe one is taken", "prefer_client_ciphers"),
		protofields.Ignore("a certificate without a staple is shown as it is", "ocsp_staple_policy"),
		protofields.Refuse("Envoy does not implement it either", "require_sni=false"),
		protofields.Refuse("the keys of session tickets are made here and change daily; leave it out", "session_ticket_keys",
			"session_ticket_keys_sds_secret_config"),
		protofields.Refuse("tickets are good for at most seven days; leave it out", "session_timeout"),
		protofields.Refuse("a client that asks for another name is shown the first certificate", "full_scan_certs_on_sni_mismatch=false"))
	t.Add(&tlsv3.UpstreamTlsContext{},
		protofields.Honour("common_tls_context", "sni", "max_session_keys"),
		protofields.Refuse("it is not safe, and not supported", "allow_renegotiation=false"),
		protofields.Refuse("set sni; the server name is that of the cluster", "auto_host_sni=false", "auto_sni_san_validation=false"),
		protofields.Refuse("the key usage of certificates is not looked at; leave it out", "enforce_rsa_key_usage=false"))
	t.Add(&tlsv3.CommonTlsContext{},
		protofields.Honour("tls_params", "tls_certificates", "validation_context", "alpn_protocols",
			"tls_certificate_sds_secret_configs", "validation_context_sds_secret_config", "combined_validation_context"),
		protofields.Refuse(noProvider, "tls_certificate_provider_instance", "tls_certificate_certificate_provider",
			"tls_certificate_certificate_provider_instance", "validation_context_certificate_provider",
			"validation_context_certificate_provider_instance"),
		protofields.Refuse("certificates are chosen by server name", "custom_tls_certificate_selector"),
		protofields.Refuse("handshakers are not supported", "custom_handshaker"),
		protofields.Refuse("keys of connections are never written anywhere", "key_log"))
	t.Add(&tlsv3.TlsParameters{},
		protofields.Honour("tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves"),
		protofields.Refuse("the signature algorithms are not a choice; leave it out", "signature_algorithms"),
		protofields.Refuse("compliance policies are not supported; name the suites and curves", "compliance_policies"))
	t.Add(&tlsv3.TlsCertificate{},
		protofields.Honour("certificate_chain", "private_key", "watched_directory"),
		protofields.Refuse("use certificate_chain and private_key", "pkcs12"),
		protofields.Refuse("private key providers are not supported", "private_key_provider"),
		protofields.Refuse("encrypted keys are not supported", "password"),
		protofields.Refuse("OCSP stapling is not supported", "ocsp_staple"),
		protofields.Refuse("signed certificate timestamps are not shown", "signed_certificate_timestamp"),
		protofields.Refuse("they stand beside tls_certificates", "tls_params"))
}
