// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

var (
	soakFor   = flag.Duration("soak.for", 12*time.Second, "how long each of the soaks runs")
	soakEvery = flag.Duration("soak.every", time.Second, "how often they end an endpoint")
)

// soakRate is the calls per second of the programs that would otherwise take all of the machine.
const soakRate = "1000"

// endpointHeader tells which endpoint a stream is on.
const endpointHeader = "x-endpoint"

// endpoint is a gRPC server whose unary calls answer at once, and whose streams go on until they are ended.
type endpoint struct {
	grpc_health_v1.UnimplementedHealthServer
	number int
	port   string
	srv    *grpc.Server
	done   chan struct{}
	served atomic.Int64
}

// Check implements the health service.
func (e *endpoint) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	e.served.Add(1)
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// Watch implements the health service.
func (e *endpoint) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	if err := s.SetHeader(metadata.Pairs(endpointHeader, strconv.Itoa(e.number))); err != nil {
		return err
	}
	for {
		if err := s.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends the server at once, with all it has in work.
func (e *endpoint) kill() {
	e.srv.Stop()
	<-e.done
}

// drain tells the server's clients to go elsewhere (GOAWAY), and lets them finish what they have. Streams that go on for
// ever are cut off.
func (e *endpoint) drain() {
	timer := time.AfterFunc(*soakEvery/2, e.srv.Stop)
	e.srv.GracefulStop()
	timer.Stop()
	<-e.done
}

// fleet is four endpoints, which the proxy knows from a file.
type fleet struct {
	t    testing.TB
	file string
	now  []*endpoint
	all  []*endpoint
	ends int

	mu   sync.Mutex
	gone map[int]bool // guarded by mu: those that have ended, by number
}

func newFleet(t testing.TB) *fleet {
	f := &fleet{t: t, file: filepath.Join(t.TempDir(), "endpoints.yaml"), gone: map[int]bool{}}
	for range 4 {
		f.add()
	}
	f.tell()
	t.Cleanup(func() {
		for _, e := range f.now {
			e.kill()
		}
	})
	return f
}

// add starts a new endpoint, of which nobody knows yet.
func (f *fleet) add() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	e := &endpoint{number: len(f.all), port: port, srv: grpc.NewServer(), done: make(chan struct{})}
	grpc_health_v1.RegisterHealthServer(e.srv, e)
	go func() { defer close(e.done); _ = e.srv.Serve(l) }()
	f.now, f.all = append(f.now, e), append(f.all, e)
}

// tell writes the file anew, at once.
func (f *fleet) tell() {
	var b strings.Builder
	b.WriteString("resources:\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: server\n  endpoints:\n  - lb_endpoints:\n")
	for _, e := range f.now {
		fmt.Fprintf(&b, "    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}\n", e.port)
	}
	next := f.file + ".next"
	if err := os.WriteFile(next, []byte(b.String()), 0o644); err != nil {
		f.t.Error(err)
	}
	if err := os.Rename(next, f.file); err != nil {
		f.t.Error(err)
	}
}

// end ends the oldest endpoint: killed before anybody is told, or taken out of the file and drained. A new one takes its
// place.
func (f *fleet) end(killed bool) {
	e := f.now[0]
	f.mu.Lock()
	f.gone[e.number] = true
	f.mu.Unlock()
	if killed {
		e.kill()
	}
	f.add()
	f.now = f.now[1:]
	f.tell()
	if !killed {
		e.drain()
	}
	if e.served.Load() == 0 {
		f.t.Errorf("endpoint %d has served nothing", e.number)
	}
	f.ends++
}

// ended reports whether an endpoint has ended or is about to; a stream without one ended with those that it found.
func (f *fleet) ended(number int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return number < 0 || f.gone[number]
}

// churn ends one endpoint after the other until done.
func (f *fleet) churn(done <-chan struct{}) {
	for tick := time.NewTicker(*soakEvery); ; {
		select {
		case <-tick.C:
			f.end(f.ends%2 == 0)
		case <-done:
			tick.Stop()
			return
		}
	}
}

// load runs a program while endpoints end, and returns what it said.
func (f *fleet) load(cmd *exec.Cmd) []byte {
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	var err error
	go func() { defer close(done); err = cmd.Wait() }()
	f.churn(done)
	if err != nil {
		f.t.Fatalf("%v\n%s\n%s", err, &complaint, &out)
	}
	return out.Bytes()
}

// bootstrap is a proxy in front of the fleet that repeats calls that nobody has served.
func (f *fleet) bootstrap() string {
	text := bootstrap("AUTO", "1", `, retry_policy: {retry_on: "connect-failure,refused-stream,reset-before-request,unavailable", num_retries: 2,
                    retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 3}`)
	before, _, _ := strings.Cut(text, "    load_assignment:")
	text = before + fmt.Sprintf("    type: EDS\n    eds_cluster_config: {eds_config: {path_config_source: {path: %s}}}\n", f.file)
	return strings.Replace(text, "          http_filters:\n", `          http_filters:
          - name: envoy.filters.http.grpc_stats
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, stats_for_all_methods: true}
`, 1)
}

// settled waits until the proxy has nothing in work.
func (f *fleet) settled(p *sidecar.Proxy) sidecar.Stats {
	return p.Admin().UntilStats(func(s sidecar.Stats) bool { return s["cluster.server.upstream_rq_active"] == 0 })
}
