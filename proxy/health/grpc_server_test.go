// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/transport"
)

// grpcCheck is httpCheck by gRPC.
func grpcCheck(service string) *mesh.HealthCheck {
	cfg := httpCheck()
	cfg.HTTP, cfg.GRPC = nil, &mesh.GRPCHealthCheck{Service: service}
	return cfg
}

// grpcServer is grpc-go's server, and counts its connections.
type grpcServer struct {
	net.Listener
	accepted atomic.Int32
	health   *grpchealth.Server
}

// Accept implements net.Listener.
func (s *grpcServer) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err == nil {
		s.accepted.Add(1)
	}
	return c, err
}

// serveGRPC starts a server on a free port. Its own health is SERVING, and it has no service.
func serveGRPC(t *testing.T, o ...grpc.ServerOption) *grpcServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &grpcServer{Listener: l, health: grpchealth.NewServer()}
	g := grpc.NewServer(o...)
	grpc_health_v1.RegisterHealthServer(g, s.health)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(s) })
	t.Cleanup(func() {
		g.Stop()
		wg.Wait()
	})
	return s
}

func (s *grpcServer) target() health.Target {
	return health.Target{Address: mesh.Address{IP: s.Addr().(*net.TCPAddr).AddrPort()}, ClusterName: "backend", Traffic: true}
}

// until takes results until one says this.
func until(results <-chan health.Result, reason string) health.Result {
	for r := range results {
		if r.Reason == reason {
			return r
		}
	}
	return health.Result{}
}

// TestGRPC: a service comes and goes, all on one connection. What it says of itself is believed at once, whatever the
// threshold is.
func TestGRPC(t *testing.T) {
	t.Parallel()
	s := serveGRPC(t)
	cfg, d := grpcCheck("shop.v1.Orders"), deps2(t)
	cfg.UnhealthyThreshold = 1000
	results, c := watch(t, cfg, s.target(), d)
	if r := <-results; r.Reason != "grpc-status NOT_FOUND" || r.Healthy || !r.First {
		t.Errorf("a service that the server does not know: %+v", r)
	}
	for _, step := range []struct {
		status grpc_health_v1.HealthCheckResponse_ServingStatus
		reason string
	}{
		{grpc_health_v1.HealthCheckResponse_SERVING, ""},
		{grpc_health_v1.HealthCheckResponse_NOT_SERVING, "NOT_SERVING"},
		{grpc_health_v1.HealthCheckResponse_SERVING, ""},
		{grpc_health_v1.HealthCheckResponse_UNKNOWN, "UNKNOWN"},
		{grpc_health_v1.HealthCheckResponse_SERVING, ""},
		{grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, "SERVICE_UNKNOWN"},
	} {
		s.health.SetServingStatus("shop.v1.Orders", step.status)
		r := until(results, step.reason)
		if want := (health.Result{Healthy: step.reason == "", Changed: true, Reason: step.reason}); r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
	go func() { <-results }()
	c.Stop()
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if n := d.Stats.Value(metrics.HealthCheckNetworkFailure); n != 0 {
		t.Errorf("%d network failures", n)
	}
}

// TestGRPCWholeServer: without a name it is the server that is asked for.
func TestGRPCWholeServer(t *testing.T) {
	t.Parallel()
	s := serveGRPC(t)
	results, _ := watch(t, grpcCheck(""), s.target(), deps2(t))
	if r := <-results; !r.Healthy {
		t.Errorf("%+v", r)
	}
	s.health.Shutdown()
	if r := until(results, "NOT_SERVING"); r.Healthy {
		t.Errorf("%+v", r)
	}
}

// TestGRPCUnimplemented: a server of gRPC that does not know the protocol is not healthy, as in Envoy.
func TestGRPCUnimplemented(t *testing.T) {
	t.Parallel()
	g := grpc.NewServer()
	s := serve(t, mesh.Address{}, handled(func(w http.ResponseWriter, q *http.Request) { g.ServeHTTP(w, q) }))
	results, _ := watch(t, grpcCheck(""), s.target(), deps2(t))
	if r := <-results; r.Reason != "grpc-status UNIMPLEMENTED" || r.Healthy {
		t.Errorf("%+v", r)
	}
}

// TestGRPCRequest: what the server gets.
func TestGRPCRequest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                string
		of, endpoint        string
		authority, metadata string
	}{
		{"of the cluster", "", "", "backend", "x-a=v,w"},
		{"of the check", "of.check", "", "of.check", "x-a=v,w"},
		{"of the endpoint", "of.check", "of.endpoint", "of.endpoint", "x-a=v,w"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			s := serveGRPC(t, grpc.UnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				_, limited := ctx.Deadline()
				words := []string{
					info.FullMethod, q.(*grpc_health_v1.HealthCheckRequest).Service, strings.Join(md[":authority"], ","),
					strings.Join(md["user-agent"], ","), strings.Join(md["content-type"], ","), "x-a=" + strings.Join(md["x-a"], ","),
				}
				if limited {
					words = append(words, "limited")
				}
				select {
				case got <- strings.Join(words, " "):
				default: // it is not the first
				}
				return next(ctx, q)
			}))
			cfg, target := grpcCheck("shop"), s.target()
			cfg.GRPC.Authority, target.CheckHost = tc.of, tc.endpoint
			cfg.GRPC.Metadata = []mesh.HeaderAdd{{Name: "x-a", Literal: "v"}, {Name: "x-a", Literal: "w"}}
			s.health.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_SERVING)
			results, _ := watch(t, cfg, target, deps2(t))
			if r := <-results; !r.Healthy {
				t.Errorf("%+v", r)
			}
			if g, want := <-got, "/grpc.health.v1.Health/Check shop "+tc.authority+" Envoy/HC application/grpc "+tc.metadata+" limited"; g != want {
				t.Errorf("got  %s\nwant %s", g, want)
			}
		})
	}
}

