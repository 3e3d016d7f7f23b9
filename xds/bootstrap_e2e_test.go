// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

const bootstrapYAML = `
node: {id: proxy-1, cluster: shop}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control-plane
    type: STRICT_DNS
    connect_timeout: 1s
    dns_lookup_family: V4_ONLY
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: %s}}}}]}]
`

// TestFromABootstrap goes the whole way: a start-up file with a control plane by name, and a push.
func TestFromABootstrap(t *testing.T) {
	t.Parallel()
	cp := fakexds.Start(t)
	_, port, err := net.SplitHostPort(cp.Addr())
	if err != nil {
		t.Fatal(err)
	}
	b, err := bootstrap.Load(bootstrap.Options{YAML: fmt.Sprintf(bootstrapYAML, port), Parsers: resourcetest.Parsers()})
	if err != nil {
		t.Fatal(err)
	}
	log := zap.NewNop()
	stream, err := xds.NewStreams(b, log).Aggregated()
	if err != nil || stream == nil {
		t.Fatalf("stream: %v, error %v", stream, err)
	}
	p := &proxy{
		t: t, applied: make(chan *mesh.Snapshot, 1000), notices: make(chan mesh.Notice, 1000), endpoints: map[string]*mesh.EndpointSet{},
	}
	w := &world{t: t, cp: cp, proxy: p, m: xds.New(xds.FromBootstrap(b), xds.Deps{
		Log: log, Stream: stream, DNS: dns.New(dns.Config{}, log), Notifier: p,
		Decoder: resource.New(b.Resource), Apply: p.apply, SetEndpoints: p.setEndpoints,
	})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	serve(cp, "1", "a", "b")
	// The control plane's own cluster waits for its look-up, as any other.
	w.until("routes to a and the static cluster", func(s *mesh.Snapshot) bool {
		c := s.Clusters["control-plane"]
		return serves("a")(s) && len(s.Clusters) == 3 && c != nil && c.Static
	})
	w.ready()
	if first := w.answer("first request", func(fakexds.Answer) bool { return true }); !first.HasNode {
		t.Errorf("first request %+v", first)
	}
	in, err := w.m.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in.Bootstrap = b.Bootstrap
	if out, err := dump.Render(in, dump.Options{Endpoints: true, Redactor: dump.NewRedactor(nil)}); err != nil || len(out) == 0 {
		t.Errorf("dump: %v", err)
	}
}
