// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshtap/meshtap/mesh"
)

// TestChecksByProtocol: a check speaks the protocol that it is configured for, whatever requests speak, and offers it where
// the cluster has TLS. Its host is in service then, and counted.
func TestChecksByProtocol(t *testing.T) {
	t.Parallel()
	overHTTP1 := func(*mesh.HealthCheck) {}
	overHTTP2 := func(h *mesh.HealthCheck) { h.HTTP.HTTP2 = true }
	overGRPC := func(h *mesh.HealthCheck) { h.HTTP, h.GRPC = nil, &mesh.GRPCHealthCheck{} }
	offering := func(f func(*mesh.HealthCheck), alpn ...string) func(*mesh.HealthCheck) {
		return func(h *mesh.HealthCheck) {
			f(h)
			h.ALPN = alpn
		}
	}
	for _, tc := range []struct {
		name   string
		plain  bool
		check  func(*mesh.HealthCheck)
		alpn   []string // of the cluster
		want   string   // protocol of the request, what was offered
		degree int64    // hosts that are degraded
	}{
		{"HTTP/1.1 in plain text", true, overHTTP1, nil, "HTTP/1.1", 1},
		{"HTTP/2 in plain text", true, overHTTP2, nil, "HTTP/2.0", 1},
		{"gRPC in plain text", true, overGRPC, nil, "HTTP/2.0", 0},
		{"HTTP/1.1", false, overHTTP1, nil, "HTTP/1.1", 1},
		{"HTTP/1.1 of a cluster that prefers HTTP/2", false, overHTTP1, []string{"h2", "http/1.1"}, "HTTP/1.1 http/1.1", 1},
		{"HTTP/2", false, overHTTP2, nil, "HTTP/2.0 h2", 1},
		{"HTTP/2 of a cluster that prefers HTTP/1.1", false, overHTTP2, []string{"http/1.1", "h2"}, "HTTP/2.0 h2", 1},
		{"gRPC", false, overGRPC, []string{"http/1.1"}, "HTTP/2.0 h2", 0},
		{"gRPC with tls_options", false, offering(overGRPC, "h2", "check"), nil, "HTTP/2.0 h2,check", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var offered []string
			said := make(chan string, 1)
			g := grpc.NewServer()
			grpc_health_v1.RegisterHealthServer(g, grpchealth.NewServer())
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				select {
				case said <- strings.TrimSpace(q.Proto + " " + strings.Join(offered, ",")):
				default: // it is not the first check
				}
				if strings.HasPrefix(q.Header.Get("content-type"), "application/grpc") {
					g.ServeHTTP(w, q)
					return
				}
				w.Header().Set("x-envoy-degraded", "1")
			}))
			if tc.plain {
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetHTTP1(true)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
			} else {
				s.EnableHTTP2 = true
				s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					offered = hello.SupportedProtos // before the request, on the same goroutine or one that it starts
					return nil, nil
				}}
				s.StartTLS()
			}
			t.Cleanup(s.Close)
			r := newRig(t)
			c := r.cluster(config(checked, func(c *mesh.Cluster) {
				tc.check(&c.HealthChecks[0])
				if !tc.plain {
					c.TLS = &mesh.TLSContext{ALPN: tc.alpn, Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{s.Certificate()}}}
				}
			}), s.Listener.Addr().String())
			until(t, "the host is in service", func() bool { return attempt(t, c, 200) == s.Listener.Addr().String() })
			if got := <-said; got != tc.want {
				t.Errorf("the check was %q, want %q", got, tc.want)
			}
			got := fmt.Sprint(r.number("health_check.healthy"), r.number("health_check.degraded"), r.number("health_check.failure"))
			if want := fmt.Sprint(int64(1), tc.degree, int64(0)); got != want {
				t.Errorf("healthy, degraded and failures are %s, want %s", got, want)
			}
		})
	}
}
