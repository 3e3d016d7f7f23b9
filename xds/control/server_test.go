// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/control"
	"github.com/meshtap/meshtap/xds/resource"
)

// parse reads a mesh that must be good.
func parse(t *testing.T, text string) *control.Mesh {
	t.Helper()
	m, err := control.Parse("mesh.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// meshOf is a mesh of the service web, which only calls, and of others with an endpoint each. The port of the endpoints
// tells one mesh from the next, and so does the timeout of the routes.
func meshOf(t *testing.T, port int, timeout string, others ...string) *control.Mesh {
	t.Helper()
	text := "services:\n  web: {}\n"
	for _, name := range others {
		text += fmt.Sprintf("  %s: {endpoints: [{address: 10.0.0.1:%d}], routes: [{timeout: %s}]}\n", name, port, timeout)
	}
	return parse(t, text)
}

// serve runs a server until the test ends and returns a connection to it.
func serve(t *testing.T, m *control.Mesh, patience time.Duration) (*control.Server, discoverypb.AggregatedDiscoveryServiceClient) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := control.New(m, control.Config{Log: zap.NewNop(), Patience: patience})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve ends with %v", err)
		}
		conn.Close()
	})
	return s, discoverypb.NewAggregatedDiscoveryServiceClient(conn)
}

// got is a response: its type, what a client answers it with, and the resources by name.
type got struct {
	typ, version, nonce string
	resources           map[string]*anypb.Any
	removed             []string
}

func (g *got) names() string {
	var out []string
	for name := range g.resources {
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// peer is a proxy: a stream of one of the two variants.
type peer interface {
	// ask subscribes to names of a type, or to all.
	ask(t *testing.T, typ string, names ...string)
	// answer confirms a response, or rejects it where why is not "".
	answer(t *testing.T, g *got, why string)
	receive() (*got, error)
}

// next waits for a response, which must be of this type and hold these names.
func next(t *testing.T, p peer, typ, names string) *got {
	t.Helper()
	g, err := p.receive()
	if err != nil {
		t.Fatalf("instead of %s: %v", typ, err)
	}
	if g.typ != typ || g.names() != names {
		t.Fatalf("received %s %q, removed %q, want %s %q", g.typ, g.names(), g.removed, typ, names)
	}
	return g
}

var web = &corepb.Node{Id: "web-1", Cluster: "web"}

type sotwPeer struct {
	stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node   *corepb.Node // on the first request only
	asked  map[string][]string
	acked  map[string]string
	nonces map[string]string
}

func newSotwPeer(stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient, n *corepb.Node) *sotwPeer {
	return &sotwPeer{stream: stream, node: n, asked: map[string][]string{}, acked: map[string]string{}, nonces: map[string]string{}}
}

func (p *sotwPeer) send(t *testing.T, r *discoverypb.DiscoveryRequest) {
	t.Helper()
	r.Node, p.node = p.node, nil
	if err := p.stream.Send(r); err != nil {
		t.Fatal(err)
	}
}

func (p *sotwPeer) ask(t *testing.T, typ string, names ...string) {
	t.Helper()
	p.asked[typ] = names
	p.send(t, &discoverypb.DiscoveryRequest{TypeUrl: typ, ResourceNames: names, ResponseNonce: p.nonces[typ], VersionInfo: p.acked[typ]})
}

func (p *sotwPeer) answer(t *testing.T, g *got, why string) {
	t.Helper()
	r := &discoverypb.DiscoveryRequest{TypeUrl: g.typ, ResourceNames: p.asked[g.typ], ResponseNonce: g.nonce}
	if why == "" {
		p.acked[g.typ] = g.version
	} else {
		r.ErrorDetail = &statuspb.Status{Message: why}
	}
	r.VersionInfo = p.acked[g.typ]
	p.send(t, r)
}

func (p *sotwPeer) receive() (*got, error) {
	r, err := p.stream.Recv()
	if err != nil {
		return nil, err
	}
	p.nonces[r.TypeUrl] = r.Nonce
	g := &got{typ: r.TypeUrl, version: r.VersionInfo, nonce: r.Nonce, resources: map[string]*anypb.Any{}}
	for _, a := range r.Resources {
		g.resources[nameOf(a)] = a
	}
	return g, nil
}

func nameOf(a *anypb.Any) string {
	m, err := a.UnmarshalNew()
	if err != nil {
		return err.Error()
	}
	switch m := m.(type) {
	case *clusterpb.Cluster:
		return m.Name
	case *endpointpb.ClusterLoadAssignment:
		return m.ClusterName
	case *routepb.RouteConfiguration:
		return m.Name
	case *listenerpb.Listener:
		return m.Name
	}
	return "?"
}

type deltaPeer struct {
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corepb.Node
}

func (p *deltaPeer) send(t *testing.T, r *discoverypb.DeltaDiscoveryRequest) {
	t.Helper()
	r.Node, p.node = p.node, nil
	if err := p.stream.Send(r); err != nil {
		t.Fatal(err)
	}
}

func (p *deltaPeer) ask(t *testing.T, typ string, names ...string) {
	t.Helper()
	p.send(t, &discoverypb.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesSubscribe: names})
}

func (p *deltaPeer) answer(t *testing.T, g *got, why string) {
	t.Helper()
	r := &discoverypb.DeltaDiscoveryRequest{TypeUrl: g.typ, ResponseNonce: g.nonce}
	if why != "" {
		r.ErrorDetail = &statuspb.Status{Message: why}
	}
	p.send(t, r)
}

func (p *deltaPeer) receive() (*got, error) {
	r, err := p.stream.Recv()
	if err != nil {
		return nil, err
	}
	g := &got{typ: r.TypeUrl, version: r.SystemVersionInfo, nonce: r.Nonce, resources: map[string]*anypb.Any{}, removed: r.RemovedResources}
	for _, res := range r.Resources {
		g.resources[res.Name] = res.Resource
	}
	return g, nil
}

// connect opens a stream, which ends with the test.
func connect(t *testing.T, c discoverypb.AggregatedDiscoveryServiceClient, delta bool, n *corepb.Node) peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	t.Cleanup(cancel)
	if delta {
		stream, err := c.DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return &deltaPeer{stream: stream, node: n}
	}
	stream, err := c.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return newSotwPeer(stream, n)
}

