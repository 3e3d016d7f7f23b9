// SPDX-License-Identifier: Apache-2.0

package fakexds_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/ads"
)

// hang bounds how long a test waits for something that has to come.
const hang = 20 * time.Second

// client is an ADS client of the server, and what it was told.
type client struct {
	t *testing.T
	*ads.Client
	events chan ads.Event
}

func connect(t *testing.T, s *fakexds.Server) *client { return connectAs(t, s, ads.Config{}) }

func connectAs(t *testing.T, s *fakexds.Server, cfg ads.Config) *client {
	t.Helper()
	c := &client{t: t, events: make(chan ads.Event)}
	if cfg.Targets == nil {
		cfg.Targets = []ads.Target{{Network: "tcp", Address: s.Addr()}}
	}
	if cfg.Types == nil {
		cfg.Types = []string{fakexds.ClusterType, fakexds.EndpointType, fakexds.ListenerType, fakexds.RouteType}
	}
	cfg.Node, cfg.NodeOnFirstOnly, cfg.Random = &corepb.Node{Id: "test"}, true, func() float64 { return 0 }
	c.Client = ads.New(cfg, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx, c.events) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// wait returns the next event of a type, and passes others over.
func wait[E ads.Event](c *client) E {
	c.t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case ev := <-c.events:
			if e, ok := ev.(E); ok {
				return e
			}
		case <-timeout:
			c.t.Fatalf("no %T", *new(E))
		}
	}
}

func answer(t *testing.T, s *fakexds.Server, want func(fakexds.Answer) bool) fakexds.Answer {
	t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case a := <-s.Answers():
			if want(a) {
				return a
			}
		case <-timeout:
			t.Fatal("the answer did not come")
		}
	}
}

func clusters(names ...string) []types.Resource {
	var out []types.Resource
	for _, n := range names {
		out = append(out, fakexds.EDSCluster(n))
	}
	return out
}

func TestServesAndTellsAnswers(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a", "b")...)
	c := connect(t, s)
	c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	r := wait[ads.Response](c)
	if r.Version != "1" || len(r.Resources) != 2 {
		t.Fatalf("response %+v", r)
	}
	first := answer(t, s, func(fakexds.Answer) bool { return true })
	if first.Ack || first.Nack || !first.HasNode || first.TypeURL != fakexds.ClusterType {
		t.Errorf("first request %+v", first)
	}
	c.Ack(r.TypeURL, r.Nonce, r.Version)
	if a := answer(t, s, func(a fakexds.Answer) bool { return a.Ack }); a.Version != "1" || a.Nonce != r.Nonce || a.HasNode {
		t.Errorf("ack %+v", a)
	}
	// A NACK leads go-control-plane to send the same again at once.
	s.Set(fakexds.ClusterType, "2", clusters("a")...)
	r = wait[ads.Response](c)
	c.Nack(r.TypeURL, r.Nonce, r.Version, "no good", nil)
	if a := answer(t, s, func(a fakexds.Answer) bool { return a.Nack }); a.Detail != "no good" || a.Version != "1" {
		t.Errorf("nack %+v", a)
	}
	if again := wait[ads.Response](c); again.Version != "2" || again.Nonce == r.Nonce {
		t.Errorf("after the NACK: %+v", again)
	}
}

func TestRestartAndKillStreams(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a")...)
	c := connect(t, s)
	c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	for i, kill := range []func(){
		func() {},
		func() { s.KillStreams() },
		func() { s.Kill(); s.Restart() },
	} {
		kill()
		if r := wait[ads.Response](c); r.Version != "1" {
			t.Errorf("round %d: %+v", i, r)
		}
	}
	if conns, streams := s.Counts(); conns != 3 || streams != 3 {
		t.Errorf("%d connections, %d streams, want 3 and 3", conns, streams)
	}
}

// TestInjectedResponses: what is sent past the cache is answered, and the cache goes on as if it had not been.
func TestInjectedResponses(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a")...)
	s.Set(fakexds.EndpointType, "1", fakexds.Endpoints("a", netip.MustParseAddrPort("127.0.0.1:1")))
	c := connect(t, s)
	c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	r := wait[ads.Response](c)
	c.Ack(r.TypeURL, r.Nonce, r.Version)

	nonce := s.Inject(&discoverypb.DiscoveryResponse{TypeUrl: fakexds.ClusterType, VersionInfo: "bad"})
	if r := wait[ads.Response](c); r.Nonce != nonce || r.Version != "bad" {
		t.Errorf("injected %+v", r)
	}
	c.Nack(fakexds.ClusterType, nonce, "bad", "empty", nil)
	if a := answer(t, s, func(a fakexds.Answer) bool { return a.Nack }); a.Nonce != nonce || a.Version != "1" {
		t.Errorf("nack %+v", a)
	}
	s.Set(fakexds.ClusterType, "2", clusters("a", "b")...)
	if r := wait[ads.Response](c); r.Version != "2" || len(r.Resources) != 2 {
		t.Errorf("after the injected one: %+v", r)
	}
}

