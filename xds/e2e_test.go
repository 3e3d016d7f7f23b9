// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// hang bounds how long a test waits for something that has to come.
const hang = 30 * time.Second

// proxy records what is put into force, and checks that no snapshot breaks what the one before it served.
type proxy struct {
	t *testing.T
	// applied and notices have room for everything that a test provokes.
	applied chan *mesh.Snapshot
	notices chan mesh.Notice
	secrets *secrets
	configs chan *mesh.Extension

	mu        sync.Mutex
	last      *mesh.Snapshot               // guarded by mu
	endpoints map[string]*mesh.EndpointSet // guarded by mu
	updates   int                          // guarded by mu: how many sets of endpoints came
}

func (p *proxy) apply(s *mesh.Snapshot) []mesh.Rejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, table := range s.RouteTables {
		for _, c := range routedTo(table) {
			switch {
			case s.Clusters[c] == nil:
				p.t.Errorf("snapshot %d routes to cluster %q, which is not there", s.ID, c)
			case s.Clusters[c].Discovery == mesh.EDS && p.endpoints[c] == nil:
				p.t.Errorf("snapshot %d routes to cluster %q, which has no endpoints", s.ID, c)
			}
		}
	}
	p.last = s
	p.applied <- s
	return nil
}

func routedTo(table *mesh.RouteTable) []string {
	var out []string
	for _, h := range table.Hosts {
		for _, r := range h.Routes {
			for _, c := range r.Forward.Clusters {
				out = append(out, c.Name)
			}
		}
	}
	return out
}

func (p *proxy) setEndpoints(cluster string, set *mesh.EndpointSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endpoints[cluster] = set
	p.updates++
}

func (p *proxy) Notify(n *mesh.Notice) { p.notices <- *n }

// world is a control plane and a proxy.
type world struct {
	t     *testing.T
	cp    *fakexds.Server
	proxy *proxy
	m     *xds.Manager
	stop  func()
}

func start(t *testing.T, fetchTimeout time.Duration) *world {
	t.Helper()
	return startAt(t, fakexds.Start(t), fetchTimeout)
}

// startAt is start with a control plane that is there already.
func startAt(t *testing.T, cp *fakexds.Server, fetchTimeout time.Duration) *world {
	t.Helper()
	w := &world{t: t, cp: cp, proxy: &proxy{
		t: t, applied: make(chan *mesh.Snapshot, 1<<16), notices: make(chan mesh.Notice, 1<<16),
		endpoints: map[string]*mesh.EndpointSet{}, secrets: newSecrets(), configs: make(chan *mesh.Extension, 1<<16),
	}}
	log := zap.NewNop()
	stream := ads.New(ads.Config{
		Targets: []ads.Target{{Network: "tcp", Address: w.cp.Addr()}}, Types: xds.Types(), Node: &corepb.Node{Id: "e2e"},
	}, log)
	w.m = xds.New(xds.Config{Listeners: true, Clusters: true, FetchTimeout: fetchTimeout}, xds.Deps{
		Log: log, Stream: stream, DNS: dns.New(dns.Config{}, log), Notifier: w.proxy,
		Decoder: resource.New(resource.Options{Parsers: resourcetest.Parsers()}),
		Apply:   w.proxy.apply, SetEndpoints: w.proxy.setEndpoints, SetSecret: w.proxy.setSecret, SetExtension: w.proxy.setExtension,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.m.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// until waits for a snapshot.
func (w *world) until(what string, ok func(*mesh.Snapshot) bool) *mesh.Snapshot {
	w.t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case s := <-w.proxy.applied:
			if ok(s) {
				return s
			}
		case <-timeout:
			s, err := w.m.Status(w.t.Context())
			w.t.Fatalf("no snapshot with %s; status %+v %v", what, s, err)
		}
	}
}

// answer waits for an answer of the proxy.
func (w *world) answer(what string, ok func(fakexds.Answer) bool) fakexds.Answer {
	w.t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case a := <-w.cp.Answers():
			if ok(a) {
				return a
			}
		case <-timeout:
			w.t.Fatalf("no answer: %s", what)
		}
	}
}