// begin subscribes to everything as a proxy does, and confirms all of it. clusters are those that there are.
func begin(t *testing.T, p peer, clusters ...string) {
	t.Helper()
	for _, step := range []struct {
		typ   string
		names []string
		want  string
	}{
		{resource.ClusterType, nil, strings.Join(clusters, " ")}, {resource.EndpointsType, clusters, strings.Join(clusters, " ")},
		{resource.ListenerType, nil, "outbound"}, {resource.RouteType, []string{"outbound"}, "outbound"},
	} {
		if step.typ == resource.EndpointsType && len(clusters) == 0 {
			continue
		}
		p.ask(t, step.typ, step.names...)
		p.answer(t, next(t, p, step.typ, step.want), "")
	}
}

// variants runs a test for both variants of the protocol.
func variants(t *testing.T, test func(t *testing.T, delta bool)) {
	t.Parallel()
	for name, delta := range map[string]bool{"sotw": false, "delta": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, delta)
		})
	}
}

// until waits for a state of the server, which comes from another goroutine's work.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for limit := time.After(hang); !there(); {
		select {
		case <-pace.C:
		case <-limit:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// states are the states of a proxy's types, in order.
func states(p control.Proxy) string {
	var out []string
	for _, t := range p.Types {
		out = append(out, t.Type+" "+t.State)
	}
	return strings.Join(out, ", ")
}

func TestServesNodes(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders", "pay"), time.Hour)
		p := connect(t, c, delta, web)
		begin(t, p, "orders", "pay")
		until(t, "the answers have come", func() bool {
			l := s.Proxies()
			return len(l) == 1 && states(l[0]) == "CDS synced, EDS synced, RDS synced, LDS synced"
		})
		got := s.Proxies()[0]
		if got.ID != "web-1" || got.Service != "web" || !got.Known || got.Stopped != "" || (got.Variant == "delta") != delta || got.Types[0].Acked == "" {
			t.Errorf("%+v", got)
		}
		// One whose service is not in the mesh gets nothing, and that is said.
		stranger := connect(t, c, delta, &corepb.Node{Id: "x", Cluster: "stranger"})
		stranger.ask(t, resource.ClusterType)
		until(t, "it is there", func() bool { return len(s.Proxies()) == 2 })
		if got := s.Proxies()[0]; got.Service != "stranger" || got.Known {
			t.Errorf("%+v", got)
		}
	})
}

// A change comes in the order in which nothing ever leads nowhere, and each step waits for the answer to the one before.
func TestRollsOutInOrder(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		p := connect(t, c, delta, web)
		begin(t, p, "orders")
		all, added := "orders pay", "pay" // what a response holds: everything, or what is new
		if !delta {
			added = all
		}
		s.Set(meshOf(t, 1, "1s", "orders", "pay"))
		clusters := next(t, p, resource.ClusterType, added)
		p.ask(t, resource.EndpointsType, "orders", "pay")
		p.answer(t, clusters, "")
		// Here, only the clusters are confirmed. Routes do not come until the endpoints are. Of these, both variants send
		// what is new, and nothing where they were asked a moment too early.
		for there := false; !there; {
			g, err := p.receive()
			if err != nil || g.typ != resource.EndpointsType || g.names() != "" && g.names() != "pay" {
				t.Fatalf("instead of the endpoints of pay: %+v, %v", g, err)
			}
			there = g.names() == "pay"
			p.answer(t, g, "")
		}
		p.answer(t, next(t, p, resource.RouteType, "outbound"), "")
		until(t, "all is confirmed", func() bool {
			return states(s.Proxies()[0]) == "CDS synced, EDS synced, RDS synced, LDS synced"
		})
		// What goes, goes after the routes to it.
		s.Set(meshOf(t, 1, "1s", "orders"))
		p.answer(t, next(t, p, resource.RouteType, "outbound"), "")
		g := next(t, p, resource.ClusterType, map[bool]string{true: "", false: "orders"}[delta])
		if delta && strings.Join(g.removed, " ") != "pay" {
			t.Errorf("%q is removed", g.removed)
		}
	})
}

