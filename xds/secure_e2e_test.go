// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
)

// keys are the certificates of a control plane and of a proxy that pins its name, the latter in files.
type keys struct {
	authority *testcert.Authority
	dir       string
}

const planeName = "spiffe://mesh/control"

func newKeys(t *testing.T, dir string) *keys {
	k := &keys{testcert.New(t), dir}
	k.write(t, k.authority.Issue(t, "proxy.example"))
	return k
}

// write puts a certificate of the proxy into its files.
func (k *keys) write(t *testing.T, own *testcert.Pair) {
	t.Helper()
	for name, b := range map[string][]byte{"ca.pem": k.authority.PEM, "own.pem": own.CertPEM, "own.key": own.KeyPEM} {
		if err := os.WriteFile(filepath.Join(k.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// issue makes the certificate of a control plane.
func (k *keys) issue(t *testing.T, changes ...testcert.Change) *testcert.Pair {
	return k.authority.Issue(t, "control.example", append([]testcert.Change{testcert.URI(planeName)}, changes...)...)
}

// server is how a control plane speaks TLS: it asks for a certificate of the authority.
func (k *keys) server(p *testcert.Pair) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.Certificate}, ClientCAs: k.authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
}

// socket is what a cluster of the bootstrap says of it.
func (k *keys) socket() string {
	if k == nil {
		return ""
	}
	return fmt.Sprintf(`, transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
      sni: control.example, common_tls_context: {alpn_protocols: [h2],
      tls_certificates: [{certificate_chain: {filename: %[1]s/own.pem}, private_key: {filename: %[1]s/own.key}}],
      validation_context: {trusted_ca: {filename: %[1]s/ca.pem}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%[2]s"}}]}}}}`, k.dir, planeName)
}

// TestRogueControlPlane (F08): a control plane that takes the place of the right one, with another name, an expired certificate
// or without TLS, is refused by every protocol; what is in force stays, and the status says why. The right one is taken again.
func TestRogueControlPlane(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"TLS ADS GRPC", "TLS ADS DELTA_GRPC", "TLS GRPC", "TLS DELTA_GRPC"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			good, bad := one(1, "a"), one(50, "b")
			w.push("1", good)
			w.untilInForce(good)
			right := w.cp.TLS()
			for _, rogue := range []struct {
				config *tls.Config
				want   string
			}{
				{w.keys.server(w.keys.authority.Issue(t, "control.example", testcert.URI("spiffe://mesh/rogue"))), "SAN matcher; its certificate is for [\"spiffe://mesh/rogue\""},
				{w.keys.server(w.keys.issue(t, testcert.Expired)), "the certificate has expired"},
				{nil, "the other side does not speak TLS"},
			} {
				w.cp.Kill()
				_, streams := w.cp.Counts()
				w.cp.SetTLS(rogue.config)
				w.push("2", bad)
				w.cp.Restart()
				w.degraded(mode, rogue.want)
				if _, now := w.cp.Counts(); now != streams {
					t.Errorf("%d streams have reached it", now-streams)
				}
			}
			if w.proxy.last == nil || w.inForce(w.proxy.last) != good.text() {
				t.Errorf("in force: %s", w.inForce(w.proxy.last))
			}
			w.cp.Kill()
			w.cp.SetTLS(right)
			w.cp.Restart()
			w.untilInForce(bad)
		})
	}
}

// TestCertificatesAreReadAnew: a proxy whose certificate is not good any more is let in again once its files hold another
// one. Files that do not belong together change nothing.
func TestCertificatesAreReadAnew(t *testing.T) {
	t.Parallel()
	w := startMode(t, "TLS ADS GRPC")
	w.push("1", one(1, "a"))
	w.untilInForce(one(1, "a"))
	w.cp.Kill()
	other := newKeys(t, t.TempDir())
	w.cp.SetTLS(&tls.Config{
		Certificates: []tls.Certificate{w.keys.issue(t).Certificate}, ClientCAs: other.authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	})
	w.push("2", one(2, "a"))
	w.cp.Restart()
	w.degraded("another authority", "unknown certificate authority")
	for name, b := range map[string][]byte{"own.pem": []byte("half"), "own.key": nil} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.degraded("half a pair", "unknown certificate authority")
	own := other.authority.Issue(t, "proxy.example")
	for name, b := range map[string][]byte{"own.pem": own.CertPEM, "own.key": own.KeyPEM} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.untilInForce(one(2, "a"))
}
