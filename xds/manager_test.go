// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/discovery"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// fakeStream is a Stream without a network: the test is the control plane.
type fakeStream struct {
	out   chan<- ads.Event
	begun chan struct{}

	mu    sync.Mutex
	lines []string // guarded by mu: what the manager said
}

func (f *fakeStream) Run(ctx context.Context, out chan<- ads.Event) error {
	f.out = out
	close(f.begun)
	<-ctx.Done()
	return nil
}

func (f *fakeStream) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
}

func (f *fakeStream) Subscribe(url string, add, remove []string) {
	f.say("subscribe %s +%v -%v", fakexds.Short(url), add, remove)
}
func (f *fakeStream) Refresh(url string)             { f.say("refresh %s", fakexds.Short(url)) }
func (f *fakeStream) Ack(url, nonce, version string) { f.say("ack %s %s", fakexds.Short(url), version) }
func (f *fakeStream) Nack(url, nonce, version, detail string, _ []string) {
	f.say("nack %s %s: %s", fakexds.Short(url), version, detail)
}
func (f *fakeStream) Counts() ads.Counts { return ads.Counts{Streams: 1} }

// fakeProxy records what it is told.
type fakeProxy struct {
	stream *fakeStream
	reject func(*mesh.Snapshot) []mesh.Rejection

	mu      sync.Mutex
	last    *mesh.Snapshot // guarded by mu
	notices []mesh.Notice  // guarded by mu
}

func (p *fakeProxy) apply(s *mesh.Snapshot) []mesh.Rejection {
	p.mu.Lock()
	p.last = s
	p.mu.Unlock()
	p.stream.say("apply %d", s.ID)
	if p.reject == nil {
		return nil
	}
	return p.reject(s)
}

func (p *fakeProxy) setEndpoints(cluster string, set *mesh.EndpointSet) {
	n := 0
	for _, l := range set.Localities {
		n += len(l.Endpoints)
	}
	p.stream.say("endpoints %s %d", cluster, n)
}

func (p *fakeProxy) Notify(n *mesh.Notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, *n)
}

// fakeDNS is a discovery.Source whose answers the test gives.
type fakeDNS struct {
	mu      sync.Mutex
	watches map[string]func(discovery.Update) // guarded by mu
	ended   []string                          // guarded by mu
}

func (d *fakeDNS) Watch(ctx context.Context, c *mesh.Cluster, emit func(discovery.Update)) error {
	if c.Name == "broken" {
		return errors.New("cannot look this up")
	}
	d.mu.Lock()
	d.watches[c.Name] = emit
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = append(d.ended, c.Name)
	return nil
}

// countingDecoder counts what is decoded.
type countingDecoder struct {
	Decoder
	n int
}

func (d *countingDecoder) Decode(url string, b []byte, version string) (resource.Decoded, error) {
	d.n++
	return d.Decoder.Decode(url, b, version)
}

// rig is a manager in a bubble.
type rig struct {
	t       *testing.T
	m       *Manager
	stream  *fakeStream
	proxy   *fakeProxy
	dns     *fakeDNS
	decoder *countingDecoder
	reg     *stats.Registry
	logs    *observer.ObservedLogs
	cancel  context.CancelFunc
	done    chan error
	nonce   int
}

func newDecoder(static bool) *resource.Decoder {
	return resource.New(resource.Options{Parsers: resourcetest.Parsers(), Static: static, DeltaADS: true})
}

// startRig runs a manager. The caller ends it with stop.
func startRig(t *testing.T, cfg Config, reject func(*mesh.Snapshot) []mesh.Rejection) *rig {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{
		t: t, stream: &fakeStream{begun: make(chan struct{})}, dns: &fakeDNS{watches: map[string]func(discovery.Update){}},
		decoder: &countingDecoder{Decoder: newDecoder(false)}, reg: stats.NewRegistry(stats.Options{}), logs: logs,
		done: make(chan error, 1),
	}
	r.proxy = &fakeProxy{stream: r.stream, reject: reject}
	r.m = New(cfg, Deps{
		Log: zap.New(core), Decoder: r.decoder, Stream: r.stream, DNS: r.dns,
		Apply: r.proxy.apply, SetEndpoints: r.proxy.setEndpoints, Notifier: r.proxy, Stats: r.reg,
	})
	r.m.deps.Runtime = runtimeOf(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.done <- r.m.Run(ctx) }()
	<-r.stream.begun
	synctest.Wait()
	return r
}

