// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/control"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// meshText is a mesh in which "shop" calls another service, of which there are n endpoints.
func meshText(name string, n int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "outbound: 127.0.0.1:15001\nservices:\n  shop: {}\n  %s:\n    endpoints:\n", name)
	for i := range n {
		fmt.Fprintf(&b, "    - {address: 10.0.0.%d:8080, app: 127.0.0.1:3000, node: %s-%d}\n", i+1, name, i)
	}
	return []byte(b.String())
}

// Meshtap's own control plane drives the proxy in both variants, to the same end: what a service is called and where it is
// changes while both are connected.
func TestOwnControlPlaneInBothVariants(t *testing.T) {
	t.Parallel()
	parse := func(name string, n int) *control.Mesh {
		m, err := control.Parse("mesh.yaml", meshText(name, n))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	s := control.New(parse("orders", 1), control.Config{Log: zap.NewNop()})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	worlds := map[string]*world{}
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		worlds[api] = ofControl(t, api, ln.Addr().(*net.TCPAddr).Port)
	}
	for i, step := range []struct {
		name string
		n    int
	}{{"orders", 1}, {"bills", 2}, {"orders", 3}, {"mail", 1}} {
		if i > 0 {
			s.Set(parse(step.name, step.n))
		}
		for api, w := range worlds {
			w.until(fmt.Sprintf("%v in %s", step, api), func(snap *mesh.Snapshot) bool {
				return len(snap.Clusters) == 2 && snap.Clusters[step.name] != nil && snap.Clusters["control-plane"] != nil
			})
		}
	}
}

// ofControl is a proxy under a control plane on a port.
func ofControl(t *testing.T, api string, port int) *world {
	t.Helper()
	b, err := bootstrap.Load(bootstrap.Options{Parsers: resourcetest.Parsers(), YAML: fmt.Sprintf(`
node: {id: shop-%[1]s, cluster: shop}
dynamic_resources:
  ads_config: {api_type: %[1]s, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}
  lds_config: {ads: {}}
  cds_config: {ads: {}}
static_resources:
  clusters:
  - name: control-plane
    load_assignment: {cluster_name: control-plane, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}}}]}]}
`, api, port)})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, proxy: &proxy{
		t: t, applied: make(chan *mesh.Snapshot, 1<<12), notices: make(chan mesh.Notice, 1<<12), endpoints: map[string]*mesh.EndpointSet{},
	}}
	log := zap.NewNop()
	streams := xds.NewStreams(b, log)
	aggregated, err := streams.Aggregated()
	if err != nil {
		t.Fatal(err)
	}
	w.m = xds.New(xds.FromBootstrap(b), xds.Deps{
		Log: log, Stream: aggregated, Open: streams.Open, DNS: dns.New(dns.Config{}, log), Notifier: w.proxy,
		Decoder: resource.New(b.Resource), Apply: w.proxy.apply, SetEndpoints: w.proxy.setEndpoints,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.m.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}
