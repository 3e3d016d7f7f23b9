// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

const (
	checkedService = "shop.v1.Orders"
	serving        = grpc_health_v1.HealthCheckResponse_SERVING
	notServing     = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// GRPCHost is grpc-go's server with its health service, whose answers carry the host's name as x-origin.
type GRPCHost struct {
	*grpchealth.Server
	// Checks are the calls that the proxy made of its own: those with the example's metadata and authority.
	Checks atomic.Int32
	addr   net.Addr
}

// grpcHost starts a server of gRPC that serves until the test ends.
func (r *Rig) grpcHost(name string) *GRPCHost {
	r.T.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.T.Fatal(err)
	}
	h := &GRPCHost{Server: grpchealth.NewServer(), addr: ln.Addr()}
	h.SetServingStatus(checkedService, serving)
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if strings.Join(md["x-from"], "") == "sidecar" && strings.Join(md[":authority"], "") == "orders.internal" {
			h.Checks.Add(1)
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-origin", name))
		return next(ctx, q)
	}))
	grpc_health_v1.RegisterHealthServer(s, h.Server)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(ln) })
	r.T.Cleanup(func() {
		s.Stop()
		wg.Wait()
	})
	return h
}

// grpcHealth: a host leaves when it says that it does not serve, and comes back.
func grpcHealth(t *testing.T, r *Rig) {
	cc, err := grpc.NewClient("passthrough:"+r.Addr(""), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	// Calls are of the server's own health, which stays SERVING: they say who answers.
	client := grpc_health_v1.NewHealthClient(cc)
	call := func() (origin string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
		defer cancel()
		var head metadata.MD
		_, err = client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&head))
		return strings.Join(head["x-origin"], ""), err
	}
	settle := func(origins string) {
		t.Helper()
		r.Admin.Until("/ready", func(int, string) bool {
			seen := map[string]bool{}
			for range 40 {
				o, err := call()
				if err != nil || !strings.Contains(origins, o) {
					return false
				}
				seen[o] = true
			}
			return len(seen) == len(origins)
		})
	}
	a, b := r.GRPC[0], r.GRPC[1]
	settle("ab")
	b.SetServingStatus(checkedService, notServing)
	settle("a")
	b.SetServingStatus(checkedService, serving)
	settle("ab")
	if a.Checks.Load() == 0 || b.Checks.Load() == 0 {
		t.Error("the checks are not made as the example says")
	}
	a.SetServingStatus(checkedService, notServing)
	b.SetServingStatus(checkedService, notServing)
	s := r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["cluster.orders.health_check.healthy"] == 0 })
	r.Admin.Until("/ready", func(int, string) bool {
		_, err := call()
		return status.Code(err) == codes.Unavailable
	})
	n := func(name string) int64 { return s["cluster.orders.health_check."+name] }
	if n("attempt") == 0 || n("success") == 0 || n("failure") < 3 || n("network_failure") != 0 || n("passive_failure") != 0 || n("verify_cluster") != 0 || n("degraded") != 0 {
		t.Errorf("the numbers do not add up: %v", s)
	}
}
