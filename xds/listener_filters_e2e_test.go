// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"strings"
	"testing"
	"time"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
)

// A listener waits for the configuration of its listener filter, in every way that this can come; a change rebuilds nothing, and
// one of a type that the filter does not allow is refused by name.
func TestListenerFilterConfigsByEveryWay(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			push := func(version string, list ...types.Resource) {
				l := fakexds.Listener("L", port(100), "r")
				fakexds.DiscoverListenerFilter(l, w.source(fakexds.ConfigType), "f", &tlsinspectorv3.TlsInspector{})
				w.pushAll(version, map[string][]types.Resource{
					fakexds.ClusterType: {fakexds.StaticCluster("a", port(0))}, fakexds.RouteType: {fakexds.Routes("r", "a")}, fakexds.EndpointType: {},
					fakexds.ListenerType: fakexds.From(w.source(fakexds.RouteType), l), fakexds.ConfigType: list,
				})
			}
			next := func() *mesh.Extension {
				select {
				case c := <-w.proxy.configs:
					return c
				case <-time.After(hang):
					t.Fatal("no configuration")
					return nil
				}
			}
			push("1", fakexds.FilterConfig("f", &tlsinspectorv3.TlsInspector{}))
			s := w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
			first, l := next(), s.Listeners["L"]
			if d := l.Filters[0].Discovery; d == nil || first.TypeURL != d.Types {
				t.Fatalf("filter %+v, configuration %+v", l.Filters[0], first)
			}
			w.ready()
			push("2", fakexds.FilterConfig("f", &tlsinspectorv3.TlsInspector{MaxClientHelloSize: wrapperspb.UInt32(4096)}))
			if second := next(); second == nil || second == first {
				t.Error("nothing new")
			}
			push("3", fakexds.FilterConfig("f", &corsv3.Cors{}))
			n := w.notice(mesh.NoticeConfigRejected)
			if e := n.Config.Errors[0]; e.Name != "f" || !strings.Contains(e.Reason, "asked for is a envoy.extensions.filters.listener.tls_inspector") {
				t.Errorf("refused %+v", n.Config)
			}
			w.untilCounted("extension_config_discovery.tcp_listener_filter.f.update_rejected", 1)
			for s := range drained(w.proxy.applied) {
				if s.Listeners["L"] != l {
					t.Error("a configuration has rebuilt its listener")
				}
			}
		})
	}
}
