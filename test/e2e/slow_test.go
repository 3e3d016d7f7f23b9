// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestControlPlaneDrips: a control plane that sends a byte a second, or nothing at all, does not hold the start up longer than
// initial_fetch_timeout, and does nothing to traffic; what it sends goes into force when it has come whole (F15).
func TestControlPlaneDrips(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, api string
		every     time.Duration
	}{
		{"a byte a second", "GRPC", time.Second},
		{"a byte a second, incremental", "DELTA_GRPC", time.Second},
		{"nothing", "GRPC", time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			drips(t, tc.api, tc.every)
		})
	}
}

func drips(t *testing.T, api string, every time.Duration) {
	requests := int64(500)
	if soak() {
		requests = 10_000
	}
	m := many{clusters: 2, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	cp.SetAll("1", m.resources())
	cp.Drip(every)
	began := time.Now()
	p := sidecar.Run(t, sidecar.Options{
		Bootstrap: strings.ReplaceAll(dynamic(cp, api), "{ads: {}, ", "{ads: {}, initial_fetch_timeout: 1s, "), Args: []string{"--no-tap"},
	})
	p.Ready()
	t.Logf("figure: ready %v after the process began, with an initial_fetch_timeout of 1s", time.Since(began).Round(time.Millisecond))
	p.Logged("no answer from the control plane within 1s")
	cp.Drip(0)
	p.Admin().UntilStats(func(s sidecar.Stats) bool { return s["listener_manager.total_listeners_active"] == 10 })
	addr := p.Admin().Listeners()["l0"]
	l := load.Start(t, load.Options{Workers: 4, Rate: 400, Addr: func() string { return addr }})
	l.After(20)
	cp.Drip(every)
	table := &routepb.RouteConfiguration{Name: "l0", VirtualHosts: []*routepb.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routepb.Route{routeTo("/", "c0")},
	}}}
	cp.Set(fakexds.RouteType, "2", append([]types.Resource{table}, m.resources()[fakexds.RouteType][1:]...)...)
	l.After(requests)
	cp.Drip(0)
	p.Admin().Until("/xds", func(status int, _ string) bool {
		return status == http.StatusOK && p.Admin().XDS().Of("route_configuration").Version == "2"
	})
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: %v", res)
	}
}
