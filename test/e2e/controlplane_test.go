// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// The control plane dies and comes back while requests are made: none fails, and what it says when it is back goes into
// force (F02, F03).
func TestControlPlaneRestarts(t *testing.T) {
	t.Parallel()
	kills := 5
	if soak() {
		kills = 100
	}
	r, w := controlled(t)
	var told answers
	l := load.Start(t, load.Options{Workers: 8, Rate: 800, Addr: func() string { return r.Addr("main") }, Check: oneTruth})
	route := changes()[1]
	for i := 1; i <= kills; i++ {
		r.ControlPlane.Kill()
		r.Admin.Until("/xds", func(int, string) bool { return !r.Admin.XDS().Connected })
		l.After(100)
		route.do(w, r, i)
		r.ControlPlane.Set(fakexds.RouteType, fmt.Sprint("v", i), w.routes()...)
		r.ControlPlane.Restart()
		observe(t, r, w, route, i)
		told.collect(r.ControlPlane)
	}
	for i := range kills {
		r.ControlPlane.KillStreams()
		route.do(w, r, kills+1+i)
		r.ControlPlane.Set(fakexds.RouteType, fmt.Sprint("v", kills+1+i), w.routes()...)
		observe(t, r, w, route, kills+1+i)
		told.collect(r.ControlPlane)
	}
	res := l.Stop()
	connections, streams := r.ControlPlane.Counts()
	t.Logf("figure: the control plane was killed %d times and its streams %d times: %d connections, %d streams", kills, kills, connections, streams)
	t.Logf("figure: %v", res)
	if res.Failed > 0 || len(told.nacks) > 0 {
		t.Errorf("%d of %d requests failed: %q; refused: %v", res.Failed, res.Requests, res.Failures, told.details)
	}
}

// What is refused is named, to the control plane and to the operator; what was good stays, and what is good beside it goes
// into force (F04).
func TestBadConfigurationIsRefusedByName(t *testing.T) {
	t.Parallel()
	r, w := controlled(t)
	l := load.Start(t, load.Options{Workers: 4, Rate: 400, Addr: func() string { return r.Addr("main") }, Check: oneTruth})
	l.After(20)
	badRoutes := func() []types.Resource {
		table := w.routes()[0].(*routepb.RouteConfiguration)
		table.GetVirtualHosts()[0].GetRoutes()[0].Match.PathSpecifier = &routepb.RouteMatch_SafeRegex{
			SafeRegex: &matcherpb.RegexMatcher{Regex: "/("},
		}
		return []types.Resource{table}
	}
	badCluster := fakexds.StaticCluster("bad", r.A.Addr())
	badCluster.ConnectTimeout = durationpb.New(-time.Second)
	good := *w
	for i, tc := range []struct {
		name, typ string
		bad       func() []types.Resource
		kind      string
		want      []string // in the reason
		also      change   // takes effect although it comes with what is bad
	}{
		{
			name: "a route that cannot be", typ: fakexds.RouteType, bad: badRoutes, kind: "route_configuration",
			want: []string{`"routes"`, "virtual_hosts[0].routes[0].match.safe_regex"},
		},
		{
			name: "one cluster of three", typ: fakexds.ClusterType, kind: "cluster",
			bad:  func() []types.Resource { return append(w.clusters(), badCluster) },
			want: []string{`"bad"`, "connect_timeout"}, also: changes()[4],
		},
		{
			name: "a listener on an address that is taken", typ: fakexds.ListenerType, kind: "listener",
			bad: func() []types.Resource {
				return append(w.listeners(t), fakexds.Listener("taken", r.B.Addr(), "routes"))
			},
			want: []string{`"taken"`, r.B.Addr().String(), "in use"}, also: changes()[3],
		},
		{
			name: "endpoints that cannot be", typ: fakexds.EndpointType, kind: "endpoints",
			bad: func() []types.Resource {
				e := fakexds.Endpoints(w.cluster, w.endpoint)
				e.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "nowhere.example"
				return []types.Resource{e}
			},
			want: []string{fmt.Sprintf("%q", w.cluster), "endpoints[0].lb_endpoints[0].endpoint.address"},
		},
	} {
		version := fmt.Sprint("bad-", i)
		if tc.also.do != nil {
			tc.also.do(w, r, i+1)
		}
		r.ControlPlane.Set(tc.typ, version, tc.bad()...)
		detail := nack(t, r, tc.typ)
		for _, want := range tc.want {
			if !strings.Contains(detail, want) {
				t.Errorf("%s: the control plane is told %q, without %q", tc.name, detail, want)
			}
		}
		x := r.Admin.XDS().Of(tc.kind)
		if x.State != "rejected" || len(x.Rejected) != 1 || x.Rejected[0].Reason != detail {
			t.Errorf("%s: the operator is told %+v, the control plane %q", tc.name, x, detail)
		}
		if tc.also.do != nil {
			observe(t, r, w, tc.also, i+1)
		}
		l.After(20)
		// The next version is good again, and that is said too.
		r.ControlPlane.SetAll(fmt.Sprint("good-", i), map[string][]types.Resource{tc.typ: w.all(t)[tc.typ]})
		r.Admin.Until("/xds", func(int, string) bool {
			x := r.Admin.XDS().Of(tc.kind)
			return x.State == "synced" && len(x.Rejected) == 0 && x.Version == fmt.Sprint("good-", i)
		})
	}
	*w = good
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: 4 bad responses: %v", res)
	}
}

// nack waits for the next refusal of a type and returns the reason.
func nack(t *testing.T, r *examples.Rig, typ string) string {
	t.Helper()
	limit := time.After(sidecar.Hang)
	for {
		select {
		case a := <-r.ControlPlane.Answers():
			if a.Nack && a.TypeURL == typ {
				return a.Detail
			}
		case <-limit:
			t.Fatalf("%s was not refused: %+v", fakexds.Short(typ), r.Admin.XDS())
		}
	}
}

// A proxy that starts without a control plane waits for it, says so, and serves once it is there.
func TestStartsWithoutControlPlane(t *testing.T) {
	t.Parallel()
	r := examples.NewRig(t)
	text := r.Read("ads.yaml")
	w := newWorld(r)
	r.ControlPlane.Kill()
	p := sidecar.Run(t, sidecar.Options{Bootstrap: text})
	admin := p.Admin()
	if status, body, err := admin.Do("GET", "/ready"); err != nil || status != 503 || !strings.Contains(body, "INITIALIZING") {
		t.Errorf("/ready without a control plane: %d %q, %v", status, body, err)
	}
	p.Logged("the xDS stream has ended")
	r.ControlPlane.SetAll("1", w.all(t))
	r.ControlPlane.Restart()
	p.Ready()
	admin.Until("/ready", func(status int, _ string) bool { return status == 200 })
	r.Proxy, r.Admin = p, admin
	r.Relisten()
	q := examples.Request{Name: "served at last", Listener: "main", Want: examples.Want{Status: 200, Line: "a GET / e0"}}
	q.Check(t, r.Do(q))
}

