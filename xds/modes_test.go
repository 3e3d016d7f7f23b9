// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// modes are the ways in which a control plane can be asked, as bootstraps write them.
var modes = []string{"ADS GRPC", "ADS DELTA_GRPC", "GRPC", "DELTA_GRPC", "REST", "file"}

// matrix are the modes, over TLS where there is a connection, and from caches of one type each.
var matrix = []string{
	"ADS GRPC", "ADS DELTA_GRPC", "GRPC", "DELTA_GRPC", "REST", "file",
	"TLS ADS GRPC", "TLS ADS DELTA_GRPC", "TLS GRPC", "TLS DELTA_GRPC", "TLS REST",
	"linear ADS GRPC", "linear ADS DELTA_GRPC", "linear GRPC", "linear DELTA_GRPC",
}

// moded is a world in one of the modes.
type moded struct {
	*world
	mode  string
	keys  *keys // of TLS, nil for plain text
	dir   string
	reg   *stats.Registry
	count int
	// patience is how long secrets are waited for where it is not 0.
	patience time.Duration
	// pairs are the certificates that states name.
	pairs []*testcert.Pair
}

// startMode runs a manager from a bootstrap.
func startMode(t *testing.T, mode string) *moded {
	t.Helper()
	return startLogged(t, mode, zap.NewNop())
}

func startLogged(t *testing.T, mode string, log *zap.Logger) *moded {
	t.Helper()
	w := newMode(t, mode)
	w.run(xds.Cache{}, log)
	return w
}

// newMode starts a control plane, and nothing that asks it.
func newMode(t *testing.T, mode string) *moded {
	t.Helper()
	var opt fakexds.Options
	mode, opt.Linear = strings.CutPrefix(mode, "linear ")
	w := &moded{dir: t.TempDir()}
	if plain, secure := strings.CutPrefix(mode, "TLS "); secure {
		mode, w.keys = plain, newKeys(t, w.dir)
		opt.TLS = w.keys.server(w.keys.issue(t))
	}
	w.mode, w.world = mode, &world{t: t, cp: fakexds.StartWith(t, opt)}
	return w
}

// run runs a manager, in place of the one before, which has to be stopped.
func (w *moded) run(cache xds.Cache, log *zap.Logger) {
	t := w.t
	t.Helper()
	w.reg = stats.NewRegistry(stats.Options{})
	w.proxy = &proxy{
		t: t, applied: make(chan *mesh.Snapshot, 1<<16), notices: make(chan mesh.Notice, 1<<16),
		endpoints: map[string]*mesh.EndpointSet{}, secrets: newSecrets(), configs: make(chan *mesh.Extension, 1<<16),
	}
	b, err := bootstrap.Load(bootstrap.Options{YAML: w.bootstrap(), Parsers: resourcetest.Parsers()})
	if err != nil {
		t.Fatal(err)
	}
	streams := xds.NewStreams(b, log)
	aggregated, err := streams.Aggregated()
	if err != nil {
		t.Fatal(err)
	}
	cfg := xds.FromBootstrap(b)
	cfg.Cache = cache
	w.m = xds.New(cfg, xds.Deps{
		Log: log, Stream: aggregated, Open: streams.Open, DNS: dns.New(dns.Config{}, log), Notifier: w.proxy, Stats: w.reg,
		Decoder: resource.New(b.Resource), Apply: w.proxy.apply, SetEndpoints: w.proxy.setEndpoints,
		SetSecret: w.proxy.setSecret, SetExtension: w.proxy.setExtension,
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
}

// bootstrap writes the configuration of a mode.
func (w *moded) bootstrap() string {
	var b strings.Builder
	source := func(typeURL string) string {
		text, err := protojson.Marshal(w.source(typeURL))
		if err != nil {
			w.t.Fatal(err)
		}
		return string(text)
	}
	fmt.Fprintf(&b, "node: {id: %q, cluster: test}\ndynamic_resources:\n", w.mode)
	if api, aggregated := strings.CutPrefix(w.mode, "ADS "); aggregated {
		fmt.Fprintf(&b, "  ads_config: {api_type: %s, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}\n", api)
	}
	fmt.Fprintf(&b, "  lds_config: %s\n  cds_config: %s\n", source(fakexds.ListenerType), source(fakexds.ClusterType))
	b.WriteString("static_resources:\n  clusters:\n")
	for name, addr := range map[string]string{"control-plane": w.cp.Addr(), "rest": w.rest()} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "  - {name: %s, connect_timeout: 1s, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: "+
			"{address: {socket_address: {address: %s, port_value: %s}}}}]}]}%s}\n", name, name, host, port, w.keys.socket())
	}
	return b.String()
}

