// SPDX-License-Identifier: Apache-2.0

package ads_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/ads"
)

const clusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// hang bounds how long a test waits for something that has to come.
const hang = 20 * time.Second

// server answers each request with one resource of a size, and keeps the headers of the streams.
type server struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	size    int
	headers chan metadata.MD
}

func (s *server) StreamAggregatedResources(st discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	md, _ := metadata.FromIncomingContext(st.Context())
	s.headers <- md
	for {
		req, err := st.Recv()
		if err != nil {
			return err
		}
		if req.GetResponseNonce() != "" {
			continue
		}
		r := &discoverypb.DiscoveryResponse{TypeUrl: req.GetTypeUrl(), VersionInfo: req.GetNode().GetId(), Nonce: "1",
			Resources: []*anypb.Any{{TypeUrl: req.GetTypeUrl(), Value: make([]byte, s.size)}}}
		if err := st.Send(r); err != nil {
			return err
		}
	}
}

// serve starts a server on a network.
func serve(t *testing.T, network, address string, size int) (*server, ads.Target) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{size: size, headers: make(chan metadata.MD, 100)}
	g := grpc.NewServer()
	discoverypb.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return s, ads.Target{Network: network, Address: l.Addr().String()}
}

// run runs a client that asks for clusters, and returns its events.
func run(t *testing.T, cfg ads.Config) <-chan ads.Event {
	t.Helper()
	cfg.Types = []string{clusterType}
	cfg.Node = &corepb.Node{Id: "me"}
	cfg.Random = func() float64 { return 0 }
	c := ads.New(cfg, zap.NewNop())
	c.Subscribe(clusterType, []string{ads.Wildcard}, nil)
	out := make(chan ads.Event)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return out
}

func wait[E ads.Event](t *testing.T, out <-chan ads.Event) E {
	t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case ev := <-out:
			if e, ok := ev.(E); ok {
				return e
			}
		case <-timeout:
			t.Fatalf("no %T", *new(E))
		}
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cp.sock")
	tests := []struct{ network, address, authority string }{
		{"tcp", "127.0.0.1:0", ""},
		{"unix", path, "localhost"},
		{"unix", "@" + path, "localhost"},
	}
	for _, tt := range tests {
		t.Run(tt.network+tt.address, func(t *testing.T) {
			t.Parallel()
			s, target := serve(t, tt.network, tt.address, 10)
			if tt.authority == "" {
				tt.authority = target.Address
			}
			out := run(t, ads.Config{Targets: []ads.Target{target}, Metadata: []string{"token", "t"}})
			if r := wait[ads.Response](t, out); r.Version != "me" || r.Bytes != 10 {
				t.Errorf("response %+v", r)
			}
			md := <-s.headers
			if got := fmt.Sprint(md[":authority"], md["token"]); got != fmt.Sprintf("[%s] [t]", tt.authority) {
				t.Errorf("headers %s", got)
			}
		})
	}
}

// TestTargetsAreTriedInTurn: the first refuses, the second answers. A configured authority replaces the address.
func TestTargetsAreTriedInTurn(t *testing.T) {
	t.Parallel()
	s, good := serve(t, "tcp", "127.0.0.1:0", 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ads.Target{Network: "tcp", Address: l.Addr().String()}
	_ = l.Close()
	out := run(t, ads.Config{Targets: []ads.Target{closed, good}, Authority: "mesh"})
	if d := wait[ads.Disconnected](t, out); d.Responded || !strings.Contains(d.Err.Error(), "refused") {
		t.Errorf("disconnected: %+v", d)
	}
	if c := wait[ads.Connected](t, out); c.Target != good {
		t.Errorf("connected to %v", c.Target)
	}
	if md := <-s.headers; fmt.Sprint(md[":authority"]) != "[mesh]" {
		t.Errorf("authority %v", md[":authority"])
	}
}

// TestResponseSize: a response above gRPC's usual 4 MiB is read; one above the limit ends the stream and says why.
func TestResponseSize(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	_, target := serve(t, "tcp", "127.0.0.1:0", size)
	out := run(t, ads.Config{Targets: []ads.Target{target}})
	if r := wait[ads.Response](t, out); r.Bytes != size {
		t.Errorf("%d bytes, want %d", r.Bytes, size)
	}
	out = run(t, ads.Config{Targets: []ads.Target{target}, MaxResponseBytes: size})
	if d := wait[ads.Disconnected](t, out); d.Responded || !strings.Contains(d.Err.Error(), "larger than max") {
		t.Errorf("disconnected: %+v", d)
	}
}
