// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestEndpointsFlip: a thousand times a second, one endpoint of ten of one cluster of many changes, each time of another
// cluster; that costs what the one cluster costs, and no cluster is built anew (F10). The control plane costs next to nothing, so that the
// time of the first push is the proxy's, too (F09). SOAK=1 makes it 10,000 clusters of ten endpoints and 50,000 routes.
func TestEndpointsFlip(t *testing.T) {
	m := many{clusters: 200, routes: 1_000, origin: origin.Start(t, "a", nil).Addr()}
	flips := 1_000
	if soak() {
		m.clusters, m.routes, flips = 10_000, 50_000, 60_000
	}
	cp := fakexds.StartLean(t, m.resources())
	var states [2][]*discoverypb.Resource // of each cluster but the first
	for turn := range states {
		for c := 1; c < m.clusters; c++ {
			states[turn] = append(states[turn], fakexds.Encode(t, m.endpoints(c, turn), fmt.Sprint(turn)))
		}
	}
	began := time.Now()
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "DELTA_GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	first := processor(t, p.Pid())
	_, peak := memory(t, p.Pid())
	t.Logf("figure: %d clusters x 10 endpoints, %d routes: ready after %v with %v of processor time, at most %d MiB",
		m.clusters, m.routes, time.Since(began).Round(time.Millisecond), first, peak>>20)

	addr := p.Admin().Listeners()["l0"]
	l := load.Start(t, load.Options{Workers: 4, Rate: 400, Addr: func() string { return addr }})
	l.After(400)
	idle, idleAt := processor(t, p.Pid()), time.Now()
	l.After(2_000)
	quiet := (processor(t, p.Pid()) - idle).Seconds() / time.Since(idleAt).Seconds()
	modified := p.Admin().Stats()["cluster_manager.cluster_modified"]
	before, since := processor(t, p.Pid()), time.Now()
	flip(cp, states, flips)
	until(t, "every change is accepted", func() bool { return cp.Acked() == int64(flips) || len(cp.Nacks()) > 0 })
	took := time.Since(since)
	used := processor(t, p.Pid()) - before - time.Duration(quiet*float64(took))
	t.Logf("figure: %d changes of one endpoint: %.0f/s, %v of processor time each, beside %.1f%% of a processor for the load",
		flips, float64(flips)/took.Seconds(), (used / time.Duration(flips)).Round(time.Microsecond), 100*quiet)
	if n := p.Admin().Stats()["cluster_manager.cluster_modified"]; n != modified {
		t.Errorf("%d clusters were built anew for changes of endpoints", n-modified)
	}
	if list := cp.Nacks(); len(list) > 0 {
		t.Errorf("refused: %q", list)
	}
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: %v", res)
	}
}

// flip sends n changes, a thousand a second where the control plane and the proxy keep up with that.
func flip(cp *fakexds.Lean, states [2][]*discoverypb.Resource, n int) {
	const each = 10 // in as many milliseconds
	tick := time.NewTicker(each * time.Millisecond)
	defer tick.Stop()
	clusters := len(states[0])
	for i := range n {
		if i%each == 0 {
			<-tick.C
		}
		cp.Push(fakexds.EndpointType, states[(1+i/clusters)%2][i%clusters])
	}
}
