// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	endpointspb "github.com/meshtap/meshtap/api/meshtap/endpoints/v1"
	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// dynamic is a bootstrap whose everything comes from a control plane.
func dynamic(cp interface{ Addr() string }, api string) string {
	at := netip.MustParseAddrPort(cp.Addr())
	return fmt.Sprintf(`node: {id: scale, cluster: scale}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: cp}}]}
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: cp
    connect_timeout: 5s
    load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`, api, at.Port())
}

// many is a large configuration: of the clusters, which have ten endpoints each, c0 has one that is there; the routes are
// spread over ten listeners.
type many struct {
	clusters, routes int
	origin           netip.AddrPort
}

// endpoints are those of a cluster; at an odd turn the last of the ten is another one.
func (m many) endpoints(cluster, turn int) types.Resource {
	if cluster == 0 {
		return fakexds.Endpoints("c0", m.origin)
	}
	var all []netip.AddrPort
	for i := range 10 {
		n := cluster*10 + i
		ip := netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
		all = append(all, netip.AddrPortFrom(ip, 1))
	}
	all[9] = netip.AddrPortFrom(all[9].Addr(), uint16(1+turn%2))
	return fakexds.Endpoints(fmt.Sprint("c", cluster), all...)
}

func (m many) resources() map[string][]types.Resource {
	const listeners = 10
	set := map[string][]types.Resource{}
	for i := range m.clusters {
		set[fakexds.ClusterType] = append(set[fakexds.ClusterType], fakexds.EDSCluster(fmt.Sprint("c", i)))
		set[fakexds.EndpointType] = append(set[fakexds.EndpointType], m.endpoints(i, 0))
	}
	for i := range listeners {
		name := fmt.Sprint("l", i)
		table := &routepb.RouteConfiguration{Name: name, VirtualHosts: []*routepb.VirtualHost{{Name: "all", Domains: []string{"*"}}}}
		h := table.VirtualHosts[0]
		for j := range m.routes / listeners {
			h.Routes = append(h.Routes, routeTo(fmt.Sprintf("/r%d/", j), fmt.Sprint("c", (i+j*listeners)%m.clusters)))
		}
		h.Routes = append(h.Routes, routeTo("/", "c0"))
		set[fakexds.RouteType] = append(set[fakexds.RouteType], table)
		set[fakexds.ListenerType] = append(set[fakexds.ListenerType], fakexds.Listener(name, netip.MustParseAddrPort("127.0.0.1:0"), name))
	}
	return set
}

func routeTo(prefix, cluster string) *routepb.Route {
	return &routepb.Route{
		Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: prefix}},
		Action: &routepb.Route_Route{Route: &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: cluster}}},
	}
}

// TestManyResources is issue 6's scale: the first push to serving, what it takes of memory, and what one change of endpoints
// costs among all of them (F09, F10). SOAK=1 makes it 10,000 clusters of ten endpoints and 50,000 routes.
func TestManyResources(t *testing.T) {
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) { manyResources(t, api) })
	}
}

func manyResources(t *testing.T, api string) {
	m := many{clusters: 500, routes: 2_500}
	changes := 50
	if soak() {
		m.clusters, m.routes, changes = 10_000, 50_000, 500
	}
	o := origin.Start(t, "a", nil)
	m.origin = o.Addr()
	cp := fakexds.StartWith(t, fakexds.Options{Linear: true})
	cp.SetAll("1", m.resources())
	began, own := time.Now(), processor(t, os.Getpid())
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, api), Args: []string{"--no-tap"}})
	p.Ready()
	ready, worked := time.Since(began), processor(t, p.Pid())
	own = processor(t, os.Getpid()) - own
	addr := p.Admin().Listeners()["l0"]
	l := load.Start(t, load.Options{Workers: 4, Rate: 400, Addr: func() string { return addr }})
	l.After(50)
	served := time.Since(began)
	rss, peak := memory(t, p.Pid())
	t.Logf("figure: %s: %d clusters x 10 endpoints, %d routes: ready after %v, for which the proxy worked %v and the control plane %v, serving after %v; RSS %d MiB, at most %d MiB",
		api, m.clusters, m.routes, ready.Round(time.Millisecond), worked, own, served.Round(time.Millisecond), rss>>20, peak>>20)

	l.After(100)
	idle, idleAt := processor(t, p.Pid()), time.Now()
	l.After(400)
	quiet := (processor(t, p.Pid()) - idle).Seconds() / time.Since(idleAt).Seconds()
	modified := p.Admin().Stats()["cluster_manager.cluster_modified"]
	before, since := processor(t, p.Pid()), time.Now()
	for i := range changes {
		forget(cp)
		cp.Update(fakexds.EndpointType, "c7", m.endpoints(7, i+1))
		untilAcked(t, cp, fakexds.EndpointType)
	}
	took := time.Since(since)
	used := processor(t, p.Pid()) - before - time.Duration(quiet*float64(took))
	t.Logf("figure: %s: %d changes of the endpoints of one cluster: %v of processor time each, at %.0f changes/s, beside %.0f%% for the load",
		api, changes, (used / time.Duration(changes)).Round(time.Microsecond), float64(changes)/took.Seconds(), 100*quiet)
	if n := p.Admin().Stats()["cluster_manager.cluster_modified"]; n != modified {
		t.Errorf("%d clusters were built anew for changes of endpoints", n-modified)
	}
	if res := l.Stop(); res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
}

