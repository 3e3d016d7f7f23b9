// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/fakexds"
)

// world is what a control plane says, in a form in which each part shows in the answers.
type world struct {
	// cluster is the name of the cluster behind "/", host the name that its endpoint gives the request, and endpoint
	// where that is.
	cluster, host string
	endpoint      netip.AddrPort
	// fixed is the name that the endpoint of the cluster "fixed", behind /fixed, gives the request.
	fixed string
	// route is a header of the answers, server the listener's name for itself.
	route, server string
	// extra is the name of a second listener, "" for none.
	extra string
}

func (w *world) clusters() []types.Resource {
	fixed := fakexds.StaticCluster("fixed", w.endpoint)
	name(fixed.GetLoadAssignment(), w.fixed)
	return []types.Resource{fakexds.EDSCluster(w.cluster), fixed}
}

func (w *world) endpoints() []types.Resource {
	e := fakexds.Endpoints(w.cluster, w.endpoint)
	name(e, w.host)
	return []types.Resource{e}
}

func name(a *endpointpb.ClusterLoadAssignment, host string) {
	a.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().Hostname = host
}

func (w *world) routes() []types.Resource {
	table := fakexds.Routes("routes", w.cluster, "fixed")
	for _, r := range table.GetVirtualHosts()[0].GetRoutes() {
		a := r.GetRoute()
		a.HostRewriteSpecifier = &routepb.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
		r.ResponseHeadersToAdd = []*corepb.HeaderValueOption{
			header("x-routed-to", a.GetCluster()), header("x-cluster", "%UPSTREAM_CLUSTER%"), header("x-route", w.route),
		}
	}
	return []types.Resource{table}
}

func header(name, value string) *corepb.HeaderValueOption {
	return &corepb.HeaderValueOption{Header: &corepb.HeaderValue{Key: name, Value: value}}
}

func (w *world) listeners(t testing.TB) []types.Resource {
	at := netip.MustParseAddrPort("127.0.0.1:0")
	out := []types.Resource{manager(t, fakexds.Listener("main", at, "routes"), func(m *hcmpb.HttpConnectionManager) { m.ServerName = w.server })}
	if w.extra != "" {
		out = append(out, fakexds.Listener(w.extra, at, "routes"))
	}
	return out
}

// manager changes the connection manager of a listener.
func manager(t testing.TB, l *listenerpb.Listener, change func(*hcmpb.HttpConnectionManager)) *listenerpb.Listener {
	t.Helper()
	f := l.GetFilterChains()[0].GetFilters()[0]
	m := &hcmpb.HttpConnectionManager{}
	if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	change(m)
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: a}
	return l
}

// all returns everything, as one snapshot.
func (w *world) all(t testing.TB) map[string][]types.Resource {
	return map[string][]types.Resource{
		fakexds.ClusterType: w.clusters(), fakexds.EndpointType: w.endpoints(),
		fakexds.RouteType: w.routes(), fakexds.ListenerType: w.listeners(t),
	}
}

// newWorld returns the beginning.
func newWorld(r *examples.Rig) *world {
	return &world{cluster: "c0", host: "e0", endpoint: r.A.Addr(), fixed: "f0", route: "r0", server: "l0"}
}

// variants are the examples of the two variants of the protocol.
var variants = []string{"ads.yaml", "xds-delta.yaml"}

// inBoth runs a test in both variants of the protocol.
func inBoth(t *testing.T, test func(t *testing.T, example string)) {
	t.Parallel()
	for _, example := range variants {
		t.Run(strings.TrimSuffix(example, ".yaml"), func(t *testing.T) {
			t.Parallel()
			test(t, example)
		})
	}
}

// controlled starts a proxy under a control plane that says what the world is.
func controlled(t *testing.T, args ...string) (*examples.Rig, *world) {
	t.Helper()
	return controlledAs(t, "ads.yaml", args...)
}

// controlledAs is controlled with the bootstrap of an example.
func controlledAs(t *testing.T, example string, args ...string) (*examples.Rig, *world) {
	t.Helper()
	r := examples.NewRig(t)
	text := r.Read(example)
	w := newWorld(r)
	r.Resource = func() map[string][]types.Resource { return w.all(t) }
	r.Start(text, "", args...)
	return r, w
}

// answers collects what a control plane is told until the test ends.
type answers struct {
	acks, nacks map[string]int
	details     []string
}

// collect reads the answers that have come so far.
func (a *answers) collect(s *fakexds.Server) {
	for {
		select {
		case got := <-s.Answers():
			a.add(got)
		default:
			return
		}
	}
}

func (a *answers) add(got fakexds.Answer) {
	if a.acks == nil {
		a.acks, a.nacks = map[string]int{}, map[string]int{}
	}
	switch short := fakexds.Short(got.TypeURL); {
	case got.Nack:
		a.nacks[short]++
		a.details = append(a.details, got.Detail)
	case got.Ack:
		a.acks[short]++
	}
}

// total adds the numbers of all types.
func total(m map[string]int) (sum int) {
	for _, n := range m {
		sum += n
	}
	return sum
}

// hostOf returns the host of the first line of an origin's answer.
func hostOf(body string) string {
	line, _, _ := strings.Cut(body, "\n")
	return line[strings.LastIndexByte(line, ' ')+1:]
}

// seen is what an answer shows of the world.
type seen struct{ origin, host, cluster, route, server string }

func see(a examples.Answer) seen {
	var s seen
	if a.Status == http.StatusOK {
		s.origin, s.host = a.Header.Get("X-Origin"), hostOf(a.Body)
	}
	s.cluster, s.route, s.server = a.Header.Get("X-Cluster"), a.Header.Get("X-Route"), a.Header.Get("Server")
	return s
}
