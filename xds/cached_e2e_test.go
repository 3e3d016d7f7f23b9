// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/saved"
)

// streamed are the modes whose control plane can be gone.
var streamed = []string{"ADS GRPC", "ADS DELTA_GRPC", "GRPC", "DELTA_GRPC"}

// two is a state of two listeners with a table and clusters each.
func two(endpoint int) state {
	return state{
		clusters:  map[string]int{"a": endpoint, "b": endpoint + 1, "static": 0},
		tables:    map[string][]string{"r": {"a", "static"}, "q": {"b"}},
		listeners: map[string]string{"L": "r", "M": "q"},
	}
}

// isReady waits for the end of start-up.
func (w *moded) isReady() {
	w.t.Helper()
	select {
	case <-w.m.Ready():
	case <-time.After(hang):
		s, err := w.m.Status(w.t.Context())
		w.t.Fatalf("%s: not ready: %+v %v", w.mode, s, err)
	}
}

// save runs a manager until it has a state in force and on disk.
func (w *moded) save(cache xds.Cache, s state) {
	w.t.Helper()
	w.run(cache, zap.NewNop())
	w.push("1", s)
	w.untilInForce(s)
	w.isReady()
	w.stop() // writes what is not written yet
}

// TestStartFromDisk (F18): a proxy whose control plane is down starts with the last good configuration and says so; what the
// control plane then says replaces it, what it has removed meanwhile included.
func TestStartFromDisk(t *testing.T) {
	t.Parallel()
	for _, mode := range streamed {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, cache := newMode(t, mode), xds.Cache{Dir: t.TempDir(), Node: mode}
			w.save(cache, two(1))
			w.cp.Kill()
			w.run(cache, zap.NewNop())
			w.isReady()
			w.untilInForce(two(1))
			w.degraded(mode, "what is in force was saved at ")
			if s, err := w.m.Status(t.Context()); err != nil || s.Saved.IsZero() || !s.Ready {
				t.Errorf("status %+v, error %v", s, err)
			}
			if !slices.ContainsFunc(w.drain(), func(n mesh.Notice) bool {
				return n.Kind == mesh.NoticeConfigAccepted && len(n.Config.Errors) == 1 && strings.Contains(n.Config.Errors[0].Reason, "from the disk, saved at ")
			}) {
				t.Error("no notice says where the configuration is from")
			}
			w.push("2", one(7, "a"))
			w.cp.Restart()
			w.untilInForce(one(7, "a"))
			if s, err := w.m.Status(t.Context()); err != nil || !s.Saved.IsZero() || s.Degraded != "" {
				t.Errorf("status %+v, error %v", s, err)
			}
			w.stop()
			if s, err := saved.Read(cache.Dir); err != nil || names(s) != "cluster a,endpoints a,listener L,route_configuration r" {
				t.Errorf("on disk: %s, error %v", names(s), err)
			}
		})
	}
}

// drain returns the notices that have come.
func (w *moded) drain() (out []mesh.Notice) {
	for {
		select {
		case n := <-w.proxy.notices:
			out = append(out, n)
		default:
			return out
		}
	}
}

// names lists what is on disk.
func names(s *saved.State) string {
	if s == nil {
		return ""
	}
	var out []string
	for _, g := range s.Groups {
		kind := map[string]string{
			fakexds.ClusterType: "cluster ", fakexds.EndpointType: "endpoints ", fakexds.ListenerType: "listener ", fakexds.RouteType: "route_configuration ",
		}[g.TypeURL]
		for _, r := range g.Resources {
			out = append(out, kind+r.Name)
		}
	}
	return strings.Join(out, ",")
}

// TestSlowControlPlane: one that is connected and says nothing is waited for a moment only; when it speaks, what it no longer
// has goes, although it was never asked for it on an incremental stream.
func TestSlowControlPlane(t *testing.T) {
	t.Parallel()
	for _, mode := range streamed {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, cache := newMode(t, mode), xds.Cache{Dir: t.TempDir(), Node: mode}
			w.save(cache, two(1))
			w.push("2", one(7, "a"))
			w.cp.Pause()
			w.run(cache, zap.NewNop())
			w.isReady()
			w.untilInForce(two(1))
			w.cp.Resume()
			w.untilInForce(one(7, "a"))
		})
	}
}

