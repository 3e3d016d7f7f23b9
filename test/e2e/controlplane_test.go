// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// The control plane dies and comes back while requests are made: none fails, and what it says when it is back goes into
// force (F02, F03).
func TestControlPlaneRestarts(t *testing.T) { inBoth(t, controlPlaneRestarts) }

func controlPlaneRestarts(t *testing.T, example string) {
	kills := 5
	if soak() {
		kills = 100
	}
	r, w := controlledAs(t, example)
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
			want: []string{`"bad"`, "connect_timeout: must be more than 0s"}, also: changes()[4],
		},
		{
			name: "a listener on an address that is taken", typ: fakexds.ListenerType, kind: "listener",
			bad: func() []types.Resource {
				return append(w.listeners(t), fakexds.Listener("taken", r.B.Addr(), "routes"))
			},
			want: []string{`"taken"`, r.B.Addr().String(), "in use"}, also: changes()[3],
		},
		{
			name: "a filter that is not known", typ: fakexds.ListenerType, kind: "listener",
			bad: func() []types.Resource {
				l := fakexds.Listener("odd", netip.MustParseAddrPort("127.0.0.1:0"), "routes")
				odd := &hcmpb.HttpFilter{
					Name: "odd.filter", ConfigType: &hcmpb.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/odd.v1.Filter"}},
				}
				manager(t, l, func(m *hcmpb.HttpConnectionManager) {
					m.HttpFilters = append([]*hcmpb.HttpFilter{odd}, m.HttpFilters...)
				})
				return append(w.listeners(t), l)
			},
			want: []string{
				`"odd"`, "filter_chains[0].filters[0].typed_config.http_filters[0]", "odd.filter", "odd.v1.Filter",
				"supported: envoy.extensions.filters.http.router.v3.Router",
			},
			also: changes()[3],
		},
		{
			name: "endpoints that cannot be", typ: fakexds.EndpointType, kind: "endpoints",
			bad: func() []types.Resource {
				e := fakexds.Endpoints(w.cluster, w.endpoint)
				e.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "nowhere.example"
				return []types.Resource{e}
			},
			want: []string{fmt.Sprintf("%q", w.cluster), "endpoints[0].lb_endpoints[0].endpoint.address", "is not an IP address"},
		},
	} {
		version := fmt.Sprint("bad-", i)
		if tc.also.do != nil {
			tc.also.do(w, r, i+1)
		}
		// The server sends what was refused once more, so that the last one may have been refused twice.
		new(answers).collect(r.ControlPlane)
		r.ControlPlane.Set(tc.typ, version, tc.bad()...)
		detail := nack(t, r, tc.typ)
		for _, want := range tc.want {
			if !strings.Contains(detail, want) {
				t.Errorf("%s: the control plane is told %q, without %q", tc.name, detail, want)
			}
		}
		t.Logf("%s: %s", tc.name, detail)
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
		t.Logf("figure: 5 bad responses: %v", res)
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
	admin.Until("/ready", func(status int, body string) bool {
		return status == 503 && strings.HasPrefix(body, "INITIALIZING\n") && strings.Contains(body, "waiting for the control plane's first cluster response\n")
	})
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

// firsts collects what a proxy asks for first of each type on the streams from number on, until it has asked for all.
func firsts(t *testing.T, s *fakexds.Server, number int) map[string]fakexds.Answer {
	t.Helper()
	out := map[string]fakexds.Answer{}
	for limit := time.After(sidecar.Hang); len(out) < 4; {
		select {
		case a := <-s.Answers():
			if _, some := out[fakexds.Short(a.TypeURL)]; !some && a.Stream >= number {
				out[fakexds.Short(a.TypeURL)] = a
			}
		case <-limit:
			t.Fatalf("only these were asked for: %v", out)
		}
	}
	return out
}

// On a new stream the proxy says which versions it has, of all types, and asks for the same names; what has not changed
// meanwhile changes nothing.
func TestSubscribesAnewWithItsVersions(t *testing.T) { inBoth(t, subscribesAnew) }

func subscribesAnew(t *testing.T, example string) {
	r, w := controlledAs(t, example)
	before := firsts(t, r.ControlPlane, 1)
	for short, a := range before {
		if a.Version != "" || a.Nonce != "" || len(a.Initial) > 0 {
			t.Errorf("the very first request for %s has version %q, versions %v and nonce %q", short, a.Version, a.Initial, a.Nonce)
		}
	}
	// Something of each type changes, or there would be nothing to send incrementally.
	w.host, w.route, w.server, w.fixed = "e7", "r7", "l7", "f7"
	r.ControlPlane.SetAll("7", w.all(t))
	r.Admin.Until("/xds", func(int, string) bool { return synced(r.Admin.XDS(), "7") })
	_, streams := r.ControlPlane.Counts()
	modified := r.Admin.Stats()["listener_manager.listener_modified"]
	r.ControlPlane.Kill()
	r.Admin.Until("/xds", func(int, string) bool { return !r.Admin.XDS().Connected })
	r.ControlPlane.Restart()
	for short, a := range firsts(t, r.ControlPlane, streams+1) {
		if !knows(a, "7") || a.Nonce != "" {
			t.Errorf("%s on the new stream: version %q, versions %v, nonce %q; want those in force and none", short, a.Version, a.Initial, a.Nonce)
		}
		if names := before[short].Names; fmt.Sprint(a.Names) != fmt.Sprint(names) {
			t.Errorf("%s on the new stream: %q, want %q", short, a.Names, names)
		}
		if !a.Delta && !a.HasNode { // without set_node_on_first_message_only it goes with each request, as from Envoy
			t.Errorf("%s on the new stream: without the node", short)
		}
	}
	r.Admin.Until("/xds", func(int, string) bool { return r.Admin.XDS().Connected })
	if s := r.Admin.Stats(); s["listener_manager.listener_modified"] != modified || s["listener_manager.total_listeners_draining"] != 0 {
		t.Errorf("what has not changed was changed: modified %d, draining %d", s["listener_manager.listener_modified"]-modified, s["listener_manager.total_listeners_draining"])
	}
}

// knows reports whether a first request tells what is in force: the version, or that of each resource.
func knows(a fakexds.Answer, version string) bool {
	if !a.Delta {
		return a.Version == version
	}
	for _, v := range a.Initial {
		if v == "" {
			return false
		}
	}
	return len(a.Initial) > 0
}

// synced reports whether all types have this version in force.
func synced(x sidecar.XDS, version string) bool {
	n := 0
	for _, typ := range x.Types {
		if typ.State == "synced" && typ.Version == version {
			n++
		}
	}
	return n == 4
}

// The control plane goes and another one is at another address, with other versions: the proxy finds it among the
// addresses of its cluster, and no request fails.
func TestControlPlaneMoves(t *testing.T) {
	t.Parallel()
	r := examples.NewRig(t)
	text, w := r.Read("ads.yaml"), newWorld(r)
	r.Resource = func() map[string][]types.Resource { return w.all(t) }
	other := fakexds.Start(t)
	other.Kill()
	one := hostLine(r.ControlPlane)
	if !strings.Contains(text, one) {
		t.Fatalf("ads.yaml has no %q", one)
	}
	r.Start(strings.Replace(text, one, one+", "+hostLine(other), 1), "")
	l := load.Start(t, load.Options{Workers: 8, Rate: 800, Addr: func() string { return r.Addr("main") }, Check: oneTruth})
	l.After(100)
	r.ControlPlane.Kill()
	r.Admin.Until("/xds", func(int, string) bool { return !r.Admin.XDS().Connected })
	w.route = "of-the-other"
	other.SetAll("other-1", w.all(t))
	other.Restart()
	r.Admin.Until("/xds", func(int, string) bool { return synced(r.Admin.XDS(), "other-1") })
	observe(t, r, w, changes()[1], 1)
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	} else {
		t.Logf("figure: %v", res)
	}
}

