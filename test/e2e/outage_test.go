// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostspb "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// outage is how long the control plane is away: with SOAK=1 what OUTAGE says, half an hour where it says nothing.
func outage(t *testing.T) time.Duration {
	if !soak() {
		return 5 * time.Second
	}
	text := os.Getenv("OUTAGE")
	if text == "" {
		return 30 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestControlPlaneOutage: the control plane is away and half of the ten endpoints die, one after the other. What was in force
// last goes on: the dead are ejected, what meets one of them first is tried again elsewhere, and no request fails. That the
// control plane is away is said; when it is back, what it says goes into force (F02).
func TestControlPlaneOutage(t *testing.T) {
	t.Parallel()
	const endpoints, dying = 10, 5
	var hosts []*origin.HTTP
	var at []netip.AddrPort
	for i := range endpoints {
		hosts = append(hosts, origin.Start(t, fmt.Sprint("e", i), nil))
		at = append(at, hosts[i].Addr())
	}
	cp := fakexds.Start(t)
	cp.SetAll("1", ejecting(at))
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "DELTA_GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	addr := p.Admin().Listeners()["main"]
	l := load.Start(t, load.Options{Workers: 8, Rate: 400, Addr: func() string { return addr }})
	l.After(400)
	r := &examples.Rig{Proxy: p, Admin: p.Admin()}
	heap, before := liveHeap(t, r.Admin), look(t, r)
	away := outage(t)
	cp.Kill()
	began := time.Now()
	p.Admin().Until("/xds", func(_ int, body string) bool { return strings.Contains(body, "not connected to the control plane") })
	t.Logf("figure: said that the control plane is away after %v", time.Since(began).Round(time.Millisecond))
	pace := time.NewTicker(away / (dying + 1))
	defer pace.Stop()
	for _, h := range hosts[:dying] {
		<-pace.C
		h.Close()
	}
	<-pace.C
	s := p.Admin().UntilStats(func(s sidecar.Stats) bool {
		return s["cluster.c.outlier_detection.ejections_enforced_total"] >= dying
	})
	after := look(t, r)
	t.Logf("figure: away for %v, %d of %d endpoints died: %d ejections, %d retries; %d KiB allocated before and %d KiB after, %d descriptors and %d, %d goroutines and %d",
		time.Since(began).Round(time.Second), dying, endpoints, s["cluster.c.outlier_detection.ejections_enforced_total"], s["cluster.c.upstream_rq_retry"],
		heap>>10, liveHeap(t, r.Admin)>>10, before.files, after.files, before.goroutines, after.goroutines)
	cp.SetAll("2", ejecting(at[dying:]))
	cp.Restart()
	p.Admin().UntilStats(func(s sidecar.Stats) bool { return s["cluster.c.membership_total"] == endpoints-dying })
	if body := p.Admin().Get("/ready"); body != "LIVE\n" {
		t.Errorf("/ready says %q with the control plane back", body)
	}
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: %v", res)
	}
}

// ejecting is a listener "main" before a cluster "c" of these endpoints, whose dead are ejected; requests are tried again.
func ejecting(endpoints []netip.AddrPort) map[string][]types.Resource {
	c := fakexds.EDSCluster("c")
	c.OutlierDetection = &clusterpb.OutlierDetection{
		Consecutive_5Xx: wrapperspb.UInt32(2), Interval: durationpb.New(100 * time.Millisecond), BaseEjectionTime: durationpb.New(time.Second),
		MaxEjectionPercent: wrapperspb.UInt32(100), EnforcingSuccessRate: wrapperspb.UInt32(0),
	}
	r := routeTo("/", "c")
	previous, err := anypb.New(&previoushostspb.PreviousHostsPredicate{})
	if err != nil {
		panic(err)
	}
	// As istiod sends it, and one more try than endpoints can be dead: where none is asked twice, one that lives is found.
	r.GetRoute().RetryPolicy = &routepb.RetryPolicy{
		RetryOn: "connect-failure,reset", NumRetries: wrapperspb.UInt32(5),
		RetryHostPredicate: []*routepb.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routepb.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previous},
		}},
		HostSelectionRetryMaxAttempts: 5,
	}
	return map[string][]types.Resource{
		fakexds.ClusterType: {c}, fakexds.EndpointType: {fakexds.Endpoints("c", endpoints...)},
		fakexds.RouteType: {&routepb.RouteConfiguration{Name: "r", VirtualHosts: []*routepb.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*routepb.Route{r},
		}}}},
		fakexds.ListenerType: {fakexds.Listener("main", netip.MustParseAddrPort("127.0.0.1:0"), "r")},
	}
}
