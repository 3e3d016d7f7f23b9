// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// planeKeys are the files of a control plane's TLS and of a proxy's, in a directory.
type planeKeys struct {
	dir       string
	authority *testcert.Authority
}

func newPlaneKeys(t *testing.T, dir string) *planeKeys {
	k := &planeKeys{dir, testcert.New(t)}
	k.rotate(t)
	own := k.authority.Issue(t, "web-1.example")
	replace(t, k.in("proxy.pem"), string(own.CertPEM))
	replace(t, k.in("proxy.key"), string(own.KeyPEM))
	replace(t, k.in("ca.pem"), string(k.authority.PEM))
	return k
}

func (k *planeKeys) in(name string) string { return filepath.Join(k.dir, name) }

// rotate gives the control plane another certificate, and returns its number.
func (k *planeKeys) rotate(t *testing.T) *big.Int {
	p := k.authority.Issue(t, "control.example")
	replace(t, k.in("plane.key"), string(p.KeyPEM))
	replace(t, k.in("plane.pem"), string(p.CertPEM))
	return p.Leaf.SerialNumber
}

// dial connects as a proxy with a certificate, or with none, and returns which one the control plane shows.
func (k *planeKeys) dial(addr string, own ...tls.Certificate) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", addr, &tls.Config{
		ServerName: "control.example", RootCAs: k.authority.Pool(), NextProtos: []string{"h2"}, Certificates: own,
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1)) // its settings, or why it says no
	return c.ConnectionState().PeerCertificates[0], err
}

// secure makes the control plane's cluster of a bootstrap one over TLS.
func (k *planeKeys) secure(bootstrap string) string {
	const at = "    connect_timeout: 5s\n"
	return strings.Replace(bootstrap, at, at+fmt.Sprintf(`    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: control.example
        common_tls_context:
          tls_certificates: [{certificate_chain: {filename: %[1]s/proxy.pem}, private_key: {filename: %[1]s/proxy.key}}]
          validation_context: {trusted_ca: {filename: %[1]s/ca.pem}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: control.example}}]}
`, k.dir), 1)
}

// testControlTLS: a proxy and the control plane show each other certificates; who has none is not served. New certificates
// are shown once they are there, and files that do not belong together change nothing.
func testControlTLS(t *testing.T, binary string) {
	orders := origin.Start(t, "a", nil)
	out, dir := freeAddr(t), shortDir(t)
	k := newPlaneKeys(t, dir)
	replace(t, k.in("mesh.yaml"), meshOf(out, orders))
	p := runAs(t, nil, binary, "control", "--config", k.in("mesh.yaml"), "--listen", "127.0.0.1:0", "--admin", "", "--no-bus",
		"--tls-cert", k.in("plane.pem"), "--tls-key", k.in("plane.key"), "--tls-client-ca", k.in("ca.pem"))
	port := p.Logged(`"msg":"serving".*"proxies":"127.0.0.1:(\d+)"`)[1]

	bootstrap, err := os.ReadFile(filepath.Join(examples.Dir(), "ads.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("port_value: 18000", "port_value: "+port, "port_value: 9901", "port_value: 0").Replace(k.secure(string(bootstrap)))
	proxy := sidecar.Run(t, sidecar.Options{Bootstrap: text})
	proxy.Ready()
	if got := callOrders(t, out); got != "a" {
		t.Errorf("%s answers, a should", got)
	}

	addr := "127.0.0.1:" + port
	if _, err := k.dial(addr); err == nil {
		t.Error("who shows no certificate is served")
	}
	p.Logged(`a connection is refused in its TLS handshake.*did not return a certificate`)
	if _, err := k.dial(addr, testcert.New(t).Issue(t, "web-1.example").Certificate); err == nil {
		t.Error("a certificate of another authority is good")
	}
	p.Logged(`a connection is refused in its TLS handshake.*unknown authority`)

	own := k.authority.Issue(t, "other.example").Certificate
	want := k.rotate(t)
	if got, err := k.dial(addr, own); err != nil || got.SerialNumber.Cmp(want) != 0 {
		t.Errorf("after a rotation: %v, %v; want the new one", got, err)
	}
	p.Logged(`the control plane has another certificate`)
	replace(t, k.in("plane.key"), string(k.authority.Issue(t, "control.example").KeyPEM))
	if got, err := k.dial(addr, own); err != nil || got.SerialNumber.Cmp(want) != 0 {
		t.Errorf("with files that do not belong together: %v, %v; want the last one", got, err)
	}
	p.Logged(`cannot be used; what they held last is used on.*are not a certificate and its key`)
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
}