// A proxy that rejects a step does not get the next one; the next mesh may mend it.
func TestStopsWhereRejected(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		p := connect(t, c, delta, web)
		begin(t, p, "orders")
		until(t, "all is confirmed", func() bool {
			l := s.Proxies()
			return len(l) == 1 && states(l[0]) == "CDS synced, EDS synced, RDS synced, LDS synced"
		})
		s.Set(meshOf(t, 2, "2s", "orders")) // endpoints, then routes
		p.answer(t, next(t, p, resource.EndpointsType, "orders"), "they are\x1b[31m red")
		until(t, "the rollout has stopped", func() bool { return s.Proxies()[0].Stopped != "" })
		got := s.Proxies()[0]
		if states(got) != "CDS synced, EDS rejected, RDS synced, LDS synced" || got.Types[1].Reason != "they are\uFFFD[31m red" || got.Stopped != "EDS: they are\uFFFD[31m red" {
			t.Errorf("%s, %+v", states(got), got)
		}
		// The routes did not come: what comes next is the mended step.
		s.Set(meshOf(t, 3, "3s", "orders"))
		p.answer(t, next(t, p, resource.EndpointsType, "orders"), "")
		g := next(t, p, resource.RouteType, "outbound")
		p.answer(t, g, "")
		table := &routepb.RouteConfiguration{}
		if err := g.resources["outbound"].UnmarshalTo(table); err != nil || table.VirtualHosts[0].Routes[0].GetRoute().GetTimeout().GetSeconds() != 3 {
			t.Errorf("%v, %v", table, err)
		}
		until(t, "all is well", func() bool {
			l := s.Proxies()
			return l[0].Stopped == "" && states(l[0]) == "CDS synced, EDS synced, RDS synced, LDS synced"
		})
	})
}

// A proxy that stays silent gets the next step after a while.
func TestGoesOnWithoutAnAnswer(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Millisecond)
		p := connect(t, c, delta, web)
		begin(t, p, "orders")
		s.Set(meshOf(t, 2, "2s", "orders"))
		next(t, p, resource.EndpointsType, "orders")
		next(t, p, resource.RouteType, "outbound")
		until(t, "it is shown as stale", func() bool {
			return states(s.Proxies()[0]) == "CDS synced, EDS stale, RDS stale, LDS synced"
		})
	})
}

// A newer mesh ends the rollout of the one before, also while that waits for a proxy.
func TestNewerMeshComesFirst(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		p := connect(t, c, delta, web)
		begin(t, p, "orders")
		s.Set(meshOf(t, 2, "2s", "orders"))
		first := next(t, p, resource.EndpointsType, "orders")
		s.Set(meshOf(t, 3, "3s", "orders"))
		p.answer(t, first, "") // and with this the next one may be sent
		p.answer(t, next(t, p, resource.EndpointsType, "orders"), "")
		table := &routepb.RouteConfiguration{}
		if err := next(t, p, resource.RouteType, "outbound").resources["outbound"].UnmarshalTo(table); err != nil ||
			table.VirtualHosts[0].Routes[0].GetRoute().GetTimeout().GetSeconds() != 3 {
			t.Errorf("%v, %v", table, err)
		}
	})
}

// A node that leaves is forgotten, and what it comes back to is the newest mesh.
func TestLeavesAndComesBack(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		ctx, leave := context.WithCancel(t.Context())
		var p peer
		if delta {
			stream, err := c.DeltaAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			p = &deltaPeer{stream: stream, node: web}
		} else {
			stream, err := c.StreamAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			p = newSotwPeer(stream, web)
		}
		begin(t, p, "orders")
		leave()
		until(t, "it has left", func() bool { return len(s.Proxies()) == 0 })
		s.Set(meshOf(t, 1, "1s", "pay"))
		begin(t, connect(t, c, delta, web), "pay")
	})
}

// What a proxy asks for that there is none of is not answered, and ends nothing.
func TestTypesThatThereAreNoneOf(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		_, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		p := connect(t, c, delta, web)
		p.ask(t, "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "certificate")
		begin(t, p, "orders")
	})
}

func TestNodeIsRequired(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		s, c := serve(t, meshOf(t, 1, "1s", "orders"), time.Hour)
		for name, tc := range map[string]struct {
			node *corepb.Node
			want string
		}{
			"no node":       {nil, "node.id and node.cluster are required"},
			"no id":         {&corepb.Node{Cluster: "web"}, "node.id and node.cluster are required"},
			"no cluster":    {&corepb.Node{Id: "web-1"}, "node.id and node.cluster are required"},
			"an endless id": {&corepb.Node{Id: strings.Repeat("x", 257), Cluster: "web"}, "may have 256 bytes each"},
		} {
			p := connect(t, c, delta, tc.node)
			p.ask(t, resource.ClusterType)
			_, err := p.receive()
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
		}
		until(t, "they have gone", func() bool { return len(s.Proxies()) == 0 })
	})
}