func (w *world) ready() {
	w.t.Helper()
	select {
	case <-w.m.Ready():
	case <-time.After(hang):
		w.t.Fatal("not ready")
	}
}

func port(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i))
}

// serve sets a listener whose routes go to clusters with endpoints.
func serve(cp *fakexds.Server, version string, clusters ...string) {
	set := map[string][]types.Resource{
		fakexds.ListenerType: {fakexds.Listener("L", port(0), "r")},
		fakexds.RouteType:    {fakexds.Routes("r", clusters...)},
	}
	for i, c := range clusters {
		set[fakexds.ClusterType] = append(set[fakexds.ClusterType], fakexds.EDSCluster(c))
		set[fakexds.EndpointType] = append(set[fakexds.EndpointType], fakexds.Endpoints(c, port(i)))
	}
	cp.SetAll(version, set)
}

// serves matches snapshots whose routes end at a cluster.
func serves(cluster string) func(*mesh.Snapshot) bool {
	return func(s *mesh.Snapshot) bool {
		r := s.RouteTables["r"]
		if s.Listeners["L"] == nil || r == nil {
			return false
		}
		to := routedTo(r)
		return to[len(to)-1] == cluster
	}
}

func TestThousandChangesAreAckedInOrder(t *testing.T) {
	t.Parallel()
	w := start(t, 15*time.Second)
	serve(w.cp, "first", "a")
	w.until("routes to a", serves("a"))
	w.ready()
	w.answer("the first endpoints", func(a fakexds.Answer) bool { return a.Ack && a.TypeURL == fakexds.EndpointType })
	for i := range 1000 {
		version := fmt.Sprint(i)
		if i%2 == 0 {
			w.cp.Set(fakexds.EndpointType, version, fakexds.Endpoints("a", port(i+1)))
		} else {
			c := fakexds.EDSCluster("a")
			c.AltStatName = version
			w.cp.Set(fakexds.ClusterType, version, c)
		}
		a := w.answer("change "+version, func(a fakexds.Answer) bool { return a.Ack || a.Nack })
		for a.Version == "first" {
			a = w.answer("change "+version, func(a fakexds.Answer) bool { return a.Ack || a.Nack })
		}
		if !a.Ack || a.Version != version {
			t.Fatalf("answer %+v, want an ACK of version %s", a, version)
		}
	}
	if _, streams := w.cp.Counts(); streams != 1 {
		t.Errorf("%d streams, want 1", streams)
	}
	w.proxy.mu.Lock()
	defer w.proxy.mu.Unlock()
	if w.proxy.updates != 501 {
		t.Errorf("%d sets of endpoints, want 501", w.proxy.updates)
	}
}

// TestThousandRenames moves the routes from one cluster to another in one push, a thousand times (F16): the checks of
// proxy.apply hold for each snapshot. go-control-plane sends the types in any order.
func TestThousandRenames(t *testing.T) {
	t.Parallel()
	n := 1000
	if testing.Short() {
		n = 50
	}
	w := start(t, 15*time.Second)
	for i := range n {
		name := fmt.Sprint("c", i)
		serve(w.cp, name, name)
		w.until("routes to "+name, serves(name))
	}
}

func TestControlPlaneRestarts(t *testing.T) {
	t.Parallel()
	w := start(t, 15*time.Second)
	serve(w.cp, "1", "a")
	w.until("routes to a", serves("a"))
	w.cp.Kill()
	w.proxy.mu.Lock()
	if last := w.proxy.last; last.Clusters["a"] == nil || last.Listeners["L"] == nil {
		t.Error("configuration was lost with the control plane")
	}
	w.proxy.mu.Unlock()
	serve(w.cp, "2", "b")
	w.cp.Restart()
	w.until("routes to b", serves("b"))
	s, err := w.m.Status(t.Context())
	if err != nil || !s.Connected || s.Degraded != "" {
		t.Errorf("status %+v, error %v", s, err)
	}
}

