// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"

	runtimepb "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// TestRuntimeByEveryWay: a layer of the runtime comes by each variant of the protocol, changes, and is refused.
func TestRuntimeByEveryWay(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := &moded{mode: mode, dir: t.TempDir(), reg: stats.NewRegistry(stats.Options{})}
			w.world = &world{t: t, cp: fakexds.Start(t), proxy: &proxy{
				t: t, applied: make(chan *mesh.Snapshot, 1<<16), notices: make(chan mesh.Notice, 1<<16),
				endpoints: map[string]*mesh.EndpointSet{},
			}}
			source, err := protojson.Marshal(w.source(fakexds.RuntimeType))
			if err != nil {
				t.Fatal(err)
			}
			b, err := bootstrap.Load(bootstrap.Options{Parsers: resourcetest.Parsers(), YAML: w.bootstrap() + fmt.Sprintf(
				"layered_runtime: {layers: [{name: s, static_layer: {a: 1}}, {name: dyn, rtds_layer: {name: mine, rtds_config: %s}}]}", source)})
			if err != nil {
				t.Fatal(err)
			}
			layer := func(version string, list ...types.Resource) {
				w.pushAll(version, map[string][]types.Resource{fakexds.RuntimeType: list})
			}
			layer("1", fakexds.Runtime("mine", "a", 2))
			log := zap.NewNop()
			streams := xds.NewStreams(b, log)
			aggregated, err := streams.Aggregated()
			if err != nil {
				t.Fatal(err)
			}
			m := xds.New(xds.FromBootstrap(b), xds.Deps{
				Log: log, Stream: aggregated, Open: streams.Open, DNS: dns.New(dns.Config{}, log), Notifier: w.proxy, Stats: w.reg,
				Decoder: resource.New(b.Resource), Apply: w.proxy.apply, SetEndpoints: w.proxy.setEndpoints, Runtime: b.Runtime,
			})
			done := make(chan error, 1)
			go func() { done <- m.Run(t.Context()) }()
			t.Cleanup(func() { <-done })
			a := b.Runtime.Key("a")
			heard := func(kind mesh.NoticeKind, version string) {
				t.Helper()
				for {
					select {
					case n := <-w.proxy.notices:
						if n.Config != nil && n.Config.Kind == mesh.KindRuntime && n.Kind == kind && n.Config.Version == version {
							return
						}
					case <-time.After(hang):
						t.Fatalf("no notice %v of version %s", kind, version)
					}
				}
			}
			heard(mesh.NoticeConfigAccepted, "1")
			if got := a.Integer(0); got != 2 {
				t.Errorf("a = %d, want 2", got)
			}
			layer("2", fakexds.Runtime("mine", "a", 3))
			heard(mesh.NoticeConfigAccepted, "2")
			if got := a.Integer(0); got != 3 {
				t.Errorf("a = %d, want 3", got)
			}
			layer("3", &runtimepb.Runtime{Name: "mine", Layer: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNullValue()}}})
			heard(mesh.NoticeConfigRejected, "3")
			if got := a.Integer(0); got != 3 {
				t.Errorf("after the refusal: a = %d, want 3", got)
			}
			layer("4", fakexds.Runtime("mine", "b", 3))
			heard(mesh.NoticeConfigAccepted, "4")
			if got := a.Integer(0); got != 1 {
				t.Errorf("a = %d, want that of the static layer", got)
			}
		})
	}
}