func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

// said returns what the manager said since the last call, one line each.
func (r *rig) said() string {
	synctest.Wait()
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	out := strings.Join(r.stream.lines, "\n")
	r.stream.lines = nil
	return out
}

func (r *rig) expect(want ...string) {
	r.t.Helper()
	if got := r.said(); got != strings.Join(want, "\n") {
		r.t.Errorf("said:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func (r *rig) send(url, version string, resources ...proto.Message) {
	r.nonce++
	resp := ads.Response{TypeURL: url, Version: version, Nonce: fmt.Sprint(r.nonce), ControlPlane: "cp-1"}
	for _, m := range resources {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			r.t.Fatal(err)
		}
		resp.Resources = append(resp.Resources, ads.Resource{TypeURL: url, Bytes: b})
	}
	r.stream.out <- resp
}

func (r *rig) isReady() bool {
	select {
	case <-r.m.Ready():
		return true
	default:
		return false
	}
}

func (r *rig) status() Status {
	r.t.Helper()
	s, err := r.m.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// stat returns a number by its name in /stats.
func (r *rig) stat(name string) string {
	r.t.Helper()
	out := "absent"
	r.reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == name {
			out = fmt.Sprint(m.Value)
			if m.Kind == stats.Text {
				out = m.Text
			}
		}
		return true
	})
	return out
}

var one, two = netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")

func dynamic() Config {
	return Config{Listeners: true, Clusters: true, FetchTimeout: 15 * time.Second}
}

func TestFirstPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		r.expect("subscribe Cluster +[*] -[]", "subscribe Listener +[*] -[]", "apply 1")
		r.stream.out <- ads.Connected{Target: ads.Target{Network: "tcp", Address: "cp:1"}}
		r.send(resource.ClusterType, "1", fakexds.EDSCluster("a"))
		r.expect("subscribe ClusterLoadAssignment +[a] -[]", "ack Cluster 1")
		r.send(resource.ListenerType, "1", fakexds.Listener("L", one, "r"))
		r.expect("subscribe RouteConfiguration +[r] -[]", "ack Listener 1")
		r.send(resource.RouteType, "1", fakexds.Routes("r", "a"))
		r.expect("ack RouteConfiguration 1")
		if r.isReady() {
			t.Error("ready before the endpoints came")
		}
		if w := fmt.Sprint(r.status().Warming); !strings.Contains(w, `endpoints "a"`) {
			t.Errorf("warming: %s", w)
		}
		r.send(resource.EndpointsType, "1", fakexds.Endpoints("a", one, two))
		r.expect("endpoints a 2", "apply 2", "ack ClusterLoadAssignment 1")
		if !r.isReady() {
			t.Error("not ready")
		}
		r.send(resource.EndpointsType, "2", fakexds.Endpoints("a", one))
		r.expect("endpoints a 1", "ack ClusterLoadAssignment 2")
		if s := r.status(); !s.Ready || !s.Connected || s.Target != "cp:1" || s.ControlPlane != "cp-1" || s.Degraded != "" ||
			s.Types[mesh.KindEndpoints].Version != "2" || s.Types[mesh.KindCluster].Resources != 1 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBadResourcesAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		bad := fakexds.EDSCluster("bad")
		bad.LbPolicy = clusterpb.Cluster_LbPolicy(77)
		r.said()
		r.send(resource.ClusterType, "1", fakexds.StaticCluster("good", one), bad)
		if got := r.said(); !strings.Contains(got, "apply 2\nnack Cluster 1: cluster \"bad\": lb_policy: ") ||
			strings.Contains(got, "good") {
			t.Errorf("said:\n%s", got)
		}
		s := r.status()
		if s.Types[mesh.KindCluster].Nack == "" || !strings.Contains(s.Degraded, `cluster "bad": lb_policy`) {
			t.Errorf("status %+v", s)
		}
		if r.stat("cluster_manager.cds.update_rejected") != "1" || r.stat("cluster_manager.cds.version_text") != "" {
			t.Errorf("update_rejected %s, version_text %s", r.stat("cluster_manager.cds.update_rejected"),
				r.stat("cluster_manager.cds.version_text"))
		}
		// A resource of another type, and one that is no message at all.
		r.stream.out <- ads.Response{TypeURL: resource.ClusterType, Version: "2", Nonce: "x", Resources: []ads.Resource{
			{TypeURL: resource.ListenerType, Bytes: []byte("\x0a\x01n")}, {TypeURL: resource.ClusterType, Bytes: []byte{0xff}},
			{TypeURL: resource.ClusterType, Bytes: []byte("\x0a\x03\xff\xfex")},
		}}
		got := r.said()
		if !utf8.ValidString(got) {
			t.Errorf("said %q, which no message can hold", got)
		}
		for _, want := range []string{`cluster "n": its type is`, "cluster without a name: resource 2 of the response: "} {
			if !strings.Contains(got, want) {
				t.Errorf("said:\n%s\nwithout %q", got, want)
			}
		}
		r.send(resource.ClusterType, "3", fakexds.StaticCluster("good", one))
		if got := r.said(); !strings.Contains(got, "ack Cluster 3") {
			t.Errorf("said:\n%s", got)
		}
		if s := r.status(); s.Degraded == "" { // never connected in this test
			t.Errorf("status %+v", s)
		}
		if got := r.stat("cluster_manager.cds.version_text"); got != "3" {
			t.Errorf("version_text %q", got)
		}
	})
}

func TestSameBytesAreNotDecodedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		var all []proto.Message
		for i := range 1000 {
			all = append(all, fakexds.StaticCluster(fmt.Sprint("c", i), one))
		}
		r.send(resource.ClusterType, "1", all...)
		r.said()
		before := r.proxy.last
		all[7] = fakexds.StaticCluster("c7", two)
		r.send(resource.ClusterType, "2", all...)
		r.said()
		if r.decoder.n != 1001 {
			t.Errorf("%d resources were decoded, want 1001", r.decoder.n)
		}
		for name, c := range r.proxy.last.Clusters {
			if same := before.Clusters[name] == c; same != (name != "c7") {
				t.Errorf("cluster %s: same pointer %v", name, same)
			}
		}
		// What is gone is forgotten, and what nobody asked for is not kept.
		r.send(resource.ClusterType, "3", all[:1]...)
		r.send(resource.EndpointsType, "1", fakexds.Endpoints("stranger", one))
		r.said()
		if n, m := len(r.m.known[mesh.KindCluster]), len(r.m.known[mesh.KindEndpoints]); n != 1 || m != 0 {
			t.Errorf("%d clusters and %d endpoints are remembered", n, m)
		}
	})
}

func TestMissingEndpointsDoNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		r.stream.out <- ads.Connected{}
		r.send(resource.ClusterType, "1", fakexds.EDSCluster("a"))
		r.send(resource.ListenerType, "1")
		r.said()
		time.Sleep(15*time.Second - time.Nanosecond)
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect("refresh ClusterLoadAssignment", "apply 3")
		if !r.isReady() {
			t.Error("not ready")
		}
		n := r.proxy.notices[len(r.proxy.notices)-1]
		if n.Kind != mesh.NoticeConfigTimeout || n.Config.Errors[0].Name != "a" {
			t.Errorf("notice %+v %+v", n, n.Config)
		}
	})
}

// TestNoControlPlane: start-up ends although the control plane never answers (F15), and says so.
func TestNoControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		r.stream.out <- ads.Disconnected{Err: errors.New("connection refused")}
		time.Sleep(15*time.Second + 1)
		synctest.Wait()
		if !r.isReady() {
			t.Error("not ready after the fetch timeout")
		}
		s := r.status()
		if !strings.Contains(s.Degraded, "connection refused") || s.Connected || !s.Dynamic {
			t.Errorf("status %+v", s)
		}
		for name, want := range map[string]string{
			"cluster_manager.cds.init_fetch_timeout":  "1",
			"listener_manager.lds.init_fetch_timeout": "1",
			"cluster_manager.cds.update_failure":      "1",
			"control_plane.connected_state":           "0",
			"meshtap_xds_disconnected_seconds":        "15",
		} {
			if got := r.stat(name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		r.stream.out <- ads.Connected{}
		synctest.Wait()
		if got := r.stat("control_plane.connected_state") + r.stat("meshtap_xds_disconnected_seconds"); got != "10" {
			t.Errorf("connected_state and disconnected_seconds: %s", got)
		}
	})
}

