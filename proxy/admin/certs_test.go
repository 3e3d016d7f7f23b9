// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"crypto/x509"
	"testing"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/proxy/admin"
)

// TestCerts: /certs has the certificates in the form of Envoy's API.
func TestCerts(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	own := ca.Issue(t, "web.test", testcert.URI("spiffe://mesh/web"), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) })
	old := ca.Issue(t, "10.0.0.1", testcert.Expired)
	v := (&fake{}).views()
	v.Certificates = func() []certs.Use {
		return []certs.Use{
			{Secret: "web", Chains: [][]*x509.Certificate{{own.Leaf, ca.Certificate}}},
			{Resource: `cluster "pay"`, Chains: [][]*x509.Certificate{{old.Leaf}}, Authorities: []*x509.Certificate{ca.Certificate}},
		}
	}
	_, c := start(t, admin.Config{}, v, stats.NewRegistry(stats.Options{}))
	_, body := c.do(t, "GET", "/certs")
	got := &adminpb.Certificates{}
	if err := protojson.Unmarshal([]byte(body), got); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if len(got.Certificates) != 2 {
		t.Fatalf("got %s", body)
	}
	web := got.Certificates[0].CertChain[0]
	if web.Path != `secret "web"` || web.SerialNumber != certs.Serial(own.Leaf) || web.DaysUntilExpiration != 0 || // the authority ends first
		web.SubjectAltNames[0].GetDns() != "web.test" || web.SubjectAltNames[1].GetUri() != "spiffe://mesh/web" ||
		!web.ExpirationTime.AsTime().Equal(own.Leaf.NotAfter) || !web.ValidFrom.AsTime().Equal(own.Leaf.NotBefore) {
		t.Errorf("got %v", web)
	}
	pay := got.Certificates[1]
	if pay.CertChain[0].Path != `cluster "pay"` || pay.CertChain[0].DaysUntilExpiration != 0 || pay.CertChain[0].SubjectAltNames[0].GetIpAddress() != "10.0.0.1" ||
		pay.CaCert[0].SerialNumber != certs.Serial(ca.Certificate) {
		t.Errorf("got %v", pay)
	}
}
