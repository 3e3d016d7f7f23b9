// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"strings"
	"testing"
	"time"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/dump"
)

func (p *proxy) setExtension(_ string, c *mesh.Extension) { p.configs <- c }

// pushFilter makes a listener whose filter comes by itself, and that filter's configuration, what the proxy is to have.
func (w *moded) pushFilter(version string, list ...types.Resource) {
	w.t.Helper()
	l := fakexds.DiscoverFilter(fakexds.Listener("L", port(100), "r"), w.source(fakexds.ConfigType), "f", &faultv3.HTTPFault{})
	w.pushAll(version, map[string][]types.Resource{
		fakexds.ClusterType: {fakexds.StaticCluster("a", port(0))}, fakexds.RouteType: {fakexds.Routes("r", "a")}, fakexds.EndpointType: {},
		fakexds.ListenerType: fakexds.From(w.source(fakexds.RouteType), l), fakexds.ConfigType: list,
	})
}

// A listener waits for the configuration of its filter, in every way that this can come; a change rebuilds nothing, one of a
// type that the filter does not allow is refused by name; what is in force is shown.
func TestFilterConfigsByEveryWay(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			next := func() *mesh.Extension {
				select {
				case c := <-w.proxy.configs:
					return c
				case <-time.After(hang):
					t.Fatal("no configuration")
					return nil
				}
			}
			w.pushFilter("1", fakexds.FilterConfig("f", &faultv3.HTTPFault{}))
			s := w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
			first, l := next(), s.Listeners["L"]
			if d := l.Chains[0].HTTP.Filters[0].Discovery; d == nil || first.TypeURL != d.Types {
				t.Fatalf("filter %+v, configuration %+v", l.Chains[0].HTTP.Filters[0], first)
			}
			w.ready()
			w.pushFilter("2", fakexds.FilterConfig("f", &faultv3.HTTPFault{UpstreamCluster: "b"}))
			if second := next(); second == nil || second == first {
				t.Error("nothing new")
			}
			w.pushFilter("3", fakexds.FilterConfig("f", &corsv3.Cors{}))
			n := w.notice(mesh.NoticeConfigRejected)
			if e := n.Config.Errors[0]; n.Config.Kind != mesh.KindExtension || e.Name != "f" || !strings.Contains(e.Reason, "asked for is a envoy.extensions.filters.http.fault") {
				t.Errorf("refused %+v", n.Config)
			}
			w.untilCounted("extension_config_discovery.http_filter.f.update_rejected", 1)
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
			if err != nil || !strings.Contains(string(out), `"upstream_cluster": "b"`) || !strings.Contains(string(out), "error_state") {
				t.Errorf("the dump has %s, error %v", out, err)
			}
		})
	}
}