func decodeStatic(t *testing.T, url string, m proto.Message) Static {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDecoder(true).Decode(url, b, "")
	if err != nil {
		t.Fatal(err)
	}
	return Static{d, b}
}

func TestStaticListenerThatCannotBindEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Static: []Static{
			decodeStatic(t, resource.ClusterType, fakexds.StaticCluster("a", one)),
			decodeStatic(t, resource.ListenerType, fakexds.Listener("L", one, "r")),
		}, FetchTimeout: time.Second}
		r := startRig(t, cfg, func(s *mesh.Snapshot) []mesh.Rejection {
			if s.Listeners["L"] == nil {
				return nil
			}
			return []mesh.Rejection{{Kind: mesh.KindListener, Name: "L", Reason: "cannot bind 10.0.0.1:80"}}
		})
		err := <-r.done // when the wait for its table is over
		if err == nil || err.Error() != `xds: static listener "L": cannot bind 10.0.0.1:80` {
			t.Errorf("Run: %v", err)
		}
		if _, err := r.m.Status(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("Status after the end: %v", err)
		}
	})
}

func TestDynamicListenerThatCannotBindIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		r := startRig(t, dynamic(), func(s *mesh.Snapshot) []mesh.Rejection {
			if s.Listeners["L"] == nil || !fail {
				return nil
			}
			return []mesh.Rejection{{Kind: mesh.KindListener, Name: "L", Reason: "cannot bind 10.0.0.1:80: in use"}}
		})
		defer r.stop()
		r.stream.out <- ads.Connected{}
		r.send(resource.ClusterType, "1", fakexds.StaticCluster("a", one))
		r.send(resource.ListenerType, "1", fakexds.Listener("L", one, "r"))
		r.said()
		r.send(resource.RouteType, "1", fakexds.Routes("r", "a"))
		r.expect("apply 3", "ack RouteConfiguration 1", `nack Listener 1: listener "L": cannot bind 10.0.0.1:80: in use`)
		fail = false
		r.send(resource.ListenerType, "1", fakexds.Listener("L", one, "r"))
		r.expect("apply 4", "ack Listener 1")
	})
}

func dnsCluster(name, host string) *clusterpb.Cluster {
	c := fakexds.StaticCluster(name, one)
	c.ClusterDiscoveryType = &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STRICT_DNS}
	e := c.LoadAssignment.Endpoints[0].LbEndpoints[0].HostIdentifier.(*endpointpb.LbEndpoint_Endpoint).Endpoint
	e.Address.GetSocketAddress().Address = host
	return c
}

func TestLookupsFeedClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		r.stream.out <- ads.Connected{}
		r.said()
		r.send(resource.ClusterType, "1", dnsCluster("d", "d.example"), dnsCluster("broken", "b.example"))
		r.expect("ack Cluster 1", "apply 2") // broken is in force without endpoints
		emit := r.dns.watches["d"]
		emit(discovery.Update{Set: &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{Endpoints: make([]mesh.Endpoint, 3)}}}})
		r.expect("endpoints d 3", "apply 3")
		r.send(resource.ClusterType, "2", dnsCluster("d", "other.example"))
		r.expect("apply 4", "ack Cluster 2") // broken is gone, the new names are awaited
		r.dns.watches["d"](discovery.Update{Set: &mesh.EndpointSet{}})
		r.expect("endpoints d 0", "apply 5")
		if !slices.Equal(r.dns.ended, []string{"d"}) {
			t.Errorf("ended look-ups %v, want the first of d", r.dns.ended)
		}
		emit(discovery.Update{Set: &mesh.EndpointSet{}}) // one that has ended says nothing
		r.expect()
	})
}

func TestWarnsOfFieldsWithoutEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		var all []proto.Message
		for i := range 25 {
			c := fakexds.StaticCluster(fmt.Sprint("c", i), one)
			c.AltStatName = "x"
			c.DnsJitter = durationpb.New(time.Second)
			all = append(all, c)
		}
		r.send(resource.ClusterType, "1", all...)
		r.said()
		lines := r.logs.FilterMessage("fields without effect here").Len()
		more := r.logs.FilterMessage("more resources have fields without effect here").All()
		if lines != maxWarnings || len(more) != 1 || more[0].ContextMap()["resources"] != int64(15) {
			t.Errorf("%d lines, then %v", lines, more)
		}
		r.send(resource.ClusterType, "2", all...)
		r.said()
		if n := r.logs.FilterMessage("fields without effect here").Len(); n != maxWarnings {
			t.Errorf("%d lines after the same again", n)
		}
	})
}

