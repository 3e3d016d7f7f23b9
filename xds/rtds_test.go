// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	runtimepb "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// runtimeOf is a runtime with the layers of a configuration, nil where it has none.
func runtimeOf(cfg Config) *layered.Runtime {
	if len(cfg.Runtime) == 0 {
		return nil
	}
	var layers []layered.Layer
	for _, l := range cfg.Runtime {
		layers = append(layers, layered.Layer{Name: l.Name, Kind: layered.RTDS})
	}
	r := layered.New()
	if err := r.Configure(layers); err != nil {
		panic(err)
	}
	return r
}

// withLayers is dynamic with two layers, which are waited for as long as the timeouts say.
func withLayers(first, second time.Duration) Config {
	cfg := dynamic()
	cfg.Runtime = []Layer{
		{Place: 0, Name: "one", Source: resource.Source{Kind: mesh.KindRuntime, FetchTimeout: first}},
		{Place: 1, Name: "two", Source: resource.Source{Kind: mesh.KindRuntime, FetchTimeout: second}},
	}
	return cfg
}

// TestLayersComeFirst: nothing else is asked for, and nothing is put into force, before the layers are there.
func TestLayersComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, withLayers(0, 0), nil)
		defer r.stop()
		r.expect("subscribe Runtime +[one] -[]", "subscribe Runtime +[two] -[]")
		r.stream.out <- ads.Connected{Target: ads.Target{Network: "tcp", Address: "cp:1"}}
		r.send(resource.RuntimeType, "1", fakexds.Runtime("one", "a", 1))
		r.expect("ack Runtime 1")
		time.Sleep(time.Hour) // no time is too long
		if s := r.status(); s.Ready || !s.Types[len(s.Types)-1].Asked || s.Types[len(s.Types)-1].Responded {
			t.Errorf("status %+v", s)
		}
		r.send(resource.RuntimeType, "2", fakexds.Runtime("one", "a", 1), fakexds.Runtime("two", "a", 2))
		r.expect("ack Runtime 2", "subscribe Cluster +[*] -[]", "subscribe Listener +[*] -[]", "apply 1")
		if got := r.m.deps.Runtime.Key("a").Integer(0); got != 2 {
			t.Errorf("a = %d, want that of the later layer", got)
		}
		// The graph knows that the stream is up: what does not come is given up 15 s after it was asked for.
		time.Sleep(16 * time.Second)
		if !r.isReady() {
			t.Error("not ready after the wait for listeners and clusters")
		}
		s := r.status()
		if last := s.Types[len(s.Types)-1]; last.Kind != mesh.KindRuntime || last.Version != "2" || last.Resources != 2 || !last.Responded {
			t.Errorf("status %+v", last)
		}
		if r.stat("runtime.update_success") != "2" || r.stat("runtime.version_text") != "2" {
			t.Errorf("update_success %s", r.stat("runtime.update_success"))
		}
	})
}

// TestLayersThatDoNotCome are not waited for longer than initial_fetch_timeout, and taken when they come.
func TestLayersThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, withLayers(3*time.Second, 5*time.Second), nil)
		defer r.stop()
		r.said()
		time.Sleep(4 * time.Second)
		r.expect()
		if got := r.stat("runtime.init_fetch_timeout"); got != "1" {
			t.Errorf("init_fetch_timeout %s, want 1", got)
		}
		time.Sleep(2 * time.Second)
		r.expect("subscribe Cluster +[*] -[]", "subscribe Listener +[*] -[]", "apply 1")
		r.send(resource.RuntimeType, "1", fakexds.Runtime("two", "a", 2))
		r.expect("ack Runtime 1")
		if got := r.m.deps.Runtime.Key("a").Integer(0); got != 2 {
			t.Errorf("a = %d, want 2", got)
		}
		r.proxy.mu.Lock()
		defer r.proxy.mu.Unlock()
		if n := r.proxy.notices[0]; n.Kind != mesh.NoticeConfigTimeout || !strings.Contains(n.Config.Errors[0].Reason, `"one" did not come within 3s`) {
			t.Errorf("notice %+v", n.Config)
		}
	})
}

// TestBadLayersAreNamed: what is good of a response is in force, and what is bad stays as it was.
func TestBadLayersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, withLayers(0, 0), nil)
		defer r.stop()
		r.send(resource.RuntimeType, "1", fakexds.Runtime("one", "a", 1), fakexds.Runtime("two", "b", 1))
		r.said()
		bad := &runtimepb.Runtime{Name: "two", Layer: &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNullValue()}}}
		r.send(resource.RuntimeType, "2", fakexds.Runtime("one", "a", 2), bad)
		if got := r.said(); !strings.HasPrefix(got, `nack Runtime 2: runtime "two": layer: the key "x" has a value of a type`) ||
			strings.Contains(got, `"one"`) {
			t.Errorf("said %s", got)
		}
		rt := r.m.deps.Runtime
		if a, b := rt.Key("a").Integer(0), rt.Key("b").Integer(0); a != 2 || b != 1 {
			t.Errorf("a = %d, b = %d; want 2 and 1", a, b)
		}
		if s := r.status(); !strings.Contains(s.Degraded, "the last runtime update was refused") || r.stat("runtime.update_rejected") != "1" {
			t.Errorf("degraded: %s", s.Degraded)
		}
		// A stranger, which nobody asked for, is none of our business.
		r.send(resource.RuntimeType, "3", fakexds.Runtime("one", "a", 3), fakexds.Runtime("stranger", "a", 9))
		r.expect("ack Runtime 3")
		if s := r.status(); strings.Contains(s.Degraded, "refused") {
			t.Errorf("degraded: %s", s.Degraded)
		}
		if got := rt.Key("a").Integer(0); got != 3 {
			t.Errorf("a = %d, want 3", got)
		}
	})
}

// TestLayersGo: a layer that is removed, or has outlived its time, is empty, and comes again.
func TestLayersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, withLayers(0, 0), nil)
		defer r.stop()
		r.send(resource.RuntimeType, "1", fakexds.Runtime("one", "a", 1), fakexds.Runtime("two", "a", 2))
		r.said()
		a := r.m.deps.Runtime.Key("a")
		r.stream.out <- ads.Response{TypeURL: resource.RuntimeType, Nonce: "n", Delta: true, Version: "2", Removed: []string{"two"}}
		r.expect("ack Runtime 2")
		if got := a.Integer(0); got != 1 {
			t.Errorf("after the removal: a = %d, want that of the other layer", got)
		}
		r.stream.out <- ads.Expired{TypeURL: resource.RuntimeType, Names: []string{"one"}}
		synctest.Wait()
		if got := a.Integer(0); got != 0 {
			t.Errorf("after the end of its time: a = %d, want none", got)
		}
		r.send(resource.RuntimeType, "3", fakexds.Runtime("one", "a", 4))
		r.expect("ack Runtime 3")
		if got := a.Integer(0); got != 4 {
			t.Errorf("a = %d, want 4", got)
		}
		r.stream.out <- ads.Disconnected{}
		synctest.Wait()
		if got := a.Integer(0); got != 4 {
			t.Errorf("without the control plane: a = %d, want 4", got)
		}
	})
}