func (w *moded) rest() string {
	if w.mode != "REST" {
		return w.cp.Addr()
	}
	return w.cp.ServeREST()
}

// source is where resources of a type come from.
func (w *moded) source(typeURL string) *corepb.ConfigSource {
	switch w.mode {
	case "GRPC":
		return fakexds.StreamSource(corepb.ApiConfigSource_GRPC, "control-plane")
	case "DELTA_GRPC":
		return fakexds.StreamSource(corepb.ApiConfigSource_DELTA_GRPC, "control-plane")
	case "REST":
		return fakexds.PollSource("rest", 20*time.Millisecond)
	case "file":
		return fakexds.FileSource(w.path(typeURL))
	}
	c := &corepb.ConfigSource{ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}}
	if w.patience > 0 && typeURL == fakexds.SecretType {
		c.InitialFetchTimeout = durationpb.New(w.patience)
	}
	return c
}

func (w *moded) path(typeURL string) string {
	return filepath.Join(w.dir, fakexds.Short(typeURL)+".json")
}

// push makes a state what the proxy is to have.
func (w *moded) push(version string, s state) {
	w.t.Helper()
	set := s.resources()
	w.addSecrets(set, s)
	set[fakexds.ClusterType] = fakexds.From(w.source(fakexds.EndpointType), set[fakexds.ClusterType]...)
	set[fakexds.ListenerType] = fakexds.From(w.source(fakexds.RouteType), set[fakexds.ListenerType]...)
	w.pushAll(version, set)
}

// pushAll does so with resources, in the order of their types.
func (w *moded) pushAll(version string, set map[string][]types.Resource) {
	w.t.Helper()
	if w.mode != "file" {
		w.cp.SetAll(version, set)
		return
	}
	for _, typeURL := range slices.Sorted(maps.Keys(set)) {
		w.write(typeURL, version, set[typeURL])
	}
}

// write replaces a file of resources.
func (w *moded) write(typeURL, version string, list []types.Resource) {
	w.t.Helper()
	r := &discoverypb.DiscoveryResponse{VersionInfo: version, TypeUrl: typeURL}
	for _, m := range list {
		r.Resources = append(r.Resources, mustAny(w.t, m))
	}
	text, err := protojson.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(typeURL, text)
}

// put replaces a file by one that is renamed over it.
func (w *moded) put(typeURL string, text []byte) {
	w.t.Helper()
	w.count++
	tmp := filepath.Join(w.dir, fmt.Sprintf(".%d", w.count))
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, w.path(typeURL)); err != nil {
		w.t.Fatal(err)
	}
}

// state is what a control plane says: clusters with the ports of their endpoints, 0 for one that is static; tables with
// the clusters that they go to; listeners with their table.
type state struct {
	clusters  map[string]int
	tables    map[string][]string
	listeners map[string]string
	// secrets are the certificates of listeners, by their place among moded.pairs.
	secrets map[string]int
}