// hostLine is the endpoint of a control plane as ads.yaml has it.
func hostLine(s *fakexds.Server) string {
	at := netip.MustParseAddrPort(s.Addr())
	return fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}", at.Port())
}

// Without a control plane each try waits longer than the one before may, and two proxies do not try at the same moments.
func TestBackOffGrowsWithJitter(t *testing.T) {
	t.Parallel()
	const tries = 4
	r := examples.NewRig(t)
	text := r.Read("ads.yaml")
	r.ControlPlane.Kill()
	var waits [2][]float64
	var proxies [2]*sidecar.Proxy
	for i := range proxies {
		proxies[i] = sidecar.Run(t, sidecar.Options{Bootstrap: text})
	}
	for i, p := range proxies {
		p.Logged(fmt.Sprintf(`(?s)(the xDS stream has ended.*){%d}`, tries))
		for _, m := range retryIn.FindAllStringSubmatch(p.Log(), tries) {
			wait, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			waits[i] = append(waits[i], wait)
		}
		for n, wait := range waits[i] {
			if bound := float64(int(1) << n); wait < 0 || wait >= bound {
				t.Errorf("try %d waits %v s, want less than %v s", n, wait, bound)
			}
		}
	}
	if slices.Equal(waits[0], waits[1]) {
		t.Errorf("both proxies wait the same: %v", waits[0])
	}
}

var retryIn = regexp.MustCompile(`"msg":"the xDS stream has ended".*"retry_in":([0-9.e-]+)`)
