// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// TestGRPCSoak: while one of four endpoints after the other ends, killed or drained in turn, and another comes in its
// place, no unary call of grpc-go's client fails, and streams break on endpoints that end and nowhere else.
func TestGRPCSoak(t *testing.T) {
	f := newFleet(t)
	p, port := listen(t, f.bootstrap())
	cc, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := grpc_health_v1.NewHealthClient(cc)
	// Not a deadline: it would travel with each call, and the endpoints would end the streams at it, too, perhaps first.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	defer time.AfterFunc(*soakFor, stop).Stop()
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
				n, end := watch(ctx, client, &messages)
				if ctx.Err() != nil {
					return
				}
				if broken.Add(1); !f.ended(n) {
					t.Errorf("a stream on endpoint %d, which goes on, broke: %v", n, end)
				}
			}
		})
	}
	f.churn(ctx.Done())
	wg.Wait()
	t.Logf("%d unary calls, %d failed; %d streams with %d messages, %d broken; %d endpoints ended", calls.Load(), failed.Load(),
		streams.Load(), messages.Load(), broken.Load(), f.ends)
	if calls.Load() < 1000 || messages.Load() < 100 || f.ends < 5 {
		t.Error("too little has happened to tell")
	}
	f.settled(p)
}

// watch reads a stream to its end, and returns the number of its endpoint and why it ended. A stream that found no
// endpoint in the end has number -1.
func watch(ctx context.Context, client grpc_health_v1.HealthClient, messages *atomic.Int64) (endpoint int, end error) {
	s, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return -1, err
	}
	endpoint = -1
	for {
		if _, err = s.Recv(); err != nil {
			return endpoint, err
		}
		messages.Add(1)
		if md, err := s.Header(); err == nil && len(md.Get(endpointHeader)) > 0 {
			endpoint, _ = strconv.Atoi(md.Get(endpointHeader)[0])
		}
	}
}

// TestGhzSoak: no unary call of ghz fails meanwhile.
func TestGhzSoak(t *testing.T) {
	f := newFleet(t)
	p, port := listen(t, f.bootstrap())
	proto := filepath.Join(t.TempDir(), "health.proto")
	if err := os.WriteFile(proto, []byte(healthProto), 0o644); err != nil {
		t.Fatal(err)
	}
	out := f.load(peer(t, "ghz", "--insecure", "--proto", proto, "--call", "grpc.health.v1.Health/Check", "--data", "{}",
		"--connections", "4", "--concurrency", "16", "--rps", soakRate, "--duration", soakFor.String(), "--duration-stop", "wait",
		"--timeout", sidecar.Hang.String(), "--format", "json", "127.0.0.1:"+port))
	var sum struct {
		Count   int
		Results map[string]int `json:"statusCodeDistribution"`
		Errors  map[string]int `json:"errorDistribution"`
	}
	if err := json.Unmarshal(out, &sum); err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
	t.Logf("%d unary calls, %v; %d endpoints ended", sum.Count, sum.Results, f.ends)
	if sum.Count < 1000 || f.ends < 5 {
		t.Error("too little has happened to tell")
	}
	if sum.Results["OK"] != sum.Count {
		t.Errorf("not all calls went well: %v", sum.Errors)
	}
	f.settled(p)
}

const healthProto = `syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { int32 status = 1; }
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
`

// TestH2loadSoak: no unary call that h2load makes by hand fails meanwhile, as the proxy counts them: h2load does not know
// of trailers.
func TestH2loadSoak(t *testing.T) {
	h2load, err := exec.LookPath("h2load")
	if err != nil {
		t.Skip("h2load DID NOT RUN: it is not installed (Debian's package nghttp2-client)")
	}
	f := newFleet(t)
	p, port := listen(t, f.bootstrap())
	call := filepath.Join(t.TempDir(), "call")
	if err := os.WriteFile(call, make([]byte, 5), 0o644); err != nil { // a message that is empty
		t.Fatal(err)
	}
	const clients = 8
	rate, _ := strconv.Atoi(soakRate)
	out := f.load(exec.CommandContext(t.Context(), h2load, "-c", strconv.Itoa(clients), "-m", "8", "--rps", strconv.Itoa(rate/clients),
		"-D", strconv.Itoa(int(soakFor.Seconds())), "-d", call, "-H", "content-type: application/grpc", "-H", "te: trailers",
		"http://127.0.0.1:"+port+"/grpc.health.v1.Health/Check"))
	m := regexp.MustCompile(`(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("%s", out)
	}
	s := f.settled(p)
	good, bad := s["cluster.server.grpc.grpc.health.v1.Health.Check.success"], s["cluster.server.grpc.grpc.health.v1.Health.Check.failure"]
	t.Logf("%s; by their trailers %d went well and %d did not; %d endpoints ended", m[0], good, bad, f.ends)
	if done, _ := strconv.Atoi(m[1]); done < 1000 || f.ends < 5 || good < int64(done) {
		t.Error("too little has happened to tell")
	}
	if m[1] != m[2] || bad != 0 {
		t.Error("not all calls went well")
	}
}
