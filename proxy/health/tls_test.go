// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/transport"
)

// TestChecksOverTLS: a check speaks TLS where the cluster does, and a host that cannot be verified is not healthy.
func TestChecksOverTLS(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	for _, tc := range []struct {
		name   string
		roots  *testcert.Authority
		secure bool // the host
		want   string
	}{
		{name: "verified", roots: ca, secure: true},
		{name: "another authority", roots: testcert.New(t), secure: true, want: "TLS_error: certificate verify failed: unknown authority"},
		{name: "plain text", roots: ca, want: "TLS_error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			own := ca.Issue(t, "server.test").Certificate
			answer := answers(status(200))
			s := serve(t, mesh.Address{}, func(n int, c net.Conn) {
				if tc.secure {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"http/1.1"}})
				}
				answer(n, c)
			})
			m := &mesh.TLSContext{SNI: "server.test", ALPN: []string{"h2"}, Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{tc.roots.Certificate}}}
			cl, err := transport.NewClient(m, nil, metrics.NewClusterTLS(stats.NewRegistry(stats.Options{}), "c"))
			if err != nil {
				t.Fatal(err)
			}
			d := deps()
			d.Secure = cl.WithALPN([]string{"http/1.1"}).Conn
			results, _ := watch(t, httpCheck(), s.target(), d)
			r := <-results
			if !strings.HasPrefix(r.Reason, tc.want) || (r.Reason == "") != (tc.want == "") || r.Healthy != (tc.want == "") {
				t.Errorf("healthy %v: %q", r.Healthy, r.Reason)
			}
		})
	}
}