// TestGRPCGoAway: a server that ends its connections in order, again and again, is healthy all the time.
func TestGRPCGoAway(t *testing.T) {
	t.Parallel()
	s := serveGRPC(t, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: time.Minute}))
	d := deps2(t)
	results, _ := watch(t, grpcCheck(""), s.target(), d)
	for s.accepted.Load() < 5 {
		if r := <-results; !r.Healthy || r.Reason != "" {
			t.Fatalf("%+v", r)
		}
	}
	if n := d.Stats.Value(metrics.HealthCheckFailure); n != 0 {
		t.Errorf("%d failures", n)
	}
}

// TestGRPCOverTLS: gRPC needs HTTP/2 to be offered by ALPN, and a host that cannot be verified is not healthy.
func TestGRPCOverTLS(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	for _, tc := range []struct {
		name  string
		roots *testcert.Authority
		alpn  []string
		want  string // what the reason must match
	}{
		{"verified", ca, []string{"h2"}, "^$"},
		{"another authority", testcert.New(t), []string{"h2"}, "TLS_error: certificate verify failed: unknown authority"},
		{"nothing offered", ca, nil, "^((connect|read): connection|the connection ended)"}, // the server closes it
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			own := ca.Issue(t, "server.test").Certificate
			s := serveGRPC(t, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{own}})))
			m := &mesh.TLSContext{SNI: "server.test", Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{tc.roots.Certificate}}}
			cl, err := transport.NewClient(m, nil, metrics.NewClusterTLS(stats.NewRegistry(stats.Options{}), "c"))
			if err != nil {
				t.Fatal(err)
			}
			d := deps2(t)
			d.Layer = cl.WithALPN(tc.alpn)
			results, _ := watch(t, grpcCheck(""), s.target(), d)
			if r := <-results; !regexp.MustCompile(tc.want).MatchString(r.Reason) || r.Healthy != (r.Reason == "") {
				t.Errorf("healthy %v: %q", r.Healthy, r.Reason)
			}
		})
	}
}

// TestGRPCStopInHandshake: Stop ends a check whose host does not go on with the handshake; so does the check's time.
func TestGRPCStopInHandshake(t *testing.T) {
	t.Parallel()
	cl, err := transport.NewClient(&mesh.TLSContext{}, nil, metrics.NewClusterTLS(stats.NewRegistry(stats.Options{}), "c"))
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 100)
	s := serve(t, mesh.Address{}, func(_ int, c net.Conn) {
		for p := make([]byte, 1<<10); ; begun <- struct{}{} {
			if _, err := c.Read(p); err != nil {
				return
			}
		}
	})
	d := deps2(t)
	d.Layer = cl.WithALPN([]string{"h2"})
	c := health.Start(grpcCheck(""), s.target(), d, func(r health.Result) { t.Errorf("told %+v", r) })
	<-begun
	c.Stop()
	cfg := grpcCheck("")
	cfg.Timeout = 50 * time.Millisecond
	results, _ := watch(t, cfg, s.target(), d)
	if r := <-results; r.Reason != "timeout" {
		t.Errorf("%+v", r)
	}
}
