// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	tcppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/dump"
)

// nextConfig returns the next configuration of a filter that the proxy is given.
func (w *moded) nextConfig() *mesh.Extension {
	w.t.Helper()
	select {
	case c := <-w.proxy.configs:
		return c
	case <-time.After(hang):
		w.t.Fatal("no configuration")
		return nil
	}
}

// listenerOf returns a listener whose chain's end comes by itself, and that end as a connection manager, whose router comes by itself
// too, with a table as its routes.
func (w *moded) listenerOf(table string) (*listenerpb.Listener, *corepb.TypedExtensionConfig) {
	l := fakexds.Listener("L", port(100), table)
	fakexds.From(w.source(fakexds.RouteType), l)
	fakexds.DiscoverRouter(l, w.source(fakexds.ConfigType), "router")
	return l, fakexds.DiscoverChain(l, w.source(fakexds.ConfigType), "tail")
}

// pushChain makes such a listener what the proxy is to have.
func (w *moded) pushChain(version string, end func(manager *corepb.TypedExtensionConfig) types.Resource, table string) {
	w.t.Helper()
	l, manager := w.listenerOf(table)
	w.pushAll(version, map[string][]types.Resource{
		fakexds.ClusterType:  {fakexds.StaticCluster("a", port(0)), fakexds.StaticCluster("b", port(1))},
		fakexds.RouteType:    {fakexds.Routes("r", "a"), fakexds.Routes("s", "b")},
		fakexds.EndpointType: {}, fakexds.ListenerType: {l},
		fakexds.ConfigType: {end(manager), fakexds.FilterConfig("router", &routerpb.Router{})},
	})
}

// A listener waits for the connection manager that ends its chain, and for what that names: its routes and its router, in every way
// that these can come. A change waits for its own routes and rebuilds nothing; one of a type that the chain does not allow is
// refused by name; what is in force is shown.
func TestNetworkFilterConfigsByEveryWay(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			as := func(m *corepb.TypedExtensionConfig) types.Resource { return m }
			w.pushChain("1", as, "r")
			s := w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
			l := s.Listeners["L"]
			router, first := w.nextConfig(), w.nextConfig()
			if _, ok := router.Config.(mesh.Router); !ok || !strings.Contains(l.Chains[0].Discovery.Types, first.TypeURL) {
				t.Fatalf("router %+v, chain %+v, first %+v", router, l.Chains[0], first)
			}
			if m := first.Config.(*mesh.HTTPManager); s.RouteTables[m.RouteTable] == nil || m.RouterDiscovery == nil {
				t.Errorf("manager %+v, tables %v", m, s.RouteTables)
			}
			w.ready()
			w.untilCounted("extension_config_discovery.http_filter.router.update_success", 1)
			w.pushChain("2", as, "s")
			second := w.nextConfig()
			if m := second.Config.(*mesh.HTTPManager); !strings.HasPrefix(m.RouteTable, "s") {
				t.Errorf("the second has the routes %q", m.RouteTable)
			}
			tcp := func(*corepb.TypedExtensionConfig) types.Resource {
				return fakexds.FilterConfig("tail", &tcppb.TcpProxy{StatPrefix: "t", ClusterSpecifier: &tcppb.TcpProxy_Cluster{Cluster: "b"}})
			}
			w.pushChain("3", tcp, "s")
			if third := w.nextConfig(); third.Config.(*mesh.TCPProxy).Clusters[0].Name != "b" {
				t.Errorf("the third is %+v", third.Config)
			}
			w.pushChain("4", func(*corepb.TypedExtensionConfig) types.Resource { return fakexds.FilterConfig("tail", &corsv3.Cors{}) }, "s")
			n := w.notice(mesh.NoticeConfigRejected)
			if e := n.Config.Errors[0]; e.Name != "tail" || !strings.Contains(e.Reason, "http_connection_manager.v3.HttpConnectionManager or envoy") {
				t.Errorf("refused %+v", n.Config)
			}
			w.untilCounted("extension_config_discovery.network_filter.tail.update_rejected", 1)
			for s := range drained(w.proxy.applied) {
				if s.Listeners["L"] != l {
					t.Error("a configuration has rebuilt its listener")
				}
			}
			in, err := w.m.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out, err := dump.Render(in, dump.Options{Redactor: dump.NewRedactor([]byte("key")), Part: "ecds_filters"})
			if err != nil || !strings.Contains(string(out), "TcpProxy") || !strings.Contains(string(out), "error_state") {
				t.Errorf("the dump has %s, error %v", out, err)
			}
		})
	}
}

// An older configuration is put back with the connection manager that it had; while it is held, newer ones wait with what they name.
func TestRollbackOfNetworkFilter(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS GRPC")
	push := func(version, table string) {
		l, manager := w.listenerOf(table)
		w.pushAll(version, map[string][]types.Resource{
			fakexds.ClusterType: {fakexds.StaticCluster("a", port(0))}, fakexds.RouteType: {fakexds.Routes(table, "a")},
			fakexds.EndpointType: {}, fakexds.ListenerType: {l},
			fakexds.ConfigType: {manager, fakexds.FilterConfig("router", &routerpb.Router{})},
		})
	}
	// given waits until the proxy has been given a manager with a table.
	given := func(table string) {
		t.Helper()
		for {
			if m, ok := w.nextConfig().Config.(*mesh.HTTPManager); ok && m.RouteTable == table {
				return
			}
		}
	}
	tables := func() string {
		w.proxy.mu.Lock()
		defer w.proxy.mu.Unlock()
		return strings.Join(slices.Sorted(maps.Keys(w.proxy.last.RouteTables)), " ")
	}
	push("v1", "r")
	given("r")
	w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
	was := w.newestOf("v1")
	push("v2", "s")
	given("s")
	w.until("the end of the first table", func(s *mesh.Snapshot) bool { return s.RouteTables["r"] == nil })
	if err := w.m.Rollback(t.Context(), fmt.Sprint(was.Snapshot)); err != nil {
		t.Fatal(err)
	}
	given("r")
	if got := tables(); got != "r" {
		t.Errorf("after the rollback there are the tables %q", got)
	}
	push("v3", "u")
	w.acked("v3")
	if n := len(w.proxy.configs); n != 0 || tables() != "r" {
		t.Errorf("while it is held, %d configurations came; tables %q", n, tables())
	}
	if err := w.m.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	given("u")
	if got := tables(); got != "u" {
		t.Errorf("after the release there are the tables %q", got)
	}
}

// A proxy whose control plane is down starts with the connection manager that came by itself, its routes and its router.
func TestStartFromDiskWithNetworkFilter(t *testing.T) {
	t.Parallel()
	for _, mode := range streamed {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, cache := newMode(t, mode), xds.Cache{Dir: t.TempDir(), Node: mode}
			listening := func() {
				t.Helper()
				s := w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
				router, manager := w.nextConfig(), w.nextConfig()
				if _, ok := router.Config.(mesh.Router); !ok || s.RouteTables[manager.Config.(*mesh.HTTPManager).RouteTable] == nil {
					t.Errorf("router %+v, manager %+v, tables %v", router, manager, s.RouteTables)
				}
				w.isReady()
			}
			w.run(cache, zap.NewNop())
			w.pushChain("1", func(m *corepb.TypedExtensionConfig) types.Resource { return m }, "r")
			listening()
			w.stop() // writes what is not written yet
			w.cp.Kill()
			w.run(cache, zap.NewNop())
			listening()
			if s, err := w.m.Status(t.Context()); err != nil || s.Saved.IsZero() {
				t.Errorf("status %+v, error %v", s, err)
			}
		})
	}
}
