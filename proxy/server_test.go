// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/listener"
)

const hang = 20 * time.Second

// recorder keeps what it is told.
type recorder struct {
	mu       sync.Mutex
	outcomes []mesh.Outcome
	notices  []mesh.Notice
	n        atomic.Int64
	more     chan struct{}
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{}, 1)} }

func (r *recorder) Observe(o *mesh.Outcome) {
	r.mu.Lock()
	c := *o
	c.Method, c.Path, c.Authority = bytes.Clone(o.Method), bytes.Clone(o.Path), bytes.Clone(o.Authority)
	c.UpstreamPath, c.RequestID = bytes.Clone(o.UpstreamPath), bytes.Clone(o.RequestID)
	c.Tries = append([]mesh.Try(nil), o.Tries...)
	c.Headers = nil
	r.outcomes = append(r.outcomes, c)
	r.mu.Unlock()
	r.n.Add(1)
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *recorder) Notify(n *mesh.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = append(r.notices, *n)
}

// wait waits for n outcomes and returns them all.
func (r *recorder) wait(t testing.TB, n int) []mesh.Outcome {
	t.Helper()
	timeout := time.After(hang)
	for r.n.Load() < int64(n) {
		select {
		case <-r.more:
		case <-timeout:
			t.Fatalf("%d of %d outcomes", r.n.Load(), n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]mesh.Outcome(nil), r.outcomes...)
}

type noLogs struct{}

func (noLogs) Observe(*mesh.Outcome) {}
func (noLogs) Close()                {}

// rig is a server with one HTTP listener, and what it was told.
type rig struct {
	*Server
	t    testing.TB
	rec  *recorder
	snap *mesh.Snapshot
	addr string
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, rec: newRecorder()}
	s, err := New(Config{DrainTime: 2 * time.Second}, Deps{
		Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Notifier: r.rec, Observers: []mesh.Observer{r.rec},
		ListenerFilters: registry.Builders(inspect.Rows()), Policies: registry.Builders(lb.Rows()),
		Logs: func([]mesh.AccessLog) (Logs, error) { return noLogs{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r.Server = s
	return r
}

// cluster returns a static cluster over these addresses.
func cluster(name string, addrs ...string) *mesh.Cluster {
	set := &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{}}}
	for _, a := range addrs {
		set.Localities[0].Endpoints = append(set.Localities[0].Endpoints, mesh.Endpoint{
			Address: mesh.Address{IP: netip.MustParseAddrPort(a)}, Weight: 1,
		})
	}
	lim := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	return &mesh.Cluster{
		Name: name, Discovery: mesh.Static, Endpoints: set, ConnectTimeout: 5 * time.Second, PanicThreshold: 50,
		Policy: mesh.Extension{TypeURL: lb.RoundRobinType, Config: lb.DefaultRoundRobin()},
		Limits: [2]mesh.Limits{lim, lim}, HTTP: mesh.UpstreamHTTP{IdleTimeout: time.Hour},
	}
}

func to(cluster string) *mesh.RouteAction {
	return &mesh.RouteAction{
		Clusters: []mesh.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1, Timeout: 15 * time.Second, NotFoundStatus: 503,
	}
}

func prefix(p string, a *mesh.RouteAction) *mesh.Route {
	return &mesh.Route{Match: mesh.RouteMatch{Path: p}, Forward: a}
}

func manager() *mesh.HTTPManager {
	return &mesh.HTTPManager{
		StatPrefix: "in", RouteTable: "routes", ServerName: "envoy", GenerateRequestID: true,
		StreamIdleTimeout: 5 * time.Minute, IdleTimeout: time.Hour, DelayedCloseTimeout: time.Second,
	}
}

// serve applies a configuration with one listener on a free port.
func (r *rig) serve(m *mesh.HTTPManager, routes []*mesh.Route, clusters ...*mesh.Cluster) {
	r.t.Helper()
	r.snap = &mesh.Snapshot{
		ID: 1, Clusters: map[string]*mesh.Cluster{}, RouteTables: map[string]*mesh.RouteTable{},
		Listeners: map[string]*mesh.Listener{"http": {
			Name: "http", Address: mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, BindToPort: true,
			Chains: []*mesh.FilterChain{{Key: "1", HTTP: m}},
		}},
	}
	r.route(routes...)
	for _, c := range clusters {
		r.snap.Clusters[c.Name] = c
	}
	r.apply()
	r.addr = r.Listeners()[0].Bound.String()
}

func (r *rig) route(routes ...*mesh.Route) {
	r.snap.RouteTables["routes"] = &mesh.RouteTable{Name: "routes", Hosts: []*mesh.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
}

func (r *rig) apply() {
	r.t.Helper()
	if rej := r.Apply(r.snap); len(rej) > 0 {
		r.t.Fatal(rej)
	}
}

func backend(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Name", name)
		fmt.Fprintf(w, "%s %s %s %d", name, q.Method, q.URL, len(body))
	}
}

func (r *rig) get(path string) (int, string, http.Header) {
	r.t.Helper()
	resp, err := client.Get("http://" + r.addr + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

var client = &http.Client{Timeout: hang, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func TestForward(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := backend(t, named("a")), backend(t, named("b"))
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", a, b))
	seen := map[string]int{}
	for range 100 {
		status, body, h := r.get("/x?y=z")
		if status != 200 || h.Get("x-envoy-upstream-service-time") == "" || h.Get("server") != "envoy" {
			t.Fatal(status, body, h)
		}
		seen[strings.Fields(body)[0]]++
	}
	if seen["a"] != 50 || seen["b"] != 50 {
		t.Errorf("round robin gave %v", seen)
	}
	o := r.rec.wait(t, 100)[99]
	if o.Status != 200 || o.Cluster != "c" || o.RouteTemplate != "/" || o.Attempts != 1 || string(o.Path) != "/x?y=z" ||
		o.Flags != 0 || o.Duration <= 0 || len(o.RequestID) != 36 || o.UpstreamTook <= 0 {
		t.Errorf("%+v", o)
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	echo := backend(t, func(w http.ResponseWriter, q *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		if n := q.ContentLength; n >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(n))
		}
		io.Copy(w, q.Body)
	})
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", echo))
	for _, size := range []int{0, 1, 100, 4096, 40_000, 1 << 20, 10 << 20} {
		for _, chunked := range []bool{false, true} {
			in := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			var body io.Reader = bytes.NewReader(in)
			if chunked {
				body = io.MultiReader(body) // hides the length
			}
			resp, err := client.Post("http://"+r.addr, "text/plain", body)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %v", size, chunked, err)
			}
			out, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(in, out) {
				t.Fatalf("%d bytes, chunked %v: got %d, %v", size, chunked, len(out), err)
			}
		}
	}
}

func TestLocalAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := "127.0.0.1:1"
	r.serve(manager(), []*mesh.Route{
		prefix("/dead", to("dead")), prefix("/none", to("none")), prefix("/empty", to("empty")),
		{Match: mesh.RouteMatch{Path: "/direct"}, Direct: &mesh.DirectResponse{Status: 418, Body: []byte("tea")}},
		{Match: mesh.RouteMatch{Path: "/go"}, Redirect: &mesh.Redirect{Status: 302, Host: "other", StripQuery: true}},
	}, cluster("dead", dead), cluster("empty"))
	noFollow := *client
	noFollow.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for i, c := range []struct {
		path   string
		status int
		body   string
		flag   mesh.Flags
		detail string
	}{
		{"/dead", 503, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", mesh.FlagUF, "upstream_reset_before_response_started{remote_connection_failure}"},
		{"/none", 503, "", mesh.FlagNC, "cluster_not_found"},
		{"/empty", 503, "no healthy upstream", mesh.FlagUH, "no_healthy_upstream"},
		{"/nowhere", 404, "", mesh.FlagNR, "route_not_found"},
		{"/direct", 418, "tea", 0, "direct_response"},
		{"/go?a=b", 302, "", 0, "direct_response"},
	} {
		resp, err := noFollow.Get("http://" + r.addr + c.path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		o := r.rec.wait(t, i+1)[i]
		if resp.StatusCode != c.status || string(body) != c.body || o.Flags != c.flag || o.Details != c.detail || o.Status != c.status {
			t.Errorf("%s: %d %q flags %s details %q", c.path, resp.StatusCode, body, o.Flags, o.Details)
		}
		if c.status == 302 && resp.Header.Get("Location") != "http://other/go" {
			t.Errorf("location %q", resp.Header.Get("Location"))
		}
	}
}

// raw sends bytes on a fresh connection and returns all that comes back until the other side closes.
func (r *rig) raw(in string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	io.WriteString(c, in)
	out, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatalf("%q: %v after %q", in, err, out)
	}
	return string(out)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hit := make(chan string, 10)
	a := backend(t, func(w http.ResponseWriter, q *http.Request) { hit <- q.URL.String() })
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", a))
	for _, in := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
		"\x16\x03\x01\x00\xa5\x01",
	} {
		if got := r.raw(in); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || strings.Count(got, "HTTP/1.1") != 1 || !strings.Contains(got, "connection: close\r\n") {
			t.Errorf("%q: %q", in, got)
		}
	}
	for _, o := range r.rec.wait(t, 4) {
		if o.Status != 400 || o.Flags != mesh.FlagDPE {
			t.Errorf("%d %s %s", o.Status, o.Flags, o.Details)
		}
	}
	if len(hit) != 0 {
		t.Errorf("%s was forwarded", <-hit)
	}
	if got := r.raw("GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Error(got)
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Upgrade") != "echo" {
			w.WriteHeader(400)
			return
		}
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello ")
		io.Copy(c, rw)
	})
	m := manager()
	m.Upgrades = []mesh.Upgrade{{Type: "echo", Enabled: true}}
	r.serve(m, []*mesh.Route{prefix("/", to("c"))}, cluster("c", a))
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "late")
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(br)
	if string(got) != "hello early late" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if o := r.rec.wait(t, 1)[0]; o.Status != 101 || o.Flags != 0 || o.BytesSent != 16 || o.BytesReceived != 10 {
		t.Errorf("%d %s sent %d received %d", o.Status, o.Flags, o.BytesSent, o.BytesReceived)
	}
	// What nobody allows is refused.
	if got := r.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: other\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Error(got)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var n atomic.Int64
	flaky := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if n.Add(1)%3 != 0 {
			w.WriteHeader(503)
			return
		}
		body, _ := io.ReadAll(q.Body)
		w.Write(body)
	})
	a := to("c")
	a.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
	dead := to("half")
	dead.Retry = &mesh.RetryPolicy{On: mesh.RetryOnConnectFailure, Retries: 3, SkipPreviousHosts: true, HostSelectionTries: 5, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
	r.serve(manager(), []*mesh.Route{prefix("/half", dead), prefix("/", a)}, cluster("c", flaky), cluster("half", "127.0.0.1:1", backend(t, named("ok"))))
	for i := range 10 {
		resp, err := client.Post("http://"+r.addr, "text/plain", strings.NewReader("replay me"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "replay me" {
			t.Fatal(resp.StatusCode, string(body))
		}
		if o := r.rec.wait(t, i+1)[i]; o.Attempts != 3 || len(o.Tries) != 2 || o.Tries[0].Status != 503 {
			t.Fatalf("%+v", o)
		}
	}
	for range 20 {
		if status, body, _ := r.get("/half"); status != 200 {
			t.Fatal(status, body)
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	release := make(chan struct{})
	slow := backend(t, func(w http.ResponseWriter, q *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	a := to("c")
	a.Timeout = 100 * time.Millisecond
	try := to("c")
	try.Timeout = 10 * time.Second
	try.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, PerTryTimeout: 50 * time.Millisecond, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
	r.serve(manager(), []*mesh.Route{prefix("/try", try), prefix("/", a)}, cluster("c", slow))
	if status, body, _ := r.get("/"); status != 504 || body != "upstream request timeout" {
		t.Error(status, body)
	}
	if status, _, _ := r.get("/try"); status != 504 {
		t.Error(status)
	}
	o := r.rec.wait(t, 2)
	if o[0].Flags != mesh.FlagUT || o[0].Details != "response_timeout" || o[1].Attempts != 3 || o[1].Flags != mesh.FlagUT|mesh.FlagURX {
		t.Errorf("%s %s; %d %s", o[0].Flags, o[0].Details, o[1].Attempts, o[1].Flags)
	}
}

func TestClientLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone := make(chan struct{})
	arrived := make(chan struct{})
	a := backend(t, func(w http.ResponseWriter, q *http.Request) {
		close(arrived)
		<-q.Context().Done()
		close(gone)
	})
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", a))
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	c.Close()
	select {
	case <-gone:
	case <-time.After(hang):
		t.Fatal("the upstream request goes on although the client has gone")
	}
	if o := r.rec.wait(t, 1)[0]; o.Flags != mesh.FlagDC || o.Status != 0 {
		t.Errorf("%s %d", o.Flags, o.Status)
	}
}

func TestBreakerAndFallback(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var bad atomic.Bool
	a := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
		}
	})
	c := cluster("c", a)
	c.Breaker = &mesh.Breaker{ConsecutiveFailures: 3, OpenFor: 100 * time.Millisecond}
	rt := prefix("/", to("c"))
	rt.Fallback = &mesh.Fallback{On: mesh.FallbackOnOpenCircuit, Response: &mesh.DirectResponse{Status: 200, Body: []byte("from the cache")}}
	r.serve(manager(), []*mesh.Route{rt}, c)
	bad.Store(true)
	for range 3 {
		if status, _, _ := r.get("/"); status != 500 {
			t.Fatal(status)
		}
	}
	if status, body, _ := r.get("/"); status != 200 || body != "from the cache" {
		t.Fatal(status, body)
	}
	if o := r.rec.wait(t, 4)[3]; !o.Fallback || o.Circuit != mesh.CircuitIsOpen || o.Flags != mesh.FlagUO {
		t.Errorf("%+v", o)
	}
	bad.Store(false)
	for deadline := time.Now().Add(hang); ; {
		if _, body, _ := r.get("/"); body == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the circuit stays open")
		}
	}
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	var states []string
	for _, n := range r.rec.notices {
		states = append(states, fmt.Sprintf("%s>%s %s", n.Circuit.From, n.Circuit.To, n.Circuit.Reason))
	}
	want := "closed>open consecutive_failures,open>half_open open_expired,half_open>closed probes_succeeded"
	if got := strings.Join(states, ","); got != want {
		t.Errorf("got %s", got)
	}
}

// TestLimits holds max_requests exactly: of many that come at once just as many as are allowed get through.
func TestLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	release := make(chan struct{})
	var in atomic.Int64
	a := backend(t, func(w http.ResponseWriter, q *http.Request) { in.Add(1); <-release })
	c := cluster("c", a)
	c.Limits[0].Requests = 7
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, c)
	var wg sync.WaitGroup
	var ok, over atomic.Int64
	for range 50 {
		wg.Go(func() {
			resp, err := client.Get("http://" + r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch {
			case resp.StatusCode == 200:
				ok.Add(1)
			case resp.StatusCode == 503 && resp.Header.Get("x-envoy-overloaded") == "true":
				if over.Add(1) == 43 {
					close(release)
				}
			}
		})
	}
	wg.Wait()
	if ok.Load() != 7 || over.Load() != 43 || in.Load() != 7 {
		t.Errorf("%d served (%d seen upstream), %d refused", ok.Load(), in.Load(), over.Load())
	}
}