// TestOneBadOfAThousand: 999 clusters apply, one is named with its field (F04), and the NACK does not go round and round
// although go-control-plane answers it with the same again.
func TestOneBadOfAThousand(t *testing.T) {
	t.Parallel()
	w := start(t, 15*time.Second)
	var all []types.Resource
	for i := range 1000 {
		all = append(all, fakexds.StaticCluster(fmt.Sprint("c", i), port(i)))
	}
	all[500].(*clusterpb.Cluster).LbPolicy = 77
	w.cp.Set(fakexds.ClusterType, "1", all...)
	s := w.until("clusters", func(s *mesh.Snapshot) bool { return len(s.Clusters) > 0 })
	if len(s.Clusters) != 999 || s.Clusters["c500"] != nil {
		t.Errorf("%d clusters, want 999", len(s.Clusters))
	}
	a := w.answer("NACK", func(a fakexds.Answer) bool { return a.Nack })
	if !strings.HasPrefix(a.Detail, `cluster "c500": lb_policy: `) || a.Version != "" {
		t.Errorf("NACK %+v", a)
	}
	w.answer("second NACK", func(a fakexds.Answer) bool { return a.Nack })
	var nacks int
	for len(w.cp.Answers()) > 0 {
		if a := <-w.cp.Answers(); a.Nack {
			nacks++
		}
	}
	// Without the pace there are hundreds by now; a busy machine may see one or two.
	if nacks > 5 {
		t.Errorf("%d more NACKs at once", nacks)
	}
	all[500] = fakexds.StaticCluster("c500", port(500))
	w.cp.Set(fakexds.ClusterType, "2", all...)
	w.answer("ACK", func(a fakexds.Answer) bool { return a.Ack && a.Version == "2" })
	w.until("all clusters", func(s *mesh.Snapshot) bool { return len(s.Clusters) == 1000 })
}

// TestStreamKilledAgainAndAgain kills all streams every 100 ms (F03), in each variant: what is in force stays, changes
// arrive, and there is no storm of connections. With SOAK=1 it goes on for five minutes in each.
//
// It runs alone, so that what is left of it can be told from what other tests do.
func TestStreamKilledAgainAndAgain(t *testing.T) {
	killing := 2 * time.Second
	switch {
	case os.Getenv("SOAK") != "":
		killing = 5 * time.Minute
	case testing.Short():
		killing /= 2
	}
	for mode, streams := range map[string]int{"ADS GRPC": 1, "ADS DELTA_GRPC": 1, "GRPC": 4, "DELTA_GRPC": 4} {
		t.Run(mode, func(t *testing.T) {
			w := startMode(t, mode)
			w.push("0", one(1, "a"))
			w.untilInForce(one(1, "a"))
			begin := time.Now()
			ticker := time.NewTicker(100 * time.Millisecond)
			defer ticker.Stop()
			kills := 0
			for i := 1; time.Since(begin) < killing; i++ {
				<-ticker.C
				kills++
				w.cp.KillStreams()
				w.push(fmt.Sprint(i), one(1+i, "a"))
			}
			connections, _ := w.cp.Counts()
			if most := streams * (12*int(time.Since(begin)/time.Second+1) + 1); connections > most {
				t.Errorf("%d connections in %v, want at most %d", connections, time.Since(begin), most)
			}
			w.push("last", one(1, "b"))
			w.untilInForce(one(1, "b"))
			t.Logf("figure: killed %d times in %v, %d connections", kills, time.Since(begin).Round(time.Second), connections)
			w.stop()
			w.cp.Kill()
			checkGoroutines(t)
		})
	}
}

// checkGoroutines: nothing of ours is left, and what gRPC may still be winding up does not grow with the streams.
func checkGoroutines(t *testing.T) {
	t.Helper()
	b := make([]byte, 8<<20)
	stacks := strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n")
	grpc := 0
	for _, s := range stacks {
		if strings.Contains(s, "xds/ads.(") || strings.Contains(s, "xds.(*Manager)") || strings.Contains(s, "meshtap/discovery/") {
			t.Errorf("left over:\n%s", s)
		}
		if strings.Contains(s, "google.golang.org/grpc") {
			grpc++
		}
	}
	if grpc > 30 {
		t.Errorf("%d goroutines of gRPC are left", grpc)
	}
}