func TestRunRefusesDynamicWithoutStream(t *testing.T) {
	t.Parallel()
	m := New(dynamic(), Deps{Log: zap.NewNop()})
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "control plane") {
		t.Errorf("Run: %v", err)
	}
}

func TestTimers(t *testing.T) {
	t.Parallel()
	var ts timers
	start := time.Now()
	if c, _ := ts.next(start); c != nil {
		t.Error("a channel without a timer")
	}
	for i, ms := range []int{30, 10, 20, 10, 40} {
		ts.start(1+graph.TimerID(i), start.Add(time.Duration(ms)*time.Millisecond))
	}
	ts.stop(3)
	if got := fmt.Sprint(ts.expired(start.Add(30 * time.Millisecond))); got != "[2 4 1]" {
		t.Errorf("expired %s, want [2 4 1]", got)
	}
	ts.stop(5)
	if c, _ := ts.next(start); c != nil || len(ts.running) != 0 || len(ts.due) != 0 {
		t.Errorf("left over: %+v", ts)
	}
}

// liveHeap returns the bytes that are in use, without what the rig records.
func (r *rig) liveHeap() int64 {
	r.logs.TakeAll()
	r.proxy.mu.Lock()
	r.proxy.notices = nil
	r.proxy.mu.Unlock()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMutatedResources sends 10,000 resources of each type with random damage (F05): what cannot be read is refused, what was in force
// stays, nothing falls over, and no memory is held.
func TestMutatedResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, dynamic(), nil)
		defer r.stop()
		r.stream.out <- ads.Connected{}
		overADS := &corepb.ConfigSource{ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}}
		good := map[string]proto.Message{
			resource.ClusterType:   fakexds.EDSCluster("a"),
			resource.EndpointsType: fakexds.Endpoints("a", one, two),
			resource.ListenerType:  fakexds.ScopedListener("L", one, overADS, overADS),
			resource.RouteType:     fakexds.WithHosts(fakexds.Routes("r", "a"), overADS),
			resource.ScopeType:     fakexds.Scope("A", "a", "r"),
			resource.HostType:      fakexds.Host("r", "a.example", "a"),
		}
		types := slices.DeleteFunc(Types(), func(url string) bool { return good[url] == nil })
		for _, url := range types {
			r.send(url, "good", good[url])
		}
		r.said()
		before, heap := r.proxy.last, r.liveHeap()
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 10_000 * len(types) {
			url := types[i%len(types)]
			b, err := proto.Marshal(good[url])
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + random.IntN(4) {
				b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
			}
			b = b[:len(b)-random.IntN(2)*random.IntN(len(b))]
			r.stream.out <- ads.Response{TypeURL: url, Version: fmt.Sprint(i), Nonce: fmt.Sprint(i),
				Resources: []ads.Resource{{TypeURL: url, Bytes: b}}}
		}
		said := r.said()
		acks, nacks := strings.Count(said, "ack ")-strings.Count(said, "nack "), strings.Count(said, "nack ")
		if acks+nacks < 10_000*len(types) || nacks < 5_000*len(types) {
			t.Errorf("%d ACKs and %d NACKs", acks, nacks)
		}
		if !utf8.ValidString(said) {
			t.Error("said what no message can hold")
		}
		for _, url := range types {
			r.send(url, "good again", good[url])
		}
		time.Sleep(time.Minute) // which ends the waits for what damaged resources name
		r.said()
		if s := r.proxy.last; s.Clusters["a"] == nil || s.Listeners["L"] == nil || s.RouteTables["r"] == nil ||
			len(s.Clusters) != len(before.Clusters) || len(s.Listeners) != len(before.Listeners) || len(s.ScopeSets) != 1 || len(s.HostSets) != 1 {
			t.Errorf("in force in the end: %+v", s)
		}
		const most = 20 << 20
		if more := r.liveHeap() - heap; more > most {
			t.Errorf("%d bytes are held after it, at most %d may be", more, most)
		} else {
			t.Logf("figure: %d KiB more are in use after %d damaged resources", more>>10, 10_000*len(types))
		}
	})
}