// TestApplyUnderLoad renames the cluster under a route again and again, and changes endpoints and routes, while requests
// run: none may fail.
func TestApplyUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	backends := []string{backend(t, named("a")), backend(t, named("b")), backend(t, named("c"))}
	r.serve(manager(), []*mesh.Route{prefix("/", to("v0"))}, cluster("v0", backends[0]))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Get("http://" + r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, b)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := 1; i <= 300; i++ {
		snap := *r.snap
		name := fmt.Sprintf("v%d", i)
		snap.Clusters = map[string]*mesh.Cluster{name: cluster(name, backends[i%3])}
		snap.RouteTables = map[string]*mesh.RouteTable{}
		r.snap = &snap
		r.route(prefix("/", to(name)))
		r.apply()
		seen := served.Load()
		for deadline := time.Now().Add(hang); served.Load() < seen+2 && !t.Failed(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing is served")
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestDrain: under load, a drain loses no request. Clients connect anew when they are told to close.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", backend(t, named("a"))))
	var stopping atomic.Bool
	var wg sync.WaitGroup
	own := &http.Client{Timeout: hang, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for range 8 {
		wg.Go(func() {
			for i := 0; i < 400 || !stopping.Load(); i++ {
				late := stopping.Load()
				resp, err := own.Get("http://" + r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if late && !resp.Close {
					t.Error("an answer in the drain does not close the connection")
					return
				}
			}
		})
	}
	r.rec.wait(t, 200)
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	drained := make(chan int64)
	go func() { drained <- r.Drain(ctx, listener.All, 300*time.Millisecond) }()
	for !r.Listeners()[0].Draining {
		time.Sleep(time.Millisecond)
	}
	stopping.Store(true)
	wg.Wait()
	if left := <-drained; left != 0 {
		t.Errorf("%d connections are left", left)
	}
}
