// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

const filterType = "filter"

// discover makes the snapshot of a rig one with a listener whose chain's end comes by itself, under the key "f".
func (r *rig) discover() {
	r.snap = &mesh.Snapshot{
		ID: 1, Clusters: map[string]*mesh.Cluster{}, RouteTables: map[string]*mesh.RouteTable{},
		Listeners: map[string]*mesh.Listener{"http": {
			Name: "http", Address: mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, BindToPort: true,
			Chains: []*mesh.FilterChain{{Key: "1", Discovery: &mesh.FilterDiscovery{Key: "f", Types: filterType}}},
		}},
	}
	r.apply()
	r.addr = r.Listeners()[0].Bound.String()
}

// TestChainEndsChangeUnderLoad: under requests on connections that last and on new ones, the connection manager of a chain comes
// again and again with another route table, and what the one before named goes; in between it is a TCP proxy. No request fails.
func TestChainEndsChangeUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.discover()
	addr := backend(t, named("a"))
	// change brings what the graph brings, in its order: what the configuration names, the configuration, and then the end of
	// what the one before named.
	change := func(i int) {
		name := fmt.Sprint("v", i)
		with := *r.snap
		with.Clusters, with.RouteTables = join2(r.snap.Clusters, name, cluster(name, addr)), r.snap.RouteTables
		config := &mesh.Extension{TypeURL: filterType, Config: &mesh.TCPProxy{StatPrefix: "in", Clusters: []mesh.WeightedCluster{{Name: name, Weight: 1}}}}
		if i%4 > 0 {
			with.RouteTables = join2(r.snap.RouteTables, name, &mesh.RouteTable{
				Name: name, Hosts: []*mesh.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*mesh.Route{prefix("/", to(name))}}},
			})
			m := manager()
			m.RouteTable = name
			config.Config = m
		}
		r.snap = &with
		r.apply()
		r.SetExtension("f", config)
		without := with
		without.Clusters, without.RouteTables = only(with.Clusters, name), only(with.RouteTables, name)
		r.snap = &without
		r.apply()
	}
	change(1)
	var served atomic.Int64
	more, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for w := range 6 {
		own := &http.Client{Timeout: hang, Transport: &http.Transport{DisableKeepAlives: w%2 == 0}}
		defer own.CloseIdleConnections()
		get := func() bool {
			resp, err := own.Get("http://" + r.addr)
			if err != nil {
				t.Error(err)
				return false
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, b)
				return false
			}
			served.Add(1)
			return true
		}
		// A connection that is kept begins with the first version, which is HTTP: over a TCP proxy, all its requests would have one
		// outcome together.
		get()
		wg.Go(func() {
			for get() {
				select {
				case more <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for i := 2; i <= 60 && !t.Failed(); i++ {
		for range 6 {
			<-more
		}
		change(i)
	}
	close(stop)
	wg.Wait()
	for _, o := range r.rec.wait(t, int(served.Load())) {
		if o.Kind == mesh.OutcomeHTTP && (o.Failure != mesh.NoFailure || o.Status != 200) {
			t.Errorf("outcome %+v", o)
		}
	}
}

func join2[V any](m map[string]V, name string, v V) map[string]V {
	out := map[string]V{name: v}
	for k, old := range m {
		out[k] = old
	}
	return out
}

func only[V any](m map[string]V, name string) map[string]V {
	out := map[string]V{}
	if v, ok := m[name]; ok {
		out[name] = v
	}
	return out
}

// TestRouterComesByItself: without its configuration requests are answered 500; each sees the one that is in force.
func TestRouterComesByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := manager()
	m.RouterDiscovery = &mesh.FilterDiscovery{Key: "router", Types: "router"}
	r.SetExtension("router", &mesh.Extension{TypeURL: "other", Config: "something else"})
	r.serve(m, []*mesh.Route{prefix("/", to("c"))}, cluster("c", backend(t, named("a"))))
	if status, _, _ := r.get("/"); status != 500 {
		t.Errorf("without a configuration: %d", status)
	}
	if o := r.rec.wait(t, 1)[0]; o.Flags != mesh.FlagNFCF || o.Details != "missing_filter_config" {
		t.Errorf("outcome %v %q", o.Flags, o.Details)
	}
	for _, suppress := range []bool{false, true, false} {
		r.SetExtension("router", &mesh.Extension{TypeURL: "router", Config: mesh.Router{SuppressEnvoyHeaders: suppress}})
		status, _, h := r.get("/")
		if status != 200 || (h.Get("x-envoy-upstream-service-time") == "") != suppress {
			t.Errorf("suppressed %v: %d, %v", suppress, status, h)
		}
	}
}
