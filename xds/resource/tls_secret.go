// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"cmp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// filesOnce is said of a directory to be watched where nothing reads the files again.
const filesOnce = "not supported: files are read once, with the resource that names them; name a secret of sds_config to read them again"

// secret reads a secret. One of the bootstrap stays as it is; the files of others are read again when they change.
func (s *scope) secret(m *tlsv3.Secret) *mesh.Secret {
	out := &mesh.Secret{Name: m.GetName()}
	if m.GetName() == "" {
		s.errorf((*at)(nil).field("name"), "must not be empty")
	}
	var watched *corev3.WatchedDirectory
	var p *at
	switch x := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		p, watched = p.field("tls_certificate"), x.TlsCertificate.GetWatchedDirectory()
		out.Certificate = s.certificate(p, x.TlsCertificate)
		out.Files = filesOf(x.TlsCertificate.GetCertificateChain(), x.TlsCertificate.GetPrivateKey())
	case *tlsv3.Secret_ValidationContext:
		p, watched = p.field("validation_context"), x.ValidationContext.GetWatchedDirectory()
		out.Validation = s.validation(p, x.ValidationContext)
		out.Files = filesOf(x.ValidationContext.GetTrustedCa())
	case nil:
		s.errorf(p, "one of tls_certificate, validation_context is required")
	}
	out.Watched = watched.GetPath()
	switch {
	case watched == nil:
	case s.d.opt.Static:
		s.errorf(p.field("watched_directory"), filesOnce)
	case len(out.Files) == 0:
		s.notef(p.field("watched_directory"), "no effect: nothing of the secret is read from a file")
	}
	return out
}

// filesOf returns the files among data sources, each once.
func filesOf(list ...*corev3.DataSource) (out []string) {
	for _, d := range list {
		if f := d.GetFilename(); f != "" && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// unwatched refuses a directory to be watched outside of a secret.
func (s *scope) unwatched(p *at, d *corev3.WatchedDirectory) {
	if d != nil {
		s.errorf(p.field("watched_directory"), filesOnce)
	}
}

// secretKeys reads what names secrets in place of the certificates and of what verifies others.
func (s *scope) secretKeys(p *at, c *mesh.TLSContext, m *tlsv3.CommonTlsContext) {
	list := m.GetTlsCertificateSdsSecretConfigs()
	if len(list) > 0 && len(m.GetTlsCertificates()) > 0 {
		s.errorf(p.field("tls_certificate_sds_secret_configs"), "stands beside tls_certificates; one of the two is allowed")
	}
	for i, x := range list {
		c.CertificateSecrets = append(c.CertificateSecrets, s.secretKey(p.item("tls_certificate_sds_secret_configs", i), x, mesh.SecretCertificate))
	}
	switch x := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		c.ValidationSecret = s.secretKey(p.field("validation_context_sds_secret_config"), x.ValidationContextSdsSecretConfig, mesh.SecretValidation)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		p = p.field("combined_validation_context")
		def := x.CombinedValidationContext.GetDefaultValidationContext()
		s.unwatched(p.field("default_validation_context"), def.GetWatchedDirectory())
		c.Validation = s.partOfValidation(p.field("default_validation_context"), def)
		if d := x.CombinedValidationContext.GetValidationContextSdsSecretConfig(); d != nil { // the rules of the proto file ask for it
			c.ValidationSecret = s.secretKey(p.field("validation_context_sds_secret_config"), d, mesh.SecretValidation)
		}
	}
}

// secretKey reads the name of a secret, and where it comes from: without sds_config, from the bootstrap.
func (s *scope) secretKey(p *at, m *tlsv3.SdsSecretConfig, t mesh.SecretType) string {
	name := m.GetName()
	var key string
	if m.GetSdsConfig() != nil {
		key = s.from(p.field("sds_config"), mesh.KindSecret, name, "sds."+name, m.GetSdsConfig())
	} else {
		key = sourcekey.Join(name, sourcekey.Static)
		s.staticSecret(p, name, t)
	}
	s.parts = append(s.parts, mesh.PartRef{Kind: mesh.KindSecret, Key: key, Types: t.String()})
	return key
}

func (s *scope) staticSecret(p *at, name string, want mesh.SecretType) {
	names := sortedKeys(s.d.opt.Secrets)
	got, ok := s.d.opt.Secrets[name]
	switch {
	case name == "": // the rules of the proto file said so
	case !ok && nearest.Name(name, names) != "":
		s.errorf(p, "there is no secret %q in static_resources.secrets; did you mean %q?", name, nearest.Name(name, names))
	case !ok:
		s.errorf(p, "there is no secret %q in static_resources.secrets (%s), and without sds_config it comes from nowhere else",
			name, orNone(names))
	case got != want:
		s.errorf(p, "the secret %q is a %s; a %s is needed here", name, got, want)
	}
}

func uniqueParts(list []mesh.PartRef) []mesh.PartRef {
	slices.SortFunc(list, func(a, b mesh.PartRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Key, b.Key), strings.Compare(a.Types, b.Types))
	})
	return slices.Compact(list)
}

func addSecretFields(t *protofields.Table) {
	t.Add(&tlsv3.Secret{}, protofields.Honour("name", "tls_certificate", "validation_context"),
		protofields.Refuse("the keys of session tickets are made here and change daily", "session_ticket_keys"),
		protofields.Refuse("nothing here takes a generic_secret; supported: tls_certificate, validation_context", "generic_secret"))
	t.Add(&tlsv3.SdsSecretConfig{}, protofields.Honour("name", "sds_config"))
	t.Add(&tlsv3.CommonTlsContext_CombinedCertificateValidationContext{},
		protofields.Honour("default_validation_context", "validation_context_sds_secret_config"),
		protofields.Refuse(noProvider, "validation_context_certificate_provider", "validation_context_certificate_provider_instance"))
}