// forget forgets what the control plane was told so far.
func forget(cp *fakexds.Server) {
	for {
		select {
		case <-cp.Answers():
		default:
			return
		}
	}
}

// untilAcked waits until a response of a type is accepted.
func untilAcked(t *testing.T, cp *fakexds.Server, typeURL string) {
	t.Helper()
	limit := time.After(sidecar.Hang)
	for {
		select {
		case a := <-cp.Answers():
			if a.TypeURL == typeURL && a.Nack {
				t.Fatalf("refused: %s", a.Detail)
			}
			if a.TypeURL == typeURL && a.Ack {
				return
			}
		case <-limit:
			t.Fatal("no answer")
		}
	}
}

// memory returns the resident bytes of a process, now and at most.
func memory(t *testing.T, pid int) (now, peak int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		switch f[0] {
		case "VmRSS:":
			now = n << 10
		case "VmHWM:":
			peak = n << 10
		}
	}
	return now, peak
}

// processor returns the processor time that a process has used.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')'):]) // proc(5): the name may hold anything
	user, err := strconv.Atoi(f[12])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(f[13])
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// TestClusterFlaps: a cluster comes and goes again and again, and leaves nothing behind (F14).
func TestClusterFlaps(t *testing.T) {
	flaps := 100
	if soak() {
		flaps = 10_000
	}
	m := many{clusters: 3, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	set := m.resources()
	cp.SetAll("0", set)
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "DELTA_GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	addr := p.Admin().Listeners()["l0"]
	l := load.Start(t, load.Options{Workers: 2, Rate: 200, Addr: func() string { return addr }})
	flap := func(i int) {
		clusters := append([]types.Resource{fakexds.StaticCluster("flaps", m.origin)}, set[fakexds.ClusterType]...)
		if i%2 == 1 {
			clusters = set[fakexds.ClusterType]
		}
		forget(cp)
		cp.Set(fakexds.ClusterType, fmt.Sprint("f", i), clusters...)
		untilAcked(t, cp, fakexds.ClusterType)
	}
	for i := range 20 { // what grows once
		flap(i)
	}
	r := &examples.Rig{Proxy: p, Admin: p.Admin()}
	heap, before := liveHeap(t, r.Admin), look(t, r)
	for i := range 2 * flaps {
		flap(i)
	}
	p.Admin().UntilStats(func(s sidecar.Stats) bool { return s["cluster_manager.active_clusters"] == 4 })
	after := look(t, r)
	t.Logf("figure: a cluster came and went %d times: %d descriptors before and %d after, %d goroutines before and %d after, allocated %d KiB before and %d KiB after",
		flaps, before.files, after.files, before.goroutines, after.goroutines, heap>>10, liveHeap(t, r.Admin)>>10)
	if after.files-before.files > 5 || after.goroutines-before.goroutines > 5 {
		t.Errorf("%d descriptors and %d goroutines more", after.files-before.files, after.goroutines-before.goroutines)
	}
	res := l.Stop()
	t.Logf("figure: %v", res)
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
}

// TestEndpointsGoAndComeBack: a set without endpoints is taken as what it says, 503 and UH, and the next one is served at once
// (F13). A cluster that is removed while a route names it answers by the contract: with 200 until it is let go of, and with
// 503 and NC from then on (F12).
func TestEndpointsGoAndComeBack(t *testing.T) {
	t.Parallel()
	m := many{clusters: 2, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	cp.SetAll("1", m.resources())
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	url := "http://" + p.Admin().Listeners()["l0"] + "/"
	untilStatus(t, url, http.StatusOK)
	cp.Set(fakexds.EndpointType, "2", fakexds.Endpoints("c0"), m.endpoints(1, 0))
	untilStatus(t, url, http.StatusServiceUnavailable)
	cp.Set(fakexds.EndpointType, "3", m.resources()[fakexds.EndpointType]...)
	untilStatus(t, url, http.StatusOK)
	cp.Set(fakexds.ClusterType, "4", fakexds.EDSCluster("c1"))
	counts := untilStatus(t, url, http.StatusServiceUnavailable)
	t.Logf("figure: a cluster removed while a route named it: answers until it was let go of %v", counts)
	for status := range counts {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("status %d", status)
		}
	}
}

// TestLastEndpointsAreKept: a cluster whose configuration says so goes on with the endpoints it had when a set without any
// comes, until the time is over or others come (F13).
func TestLastEndpointsAreKept(t *testing.T) {
	t.Parallel()
	m := many{clusters: 2, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	set := m.resources()
	keeping := func(d time.Duration) types.Resource {
		c := fakexds.EDSCluster("c0")
		keep, err := anypb.New(&endpointspb.Endpoints{KeepLast: durationpb.New(d)})
		if err != nil {
			t.Fatal(err)
		}
		c.Metadata = &corepb.Metadata{TypedFilterMetadata: map[string]*anypb.Any{"io.meshtap.endpoints": keep}}
		return c
	}
	set[fakexds.ClusterType][0] = keeping(time.Hour)
	cp.SetAll("1", set)
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	url := "http://" + p.Admin().Listeners()["l0"] + "/"
	untilStatus(t, url, http.StatusOK)
	cp.Set(fakexds.EndpointType, "2", fakexds.Endpoints("c0"), m.endpoints(1, 0))
	p.Logged(`no endpoints; it goes on with those it had, for 1h`)
	for range 20 {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d with the endpoints that are kept", resp.StatusCode)
		}
	}
	cp.Set(fakexds.ClusterType, "3", keeping(10*time.Millisecond), fakexds.EDSCluster("c1"))
	untilStatus(t, url, http.StatusServiceUnavailable)
	cp.Set(fakexds.EndpointType, "4", set[fakexds.EndpointType]...)
	untilStatus(t, url, http.StatusOK)
}

// untilStatus makes requests until one has a status, and counts them.
func untilStatus(t *testing.T, url string, want int) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for limit := time.Now().Add(sidecar.Hang); ; {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if counts[resp.StatusCode]++; resp.StatusCode == want {
			return counts
		}
		if time.Now().After(limit) {
			t.Fatalf("statuses %v, want %d", counts, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestStartsFromTheDisk (F18): with its control plane down, a proxy that kept its configuration is ready from it, says so, and
// takes what the control plane says when it is back.
func TestStartsFromTheDisk(t *testing.T) {
	t.Parallel()
	m := many{clusters: 20, routes: 100, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	cp.SetAll("1", m.resources())
	o := sidecar.Options{Bootstrap: dynamic(cp, "DELTA_GRPC"), Args: []string{"--no-tap", "--config-cache", filepath.Join(t.TempDir(), "kept")}}
	p := sidecar.Run(t, o)
	p.Ready()
	p.Signal(os.Interrupt)
	p.Wait()
	cp.Kill()
	began := time.Now()
	p = sidecar.Run(t, o)
	p.Ready()
	t.Logf("figure: ready from the disk after %v, control plane down", time.Since(began).Round(time.Millisecond))
	if body := p.Admin().Get("/ready"); !strings.HasPrefix(body, "LIVE\nwith the configuration saved at ") {
		t.Errorf("/ready says %q", body)
	}
	if !strings.Contains(p.Admin().Get("/config_dump"), `"saved": "`) {
		t.Error("/config_dump does not say where the configuration is from")
	}
	untilStatus(t, "http://"+p.Admin().Listeners()["l0"]+"/", http.StatusOK)
	cp.Restart()
	p.Admin().Until("/ready", func(_ int, body string) bool { return body == "LIVE\n" })
	if list := p.Admin().Listeners(); len(list) != 10 {
		t.Errorf("listeners %v", list)
	}
}

// TestGoesBackByHand: an operator goes back to an older configuration, which holds while newer ones come, and releases it.
func TestGoesBackByHand(t *testing.T) {
	t.Parallel()
	m := many{clusters: 2, routes: 10, origin: origin.Start(t, "a", nil).Addr()}
	cp := fakexds.Start(t)
	cp.SetAll("good", m.resources())
	p := sidecar.Run(t, sidecar.Options{Bootstrap: dynamic(cp, "GRPC"), Args: []string{"--no-tap"}})
	p.Ready()
	at := p.Admin().Listeners()["l0"]
	broken := &routepb.RouteConfiguration{Name: "l0", VirtualHosts: []*routepb.VirtualHost{{Name: "none", Domains: []string{"nowhere"}}}}
	cp.Set(fakexds.RouteType, "bad", append([]types.Resource{broken}, m.resources()[fakexds.RouteType][1:]...)...)
	untilStatus(t, "http://"+at+"/", http.StatusNotFound)
	verb := func(args ...string) string {
		out, err := exec.Command(sidecar.Meshtap(t), append(append([]string{"config"}, args...), "--admin", p.Admin().Addr())...).CombinedOutput()
		if err != nil {
			t.Errorf("meshtap config %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	verb("rollback", "good")
	untilStatus(t, "http://"+at+"/", http.StatusOK)
	if body := p.Admin().Get("/ready"); !strings.Contains(body, "is held by hand since") {
		t.Errorf("/ready says %q", body)
	}
	if body := p.Admin().Get("/config_history"); !strings.Contains(body, `"held": true`) && !strings.Contains(body, `"held":true`) {
		t.Errorf("/config_history says %s", body)
	}
	if status, body, err := p.Admin().Do(http.MethodPost, "/config_rollback?version=nothing"); err != nil || status != http.StatusBadRequest || !strings.Contains(body, "there is no snapshot") {
		t.Errorf("to nothing: %d %q %v", status, body, err)
	}
	if out := verb("history"); !strings.Contains(out, " held ") || !strings.Contains(out, `~route_configuration "l0"`) {
		t.Errorf("meshtap config history: %s", out)
	}
	verb("release")
	untilStatus(t, "http://"+at+"/", http.StatusNotFound)
}
