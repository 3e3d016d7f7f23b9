// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/transport"
)

// A chain whose certificate has not come closes its connections at once, without a word and with one Outcome each. Once the
// certificate is there, the next one is served; nothing is built anew.
func TestChainWithoutItsSecret(t *testing.T) {
	t.Parallel()
	secrets := transport.NewSecrets()
	r := newRig(t, func(c *Config) { c.Secrets = secrets })
	ca := testcert.New(t)
	fc := chainOf("a", toyKind{banner: "220 hello"})
	fc.TLS = &mesh.TLSContext{CertificateSecrets: []string{"cert"}}
	l := plain("l", fc)
	r.apply(l)
	for i, say := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00"} {
		c := r.dial("l")
		c.send(say)
		c.wantEnd()
		o := r.waitOutcomes(i + 1)[i]
		if o.Details != "secrets_not_ready" || !strings.Contains(o.DownstreamTransportFailure, "Secret is not supplied by SDS") || o.Failure != mesh.DownstreamProtocolError {
			t.Errorf("after %q: %+v", say, o)
		}
	}
	if n := r.stat(l, "server_ssl_socket_factory.downstream_context_secrets_not_ready"); n != 3 {
		t.Errorf("%d were counted, want 3", n)
	}
	p := ca.Issue(t, "a.test")
	secrets.Set("cert", &mesh.Secret{Name: "cert", Certificate: &mesh.TLSCertificate{Chain: []*x509.Certificate{p.Leaf}, Key: p.PrivateKey.(crypto.Signer)}})
	c := r.dialTLS("l", ca, "a.test")
	c.want("220 hello")
	c.Close()
	r.waitClosed()
	if n := r.stat(l, "server_ssl_socket_factory.ssl_context_update_by_sds"); n != 1 {
		t.Errorf("%d updates, want 1", n)
	}
}
