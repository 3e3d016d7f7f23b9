// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

var (
	soakFor   = flag.Duration("soak.for", 12*time.Second, "how long TestGRPCSoak runs")
	soakEvery = flag.Duration("soak.every", time.Second, "how often it ends an endpoint")
)

// health is a gRPC server whose unary calls answer at once, and whose streams go on until they are ended.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	served atomic.Int64
}

func (h *health) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.served.Add(1)
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (h *health) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
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

// endpoint is one address, at which a server comes and goes.
type endpoint struct {
	t    testing.TB
	port string
	*health
	srv  *grpc.Server
	done chan struct{}
}

func (e *endpoint) start() {
	l, err := net.Listen("tcp", "127.0.0.1:"+e.port)
	if err != nil {
		e.t.Error(err)
		return
	}
	srv, done := grpc.NewServer(), make(chan struct{})
	e.srv, e.done = srv, done
	grpc_health_v1.RegisterHealthServer(srv, e.health)
	go func() { defer close(done); _ = srv.Serve(l) }()
}

// end ends the server: at once, with all it has in work, or, drained, by telling its clients to go elsewhere (GOAWAY).
func (e *endpoint) end(drained bool) {
	if drained {
		timer := time.AfterFunc(*soakEvery/2, e.srv.Stop) // streams that go on for ever are cut off then
		e.srv.GracefulStop()
		timer.Stop()
	} else {
		e.srv.Stop()
	}
	<-e.done
}

// TestGRPCSoak: while one of four endpoints ends every so often, killed or drained in turn, and comes back, no unary call
// fails, and streams break on endpoints that end and nowhere else.
func TestGRPCSoak(t *testing.T) {
	var es []*endpoint
	var lines []string
	for range 4 {
		e := &endpoint{t: t, port: free(t), health: &health{}}
		e.start()
		es = append(es, e)
		lines = append(lines, fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}", e.port))
	}
	t.Cleanup(func() {
		for _, e := range es {
			e.end(false)
		}
	})
	text := bootstrap("AUTO", "1", `, retry_policy: {retry_on: "connect-failure,refused-stream,reset-before-request,unavailable", num_retries: 2,
                    retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 3}`)
	one := "{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}"
	text = strings.Replace(text, one, strings.Join(lines, ", "), 1)
	p, port := listen(t, text)
	cc, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := grpc_health_v1.NewHealthClient(cc)

	ctx, stop := context.WithTimeout(t.Context(), *soakFor)
	defer stop()
	var wg sync.WaitGroup
	var calls, failed, streams, broken, messages atomic.Int64
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				call, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
				_, err := client.Check(call, &grpc_health_v1.HealthCheckRequest{})
				cancel()
				if calls.Add(1); err != nil && failed.Add(1) <= 5 {
					t.Errorf("a unary call: %v", err)
				}
			}
		})
	}
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				streams.Add(1)
				s, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
				for err == nil {
					if _, err = s.Recv(); err == nil {
						messages.Add(1)
					}
				}
				if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
					broken.Add(1)
				}
			}
		})
	}
	ends := int64(0)
	for tick := time.NewTicker(*soakEvery); ; {
		select {
		case <-tick.C:
			e := es[ends%4]
			e.end(ends%2 == 1)
			e.start()
			ends++
			continue
		case <-ctx.Done():
			tick.Stop()
		}
		break
	}
	wg.Wait()
	t.Logf("%d unary calls, %d failed; %d streams with %d messages, %d broken; %d endpoints ended", calls.Load(), failed.Load(),
		streams.Load(), messages.Load(), broken.Load(), ends)
	if calls.Load() < 1000 || messages.Load() < 100 || ends < 5 {
		t.Error("too little has happened to tell")
	}
	// Each end cuts off the streams that were on one endpoint: eight streams at most.
	if broken.Load() > 8*ends {
		t.Errorf("%d streams broke with %d ends of endpoints", broken.Load(), ends)
	}
	for _, e := range es {
		if e.served.Load() == 0 {
			t.Errorf("nothing was served at port %s", e.port)
		}
	}
	p.Admin().UntilStats(func(s sidecar.Stats) bool { return s["cluster.server.upstream_rq_active"] == 0 })
}
