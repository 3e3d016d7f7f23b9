// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpccredv3 "github.com/envoyproxy/go-control-plane/envoy/config/grpc_credential/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meshtap/meshtap/internal/protofields"
)

// The names of the credentials factory that are known: none, and that of tokens in files.
const (
	fileTokens   = "envoy.grpc_credentials.file_based_metadata"
	fileTokenMsg = "envoy.config.grpc_credential.v3.FileBasedMetadataConfig"
)

// maxTokenBytes bounds a token: it is one header.
const maxTokenBytes = 16 << 10

// credentials reads the credentials of a gRPC client. All files are read once here, so that what is wrong with them is
// known at the start, and then anew for each connection.
func (s *scope) credentials(p *at, src *Source, m *corev3.GrpcService_GoogleGrpc) {
	cp := p.field("channel_credentials")
	if n := m.GetCredentialsFactoryName(); n != "" && n != fileTokens {
		s.errorf(p.field("credentials_factory_name"), "%q is not supported; supported: %s", n, fileTokens)
	}
	switch c := m.GetChannelCredentials().GetCredentialSpecifier().(type) {
	case *corev3.GrpcService_GoogleGrpc_ChannelCredentials_SslCredentials:
		sp := cp.field("ssl_credentials")
		s.ssl(sp, c.SslCredentials)
		src.Secure = func() (*tls.Config, error) {
			again := s.anew()
			return again.ssl(sp, c.SslCredentials), again.err()
		}
	case nil:
		if m.GetChannelCredentials() != nil {
			s.errorf(cp, "needs ssl_credentials; leave it out for plain text")
		}
	}
	if len(m.GetCallCredentials()) == 0 {
		return
	}
	tp := p.field("call_credentials")
	if m.GetChannelCredentials().GetSslCredentials() == nil {
		s.errorf(tp, "needs channel_credentials.ssl_credentials: a token is never sent in plain text")
		return
	}
	s.tokens(p, m.GetCallCredentials())
	src.Tokens = func() ([]Header, error) {
		again := s.anew()
		return again.tokens(p, m.GetCallCredentials()), again.err()
	}
}

// anew returns a scope for a part that is read once more.
func (s *scope) anew() *scope {
	return &scope{d: s.d, report: report{kind: s.report.kind, name: s.report.name}}
}

// ssl returns how TLS is spoken, as gRPC does it: the certificate is to be for the host of the target. Where no
// authorities are named, they are those of the system.
func (s *scope) ssl(p *at, m *corev3.GrpcService_GoogleGrpc_SslCredentials) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if m.GetRootCerts() != nil {
		rp := p.field("root_certs")
		if b := s.dataSource(rp, m.GetRootCerts(), maxCertificateBytes); b != nil {
			c.RootCAs = x509.NewCertPool()
			for _, a := range s.authorities(rp, b) {
				c.RootCAs.AddCert(a)
			}
		}
	}
	if m.GetCertChain() == nil && m.GetPrivateKey() == nil {
		return c
	}
	for field, d := range map[string]*corev3.DataSource{"cert_chain": m.GetCertChain(), "private_key": m.GetPrivateKey()} {
		if d == nil {
			s.errorf(p.field(field), "is required where the other one is there")
			return c
		}
	}
	own := s.certificate(p, &tlsv3.TlsCertificate{CertificateChain: m.GetCertChain(), PrivateKey: m.GetPrivateKey()})
	if own == nil {
		return c
	}
	pair := tls.Certificate{PrivateKey: own.Key, Leaf: own.Chain[0]}
	for _, x := range own.Chain {
		pair.Certificate = append(pair.Certificate, x.Raw)
	}
	c.Certificates = []tls.Certificate{pair}
	return c
}

// tokens reads the headers that say who we are.
func (s *scope) tokens(p *at, list []*corev3.GrpcService_GoogleGrpc_CallCredentials) (out []Header) {
	for i, m := range list {
		ip := p.item("call_credentials", i)
		switch c := m.GetCredentialSpecifier().(type) {
		case *corev3.GrpcService_GoogleGrpc_CallCredentials_AccessToken:
			out = append(out, Header{"authorization", "Bearer " + s.token(ip.field("access_token"), c.AccessToken)})
		case *corev3.GrpcService_GoogleGrpc_CallCredentials_FromPlugin:
			fp := ip.field("from_plugin")
			t := unwrap(c.FromPlugin.GetTypedConfig())
			f := &grpccredv3.FileBasedMetadataConfig{}
			if t.name != fileTokenMsg {
				s.errorf(fp.field("typed_config"), "%s is not supported; supported: %s", orDefault(t.name, "a plugin without a type"), fileTokenMsg)
				continue
			}
			if !s.message(fp.field("typed_config"), t, f) {
				continue
			}
			dp := fp.field("typed_config").field("secret_data")
			if f.GetSecretData() == nil {
				s.errorf(dp, isRequired)
				continue
			}
			if b := s.dataSource(dp, f.GetSecretData(), maxTokenBytes); b != nil {
				name := strings.ToLower(orDefault(f.GetHeaderKey(), "authorization"))
				out = append(out, Header{name, f.GetHeaderPrefix() + s.token(dp, string(b))})
			}
		case nil:
			s.errorf(ip, "needs access_token or from_plugin")
		}
	}
	return out
}

// token returns a token without the line's end that files have.
func (s *scope) token(p *at, text string) string {
	text = strings.TrimRight(text, "\r\n")
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		s.errorf(p, "must have at least one character, and only those of ASCII that can be printed")
	}
	return text
}

func addCredentialFields(t *protofields.Table) {
	t.Add(&corev3.GrpcService_GoogleGrpc_ChannelCredentials{}, protofields.Honour("ssl_credentials"),
		protofields.Refuse("use ssl_credentials, with root_certs", "google_default", "local_credentials"))
	t.Add(&corev3.GrpcService_GoogleGrpc_SslCredentials{}, protofields.Honour("root_certs", "private_key", "cert_chain"))
	t.Add(&corev3.GrpcService_GoogleGrpc_CallCredentials{}, protofields.Honour("access_token", "from_plugin"),
		protofields.Refuse("tokens are not fetched from others here; use access_token, or from_plugin with a file", "google_compute_engine",
			"google_refresh_token", "service_account_jwt_access", "google_iam", "sts_service"))
	t.Add(&corev3.GrpcService_GoogleGrpc_CallCredentials_MetadataCredentialsFromPlugin{},
		protofields.Honour("typed_config"), protofields.Ignore("the type says which plugin it is", "name"))
	t.Add(&grpccredv3.FileBasedMetadataConfig{}, protofields.Honour("secret_data", "header_key", "header_prefix"))
}