// TestDelta: the incremental variant tells what is asked for, answered and held, and injected responses go past the cache.
func TestDelta(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a", "b")...)
	c := connectAs(t, s, ads.Config{Delta: true})
	c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	r := wait[ads.Response](c)
	if !r.Delta || r.Version != "1" || len(r.Resources) != 2 {
		t.Errorf("response %+v", r)
	}
	c.Ack(r.TypeURL, r.Nonce, r.Version)
	if a := answer(t, s, func(a fakexds.Answer) bool { return a.Ack }); !a.Delta || a.Nonce != r.Nonce {
		t.Errorf("ack %+v", a)
	}
	c.Subscribe(fakexds.EndpointType, []string{"a", "b"}, nil)
	answer(t, s, func(a fakexds.Answer) bool { return fmt.Sprint(a.TypeURL, a.Names) == fakexds.EndpointType+"[a b]" })
	c.Subscribe(fakexds.EndpointType, nil, []string{"b"})
	answer(t, s, func(a fakexds.Answer) bool { return fmt.Sprint(a.Left) == "[b]" })

	nonce := s.InjectDelta(&discoverypb.DeltaDiscoveryResponse{TypeUrl: fakexds.ClusterType, RemovedResources: []string{"b"}})
	if r := wait[ads.Response](c); r.Nonce != nonce || fmt.Sprint(r.Removed) != "[b]" {
		t.Errorf("injected %+v", r)
	}
	c.Nack(fakexds.ClusterType, nonce, "", "no good", nil)
	if a := answer(t, s, func(a fakexds.Answer) bool { return a.Nack }); a.Nonce != nonce || a.Detail != "no good" {
		t.Errorf("nack %+v", a)
	}
	s.Set(fakexds.ClusterType, "2", clusters("b")...)
	for r = wait[ads.Response](c); r.Version != "2"; r = wait[ads.Response](c) {
		if r.TypeURL == fakexds.ClusterType && len(r.Resources)+len(r.Removed) > 0 {
			t.Errorf("after the injected one: %+v", r)
		}
		c.Ack(r.TypeURL, r.Nonce, r.Version) // the cache sends nothing more before
	}
	if fmt.Sprint(r.Removed) != "[a]" {
		t.Errorf("after the injected one: %+v", r)
	}
	s.KillStreams()
	wait[ads.Disconnected](c)
	wait[ads.Connected](c)
	a := answer(t, s, func(a fakexds.Answer) bool { return a.Stream == 2 && a.TypeURL == fakexds.ClusterType })
	if len(a.Initial) != 0 { // a and b are gone, one by the cache and one by us
		t.Errorf("held on the new stream: %v", a.Initial)
	}
}

// TestServicesForOneType: the streams of one type, and polls, have the same resources.
func TestServicesForOneType(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a")...)
	for name, cfg := range map[string]ads.Config{
		"stream": {Method: "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"},
		"delta":  {Method: "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters", Delta: true},
		"poll": {
			Poll:    &ads.Poll{Path: "/v3/discovery:clusters", Delay: time.Hour, Timeout: hang, Host: "x"},
			Targets: []ads.Target{{Network: "tcp", Address: s.ServeREST()}}, MaxResponseBytes: 1 << 20,
		},
	} {
		cfg.Types = []string{fakexds.ClusterType}
		c := connectAs(t, s, cfg)
		c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
		if r := wait[ads.Response](c); r.Version != "1" || len(r.Resources) != 1 || r.TypeURL != fakexds.ClusterType {
			t.Errorf("%s: %+v", name, r)
		}
	}
	c := connectAs(t, s, ads.Config{Method: "/nobody/knows"})
	if d := wait[ads.Disconnected](c); !strings.Contains(d.Err.Error(), "there is no /nobody/knows") {
		t.Errorf("another method: %v", d.Err)
	}
}

func TestPauseAndMute(t *testing.T) {
	t.Parallel()
	s := fakexds.Start(t)
	s.Set(fakexds.ClusterType, "1", clusters("a")...)
	s.Set(fakexds.ListenerType, "1")
	s.Pause()
	s.Mute(fakexds.ListenerType)
	c := connect(t, s)
	c.Subscribe(fakexds.ListenerType, []string{ads.Wildcard}, nil)
	c.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	for range 2 {
		answer(t, s, func(fakexds.Answer) bool { return true })
	}
	wait[ads.Connected](c)
	select {
	case ev := <-c.events:
		t.Fatalf("%+v came while the server was halted", ev)
	default:
	}
	s.Resume()
	if r := wait[ads.Response](c); r.TypeURL != fakexds.ClusterType {
		t.Errorf("a muted type was sent: %+v", r)
	}
	s.Unmute(fakexds.ListenerType)
	s.KillStreams()
	var got []string
	for range 2 {
		got = append(got, fakexds.Short(wait[ads.Response](c).TypeURL))
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[Cluster Listener]" {
		t.Errorf("after Unmute: %v", got)
	}
}
