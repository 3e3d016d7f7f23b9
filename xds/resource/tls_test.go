// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// TestKeyOfFiles: a chain whose files hold something else is another chain, though it is configured alike.
func TestKeyOfFiles(t *testing.T) {
	t.Parallel()
	b := serialize(t, &listenerv3.Listener{}, []byte(`
name: web
address: {socket_address: {address: 127.0.0.1, port_value: 443}}
filter_chains:
- transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context: {tls_certificates: [{certificate_chain: {filename: cert}, private_key: {filename: key}}]}
  filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]
`))
	ca := testcert.New(t)
	key := func(p *testcert.Pair) string {
		d := resource.New(resource.Options{Parsers: resourcetest.Parsers(), ReadFile: func(name string, _ int) ([]byte, error) {
			return map[string][]byte{"cert": p.CertPEM, "key": p.KeyPEM}[name], nil
		}})
		got, err := d.Decode(resource.ListenerType, b, "v1")
		if err != nil {
			t.Fatal(err)
		}
		return got.Value.(*mesh.Listener).Chains[0].Key
	}
	old, renewed := ca.Issue(t, "a.test"), ca.Issue(t, "a.test")
	if first, again := key(old), key(old); first != again {
		t.Error("the same files give another chain")
	}
	if key(old) == key(renewed) {
		t.Error("another certificate gives the same chain")
	}
}