func (s state) resources() map[string][]types.Resource {
	set := map[string][]types.Resource{
		fakexds.ClusterType: {}, fakexds.EndpointType: {}, fakexds.RouteType: {}, fakexds.ListenerType: {},
	}
	add := func(typeURL string, r types.Resource) { set[typeURL] = append(set[typeURL], r) }
	for _, name := range slices.Sorted(maps.Keys(s.clusters)) {
		if p := s.clusters[name]; p > 0 {
			add(fakexds.ClusterType, fakexds.EDSCluster(name))
			add(fakexds.EndpointType, fakexds.Endpoints(name, port(p)))
		} else {
			add(fakexds.ClusterType, fakexds.StaticCluster(name, port(0)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		add(fakexds.RouteType, fakexds.Routes(name, s.tables[name]...))
	}
	for i, name := range slices.Sorted(maps.Keys(s.listeners)) {
		add(fakexds.ListenerType, fakexds.Listener(name, port(100+i), s.listeners[name]))
	}
	return set
}

// text is how a state looks when it is in force.
func (s state) text() string {
	var lines []string
	for name, p := range s.clusters {
		lines = append(lines, fmt.Sprintf("cluster %s %s", name, port(p)))
	}
	for name, to := range s.tables {
		lines = append(lines, fmt.Sprintf("table %s %v", name, slices.Compact(slices.Sorted(slices.Values(to)))))
	}
	for name, table := range s.listeners {
		lines = append(lines, fmt.Sprintf("listener %s %s", name, table))
	}
	for name, i := range s.secrets {
		lines = append(lines, fmt.Sprintf("secret of %s %d", name, i))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// inForce is the same of a snapshot, whatever the sources.
func (w *moded) inForce(s *mesh.Snapshot) string {
	var lines []string
	w.proxy.mu.Lock()
	defer w.proxy.mu.Unlock()
	for name, c := range s.Clusters {
		set := c.Endpoints
		if c.Discovery == mesh.EDS {
			set = w.proxy.endpoints[name]
		}
		if c.Static {
			continue
		}
		at := netip.AddrPort{}
		if set != nil && len(set.Localities) > 0 {
			at = set.Localities[0].Endpoints[0].Address.IP
		}
		lines = append(lines, fmt.Sprintf("cluster %s %s", name, at))
	}
	for key, t := range s.RouteTables {
		lines = append(lines, fmt.Sprintf("table %s %v", sourcekey.Name(key), slices.Compact(slices.Sorted(slices.Values(routedTo(t))))))
	}
	for name, l := range s.Listeners {
		lines = append(lines, fmt.Sprintf("listener %s %s", name, sourcekey.Name(l.Chains[0].HTTP.RouteTable)))
		if tls := l.Chains[0].TLS; tls != nil {
			lines = append(lines, fmt.Sprintf("secret of %s %d", name, w.place(tls.CertificateSecrets[0])))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// untilInForce waits for a state.
func (w *moded) untilInForce(s state) {
	w.t.Helper()
	want, got := s.text(), ""
	deadline := time.Now().Add(hang)
	for last := (*mesh.Snapshot)(nil); ; {
		select {
		case last = <-w.proxy.applied:
		case <-time.After(20 * time.Millisecond): // endpoints come by themselves
		}
		if last != nil {
			if got = w.inForce(last); got == want {
				return
			}
		}
		if time.Now().After(deadline) {
			status, err := w.m.Status(w.t.Context())
			w.t.Fatalf("%s: got:\n%s\nwant:\n%s\nstatus %+v %v", w.mode, got, want, status, err)
		}
	}
}

// randomState is a state that a control plane may be in.
func randomState(r *rand.Rand) state {
	s := state{map[string]int{}, map[string][]string{}, map[string]string{}, map[string]int{}}
	for i := range 1 + r.IntN(6) {
		s.clusters[fmt.Sprint("c", r.IntN(8))] = r.IntN(2) * (1 + i + r.IntN(50))
	}
	names := slices.Sorted(maps.Keys(s.clusters))
	for range r.IntN(4) {
		var to []string
		for range 1 + r.IntN(3) {
			to = append(to, names[r.IntN(len(names))])
		}
		s.tables[fmt.Sprint("t", r.IntN(4))] = to
	}
	for i, table := range slices.Sorted(maps.Keys(s.tables)) { // each is named: what is not asked for does not come
		name := fmt.Sprint("l", i, r.IntN(2))
		s.listeners[name] = table
		if r.IntN(2) == 0 {
			s.secrets[name] = r.IntN(numPairs)
		}
	}
	return s
}

// The same random sequence of states, told in every way, ends in the same configuration; and no way breaks on its way what
// was served (the checks of proxy.apply).
func TestSameEndByEveryWay(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	for _, mode := range matrix {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			w := startMode(t, mode)
			r := rand.New(rand.NewPCG(seed, 0))
			for i := range 8 {
				var s state
				for range 1 + r.IntN(4) { // some are overtaken before they are seen
					s = randomState(r)
					w.push(fmt.Sprint(i, ".", r.IntN(1e9)), s)
				}
				w.untilInForce(s)
			}
		})
	}
}

// one is a state of one listener, whose routes go to clusters.
func one(endpoint int, clusters ...string) state {
	s := state{map[string]int{}, map[string][]string{"r": clusters}, map[string]string{"L": "r"}, nil}
	for i, c := range clusters {
		s.clusters[c] = endpoint + i
	}
	return s
}

// What is shown says where each resource came from, and by which variant; and the numbers of each stream have Envoy's
// names.
func TestStatusNamesSources(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct {
		sources []string
		plane   string
	}{
		"ADS GRPC":       {[]string{"ADS (GRPC control-plane)"}, "control_plane"},
		"ADS DELTA_GRPC": {[]string{"ADS (DELTA_GRPC control-plane)"}, "control_plane"},
		"GRPC":           {[]string{"GRPC control-plane"}, "cluster_manager.cds.control_plane listener_manager.lds.control_plane cluster.a.control_plane http.L.rds.r.control_plane"},
		"DELTA_GRPC":     {[]string{"DELTA_GRPC control-plane"}, "cluster_manager.cds.control_plane listener_manager.lds.control_plane cluster.a.control_plane http.L.rds.r.control_plane"},
		"REST":           {[]string{"REST rest"}, "cluster_manager.cds.control_plane"},
		"file":           {[]string{"file "}, "cluster_manager.cds.control_plane"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			s := one(1, "a")
			w.push("1", s)
			w.untilInForce(s)
			st, err := w.m.Status(t.Context())
			if err != nil || !st.Connected || st.Degraded != "" {
				t.Fatalf("status %+v, error %v", st, err)
			}
			for _, typ := range st.Types {
				if !strings.HasPrefix(typ.Source, want.sources[0]) || typ.Resources != 1 || !typ.Asked {
					t.Errorf("type %+v, want source %s", typ, want.sources[0])
				}
			}
			if n := map[bool]int{true: 1, false: 4}[strings.HasPrefix(mode, "ADS")]; len(st.Sources) != n {
				t.Errorf("%d sources, want %d: %+v", len(st.Sources), n, st.Sources)
			}
			for _, name := range strings.Fields(want.plane) {
				if v, ok := number(w.reg, name+".connected_state"); !ok || v != 1 {
					t.Errorf("%s.connected_state is %d, there: %v", name, v, ok)
				}
			}
			in, err := w.m.Dump(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := in.Routes[0]; got.Name != "r" || !strings.HasPrefix(got.Source, want.sources[0]) {
				t.Errorf("the dump says %q of %q", got.Source, got.Name)
			}
		})
	}
}

// number reads a gauge, counter a counter.
func number(reg *stats.Registry, name string) (value int64, ok bool) {
	return read(reg, name, stats.Gauge)
}

func counter(reg *stats.Registry, name string) (value int64, ok bool) {
	return read(reg, name, stats.Counter)
}

func read(reg *stats.Registry, name string, kind stats.Kind) (value int64, ok bool) {
	reg.Each(func(k stats.Kind) bool { return k == kind }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == name {
			value, ok = m.Value, true
		}
		return !ok
	})
	return value, ok
}

// A file that cannot be read, or of which one resource cannot be used, leaves what is there, and says where it is wrong.
func TestBadFilesAreNamed(t *testing.T) {
	t.Parallel()
	w := startMode(t, "file")
	w.push("1", one(1, "a"))
	w.untilInForce(one(1, "a"))
	for _, tt := range []struct{ name, text, want string }{
		{"no YAML", "resources:\n- [", ":2:"},
		{"no such field of the answer", "resource: []\nresources: {a: b}", ":2:12: resources[0]"},
		{"a value", "version_info: two\nresources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: a\n  lb_policy: ODD\n", ":5:14: "},
		{"another type", "type_url: type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "this file is for " + fakexds.ClusterType},
	} {
		w.put(fakexds.ClusterType, []byte(tt.text))
		w.degraded(tt.name, tt.want)
	}
	// A resource that decodes to nothing usable is refused by itself.
	w.put(fakexds.ClusterType, []byte(`version_info: "3"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: bad
  connect_timeout: 0s
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: good
`))
	w.degraded("one of two", w.path(fakexds.ClusterType)+":5:20: connect_timeout")
	w.push("4", one(2, "a", "b"))
	w.untilInForce(one(2, "a", "b"))
	if err := os.Remove(w.path(fakexds.ClusterType)); err != nil {
		t.Fatal(err)
	}
	w.degraded("the file is gone", "no such file")
	w.push("5", one(3, "b"))
	w.untilInForce(one(3, "b"))
}

// degraded waits for the status to say what is wrong.
func (w *moded) degraded(name, want string) {
	w.t.Helper()
	deadline := time.Now().Add(hang)
	for {
		s, err := w.m.Status(w.t.Context())
		if err == nil && strings.Contains(s.Degraded, want) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: the status says %q, want %q; error %v", name, s.Degraded, want, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Kubernetes turns a link when a ConfigMap changes: all files change at one moment.
func TestConfigMapTurns(t *testing.T) {
	t.Parallel()
	w := startMode(t, "file")
	publish := func(version string, s state) {
		dir := filepath.Join(w.dir, ".."+version)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		set := s.resources()
		fakexds.From(w.source(fakexds.EndpointType), set[fakexds.ClusterType]...)
		fakexds.From(w.source(fakexds.RouteType), set[fakexds.ListenerType]...)
		for typeURL, list := range set {
			r := &discoverypb.DiscoveryResponse{VersionInfo: version}
			for _, m := range list {
				r.Resources = append(r.Resources, mustAny(t, m))
			}
			text, err := protojson.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(w.path(typeURL))), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(w.path(typeURL)); err != nil {
				if err := os.Symlink(filepath.Join("..data", filepath.Base(w.path(typeURL))), w.path(typeURL)); err != nil {
					t.Fatal(err)
				}
			}
		}
		tmp := filepath.Join(w.dir, "..data_tmp")
		if err := os.Symlink(".."+version, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(w.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		s := one(i+1, fmt.Sprint("c", i))
		publish(fmt.Sprint("v", i), s)
		w.untilInForce(s)
	}
}

// A response of the incremental variant applies resource by resource, and the NACK names the bad one.
func TestDeltaTakesTheGoodOnes(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS DELTA_GRPC")
	w.push("1", one(1, "a"))
	w.untilInForce(one(1, "a"))
	wrap := func(m types.Resource, name, version string) *discoverypb.Resource {
		return &discoverypb.Resource{Name: name, Version: version, Resource: mustAny(t, m), Aliases: []string{"also-" + name}}
	}
	bad := fakexds.StaticCluster("bad", port(1))
	bad.LbPolicy = 77
	w.cp.InjectDelta(&discoverypb.DeltaDiscoveryResponse{
		TypeUrl: fakexds.ClusterType, SystemVersionInfo: "2",
		Resources: []*discoverypb.Resource{
			wrap(fakexds.StaticCluster("good", port(1)), "good", "g1"), wrap(bad, "bad", "b1"),
			wrap(fakexds.StaticCluster("one", port(1)), "other", "o1"),
		},
	})
	a := w.answer("NACK", func(a fakexds.Answer) bool { return a.Nack })
	for _, want := range []string{`cluster "bad": lb_policy`, `cluster "other": resource 3`, `calls itself "one"`} {
		if !strings.Contains(a.Detail, strings.TrimSuffix(want, ": resource 3")) {
			t.Errorf("NACK %q, without %q", a.Detail, want)
		}
	}
	w.until("the good one", func(s *mesh.Snapshot) bool { return s.Clusters["good"] != nil && s.Clusters["a"] != nil })
	w.cp.InjectDelta(&discoverypb.DeltaDiscoveryResponse{
		TypeUrl: fakexds.ClusterType, SystemVersionInfo: "3", RemovedResources: []string{"good", "never-there"},
	})
	w.until("it is gone", func(s *mesh.Snapshot) bool { return s.Clusters["good"] == nil && s.Clusters["a"] != nil })
	w.answer("ACK", func(a fakexds.Answer) bool { return a.Ack && a.TypeURL == fakexds.ClusterType })
	// On a new stream, the versions are those that are held: of what was refused, none.
	_, streams := w.cp.Counts()
	w.cp.KillStreams()
	first := w.answer("the next stream", func(a fakexds.Answer) bool {
		return a.Stream == streams+1 && a.TypeURL == fakexds.ClusterType
	})
	if got := slices.Sorted(maps.Keys(first.Initial)); fmt.Sprint(got) != "[a]" || first.Initial["a"] == "" {
		t.Errorf("initial_resource_versions %v", first.Initial)
	}
}

// What the incremental variant says does not exist is not waited for.
func TestDeltaSaysWhatIsNotThere(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS DELTA_GRPC")
	w.cp.Mute(fakexds.EndpointType)
	w.push("1", state{clusters: map[string]int{"a": 1}})
	w.answer("endpoints are asked for", func(a fakexds.Answer) bool { return a.TypeURL == fakexds.EndpointType })
	w.cp.InjectDelta(&discoverypb.DeltaDiscoveryResponse{TypeUrl: fakexds.EndpointType, RemovedResources: []string{"a"}})
	for n := range w.proxy.notices {
		if n.Kind == mesh.NoticeConfigTimeout {
			if reason := n.Config.Errors[0].Reason; !strings.Contains(reason, "does not exist") {
				t.Errorf("reason %q", reason)
			}
			break
		}
	}
	w.ready()
}

// A resource with a time to live goes when nobody says that it lives, in both variants; a sign of life keeps it.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[:4] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			w.push("1", one(1, "a"))
			w.untilInForce(one(1, "a"))
			short := fakexds.StaticCluster("short", port(1))
			a := fakexds.EDSCluster("a")
			fakexds.From(w.source(fakexds.EndpointType), a)
			send := func(ttl time.Duration, list ...*clusterpb.Cluster) {
				w.inject(ttl, list...)
			}
			send(time.Hour, short, a)
			w.until("it is there", func(s *mesh.Snapshot) bool { return s.Clusters["short"] != nil })
			send(50*time.Millisecond, heartbeat(short), heartbeat(a))
			w.until("both are gone", func(s *mesh.Snapshot) bool { return s.Clusters["short"] == nil })
		})
	}
}

// heartbeat is a cluster that is only named.
func heartbeat(c *clusterpb.Cluster) *clusterpb.Cluster {
	return &clusterpb.Cluster{AltStatName: c.GetName()}
}

// inject sends clusters that live for a time, in the mode's variant.
func (w *moded) inject(ttl time.Duration, list ...*clusterpb.Cluster) {
	w.t.Helper()
	w.count++
	version := fmt.Sprint("ttl-", w.count)
	var all []*discoverypb.Resource
	for _, c := range list {
		r := &discoverypb.Resource{Name: cmp.Or(c.GetName(), c.GetAltStatName()), Version: "1", Ttl: durationpb.New(ttl)}
		if c.GetName() != "" {
			r.Resource = mustAny(w.t, c)
		}
		all = append(all, r)
	}
	if strings.HasSuffix(w.mode, "DELTA_GRPC") {
		w.cp.InjectDelta(&discoverypb.DeltaDiscoveryResponse{TypeUrl: fakexds.ClusterType, SystemVersionInfo: version, Resources: all})
		return
	}
	sotw := &discoverypb.DiscoveryResponse{TypeUrl: fakexds.ClusterType, VersionInfo: version}
	for _, r := range all {
		sotw.Resources = append(sotw.Resources, mustAny(w.t, r))
	}
	w.cp.Inject(sotw)
}
