// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"bufio"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
)

// front forwards to what tls.yaml serves.
const front = `static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: https}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: tcp
    address: {socket_address: {address: 127.0.0.1, port_value: 10001}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: mutual}
  clusters:
  - name: https
    transport_socket: &tls
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: web.example
        common_tls_context:
          tls_params: {tls_maximum_protocol_version: VERSION}
          tls_certificates: [{certificate_chain: {filename: DIR/client.pem}, private_key: {filename: DIR/client.key}}]
          validation_context:
            trusted_ca: {filename: DIR/ca.pem}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: web.example}}]
    load_assignment:
      cluster_name: https
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, "port_value": HTTPS}}}}]}]
  - name: mutual
    transport_socket: *tls
    load_assignment:
      cluster_name: mutual
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, "port_value": MUTUAL}}}}]}]
`

// TestTLSBetweenUs: each of the two speaks TLS to the other, with certificates on both sides.
func TestTLSBetweenUs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, front, back string }{{"Envoy to Meshtap", envoy, ""}, {"Meshtap to Envoy", "", envoy}} {
		for _, version := range []string{"TLSv1_2", "TLSv1_3"} {
			t.Run(tc.name+" "+version, func(t *testing.T) {
				t.Parallel()
				back, r := examples.NewRig(t), examples.NewRig(t)
				back.Start(back.Read("tls.yaml"), tc.back)
				port := func(listener string) string {
					_, port, _ := strings.Cut(netip.MustParseAddrPort(back.Addr(listener)).String(), ":")
					return port
				}
				text := strings.NewReplacer("HTTPS", port("https"), "MUTUAL", port("mutual"), "VERSION", version,
					"DIR", filepath.Join(back.Files, "meshtap-tls")).Replace(r.Prepare(front))
				r.Start(text, tc.front)
				for _, q := range []examples.Request{
					{Name: "a request", Path: "/x", Want: examples.Want{Status: 200, Line: "a GET /x localhost"}},
					{Name: "a body", Method: "POST", Body: string(make([]byte, 300_000)), Want: examples.Want{Status: 200, Got: []string{"content-length: 300000"}}},
				} {
					q.Check(t, r.Do(q))
				}
				c := r.Dial("tcp")
				if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello from database\n" {
					t.Errorf("greeted with %q, %v", line, err)
				}
			})
		}
	}
}