// TestWarmingTrap: the control plane dies between CDS and EDS, and the next one lacks the cluster, or its endpoints (F07,
// envoy#9934). The cluster leaves warming.
func TestWarmingTrap(t *testing.T) {
	t.Parallel()
	for _, lacks := range []string{"cluster", "endpoints"} {
		t.Run(lacks, func(t *testing.T) {
			t.Parallel()
			w := start(t, time.Second)
			serve(w.cp, "1", "a")
			w.until("routes to a", serves("a"))
			w.ready()
			w.cp.Mute(fakexds.EndpointType)
			serve(w.cp, "2", "a", "b")
			w.answer("b is asked for", func(a fakexds.Answer) bool {
				return a.TypeURL == fakexds.EndpointType && len(a.Names) == 2
			})
			w.cp.Kill()
			w.cp.Unmute(fakexds.EndpointType)
			serve(w.cp, "3", "a")
			if lacks == "endpoints" {
				w.cp.Set(fakexds.ClusterType, "4", fakexds.EDSCluster("a"), fakexds.EDSCluster("b"))
			}
			w.cp.Restart()
			if lacks == "cluster" {
				w.until("version 3", func(s *mesh.Snapshot) bool {
					return s.Versions.Clusters == "3" && s.Versions.Routes == "3"
				})
			} else {
				w.until("cluster b", func(s *mesh.Snapshot) bool { return s.Clusters["b"] != nil })
			}
			s, err := w.m.Status(t.Context())
			if err != nil || len(s.Warming) > 0 {
				t.Errorf("warming: %+v, error %v", s.Warming, err)
			}
		})
	}
}

// TestMisbehavingControlPlane sends what no control plane should. What is in force stays, and good updates still come.
func TestMisbehavingControlPlane(t *testing.T) {
	t.Parallel()
	w := start(t, 15*time.Second)
	serve(w.cp, "1", "a")
	w.until("routes to a", serves("a"))
	w.ready()
	w.answer("endpoints", func(a fakexds.Answer) bool { return a.Ack && a.TypeURL == fakexds.EndpointType })
	garbage := &discoverypb.DiscoveryResponse{TypeUrl: fakexds.ClusterType, VersionInfo: "bad"}
	garbage.Resources = append(garbage.Resources, mustAny(t, fakexds.Endpoints("a")))
	tests := []struct {
		name string
		r    *discoverypb.DiscoveryResponse
		nack string // "" where there is no answer
	}{
		{"wrong type inside", garbage, "its type is"},
		{"type nobody asked for", &discoverypb.DiscoveryResponse{TypeUrl: "type.googleapis.com/x.Secret", VersionInfo: "1"}, ""},
		{"the same nonce again", garbage, ""},
		{"a name twice", &discoverypb.DiscoveryResponse{TypeUrl: fakexds.ClusterType, VersionInfo: "dup", Resources: anys(t,
			fakexds.EDSCluster("a"), fakexds.EDSCluster("a"))}, `cluster "a": is there 2 times`},
	}
	for _, tt := range tests {
		w.cp.Inject(tt.r)
		if tt.nack != "" {
			if a := w.answer(tt.name, func(a fakexds.Answer) bool { return a.Nack }); !strings.Contains(a.Detail, tt.nack) {
				t.Errorf("%s: NACK %q, want %q", tt.name, a.Detail, tt.nack)
			}
		}
	}
	serve(w.cp, "2", "b")
	w.until("routes to b", serves("b"))
	for len(w.cp.Answers()) > 0 {
		if a := <-w.cp.Answers(); a.Nack {
			t.Errorf("one NACK too many: %+v", a)
		}
	}
}

// TestManyResources is a first push of some size (a small F09).
func TestManyResources(t *testing.T) {
	t.Parallel()
	n := 5000
	if testing.Short() {
		n = 200
	}
	w := start(t, 15*time.Second)
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("cluster-", i))
	}
	serve(w.cp, "1", names...)
	w.until("all", func(s *mesh.Snapshot) bool {
		return len(s.Clusters) == n && len(s.Listeners) == 1 && len(s.RouteTables) == 1
	})
	w.ready()
}

func anys(t *testing.T, list ...proto.Message) []*anypb.Any {
	t.Helper()
	var out []*anypb.Any
	for _, m := range list {
		out = append(out, mustAny(t, m))
	}
	return out
}

func mustAny(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