// TestAnswerBeforeDisk: where the control plane answers, nothing comes from the disk.
func TestAnswerBeforeDisk(t *testing.T) {
	t.Parallel()
	w, cache := newMode(t, "ADS GRPC"), xds.Cache{Dir: t.TempDir(), Node: "ADS GRPC"}
	w.save(cache, two(1))
	if err := os.Remove(saved.Path(cache.Dir)); err != nil {
		t.Fatal(err)
	}
	w.run(cache, zap.NewNop())
	w.untilInForce(two(1))
	w.isReady()
	for _, n := range w.drain() {
		if n.Config != nil && len(n.Config.Errors) > 0 {
			t.Errorf("notice %+v", n.Config)
		}
	}
}

// TestDiskIsRefused: what is too old, of another node or not whole is named in one line, and the start waits for its sources.
func TestDiskIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		change     func(t *testing.T, dir string, s *saved.State)
	}{
		{"old", "old, and 1h0m0s is allowed", func(_ *testing.T, _ string, s *saved.State) { s.Saved = s.Saved.Add(-2 * time.Hour) }},
		{"another node", `it is of the node "other", and this one is "ADS GRPC"`, func(_ *testing.T, _ string, s *saved.State) { s.Node = "other" }},
		{"torn", "is not whole", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, cache := newMode(t, "ADS GRPC"), xds.Cache{Dir: t.TempDir(), Node: "ADS GRPC", MaxAge: time.Hour}
			w.save(cache, two(1))
			s, err := saved.Read(cache.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if tt.change == nil {
				err = os.Truncate(saved.Path(cache.Dir), 200)
			} else {
				tt.change(t, cache.Dir, s)
				err = saved.Write(cache.Dir, s)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.cp.Kill()
			core, logs := observer.New(zap.WarnLevel)
			w.run(cache, zap.New(core))
			w.degraded(tt.name, "not connected to the control plane")
			if s, err := w.m.Status(t.Context()); err != nil || !s.Saved.IsZero() || s.Ready {
				t.Errorf("status %+v, error %v", s, err)
			}
			lines := logs.FilterMessageSnippet("the saved configuration is not used").All()
			if len(lines) != 1 || !strings.Contains(lines[0].ContextMap()["error"].(string), tt.want) {
				t.Errorf("lines %v, want one with %s", lines, tt.want)
			}
		})
	}
}

// TestKeysAreNotOnDisk: a cluster with a key in it is left out of the file, by name; the rest is there.
func TestKeysAreNotOnDisk(t *testing.T) {
	t.Parallel()
	w, cache := newMode(t, "ADS GRPC"), xds.Cache{Dir: t.TempDir(), Node: "ADS GRPC"}
	w.run(cache, zap.NewNop())
	pair := testcert.New(t).Issue(t, "me.example")
	inline := func(b []byte) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: b}}
	}
	secure := fakexds.StaticCluster("secure", port(1))
	secure.TransportSocket = &corepb.TransportSocket{Name: "tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: mustAny(t, &tlspb.UpstreamTlsContext{
		CommonTlsContext: &tlspb.CommonTlsContext{TlsCertificates: []*tlspb.TlsCertificate{{CertificateChain: inline(pair.CertPEM), PrivateKey: inline(pair.KeyPEM)}}},
	})}}
	set := one(1, "a").resources()
	set[fakexds.ClusterType] = append(set[fakexds.ClusterType], types.Resource((*clusterpb.Cluster)(secure)))
	w.cp.SetAll("1", set)
	w.until("the cluster", func(s *mesh.Snapshot) bool { return s.Clusters["secure"] != nil && s.Listeners["L"] != nil })
	w.isReady()
	w.stop()
	s, err := saved.Read(cache.Dir)
	if err != nil || names(s) != "cluster a,endpoints a,listener L,route_configuration r" || !slices.Equal(s.LeftOut, []string{`cluster "secure"`}) {
		t.Errorf("on disk: %s, left out %v, error %v", names(s), s.LeftOut, err)
	}
	if b, err := os.ReadFile(saved.Path(cache.Dir)); err != nil || strings.Contains(string(b), "PRIVATE KEY") {
		t.Errorf("a key is on disk; error %v", err)
	}
}
