// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
)

// bySecret: who has no certificate does not come through, and one that takes the place of another is shown.
func bySecret(t *testing.T, r *Rig) {
	for name, p := range map[string]*testcert.Pair{"none": nil, "one of another authority": testcert.New(t).Issue(t, "client.example")} {
		cfg := &tls.Config{RootCAs: r.Roots, ServerName: "web.example"}
		if p != nil {
			cfg.Certificates = []tls.Certificate{p.Certificate}
		}
		c := tls.Client(r.Dial("mutual"), cfg)
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("with %s: read %d bytes, %v", name, n, err)
		}
	}
	own := tls.Client(r.Dial("mutual"), &tls.Config{
		RootCAs: r.Roots, ServerName: "web.example", Certificates: []tls.Certificate{r.Certificates.Client.Certificate},
	})
	if err := own.Handshake(); err != nil {
		t.Errorf("with a certificate: %v", err)
	}

	next := r.Certificates.Authority.Issue(t, "web.example")
	for name, text := range map[string][]byte{"server.key": next.KeyPEM, "server.pem": next.CertPEM} {
		at := filepath.Join(r.Files, filepath.Base(testcert.ExampleDir), name)
		if err := os.WriteFile(at+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
	}
	r.Admin.Until("/certs", func(_ int, body string) bool {
		return strings.Contains(body, fmt.Sprintf(`"%x"`, next.Leaf.SerialNumber))
	})
	c := r.DialTLS("https", "web.example")
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := c.ConnectionState().PeerCertificates[0]; got.SerialNumber.Cmp(next.Leaf.SerialNumber) != 0 {
		t.Errorf("shown is %x, the new one is %x", got.SerialNumber, next.Leaf.SerialNumber)
	}
}

func discoveredFault() []Request {
	return []Request{
		{Name: "a request without the header", Listener: "http", Want: Want{Status: 200, Line: "a GET / localhost"}},
		{Name: "one that is to fail", Listener: "http", Header: []string{"x-fail: yes"}, Want: Want{Status: 503, Line: "fault filter abort"}},
		{Name: "one that is passed on byte by byte", Listener: "either", Header: []string{"x-fail: yes"}, Want: Want{Status: 200, Line: "a GET / localhost"}},
	}
}

// manager is a connection manager in the place of a TCP proxy.
const manager = `
version_info: "2"
resources:
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: end
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: either
    route_config:
      virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: managed}}}]}]
    http_filters:
    - name: router
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

// filtersChange: the filters take what their files say from then on.
func filtersChange(t *testing.T, r *Rig) {
	text := r.Read(filepath.Join(xdsFiles, "ecds.yaml"))
	r.replace("ecds.yaml", strings.Replace(text, "http_status: 503", "http_status: 418", 1))
	r.Admin.Until("/ready", func(int, string) bool {
		return r.Do(Request{Name: "the other status", Listener: "http", Header: []string{"x-fail: yes"}}).Status == 418
	})
	r.replace("ecds-end.yaml", manager)
	r.Admin.Until("/ready", func(int, string) bool {
		return r.Do(Request{Name: "the other end", Listener: "either"}).Body == "managed"
	})
}
