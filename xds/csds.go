// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshtap/meshtap/xds/dump"
)

// maxCSDS bounds the connections to the status service, and the streams on each.
const maxCSDS = 16

// StatusConfig says where the client status discovery service (CSDS) is served, and of whom.
type StatusConfig struct {
	// Address is unix:/path, a socket that only this user can connect to, or a loopback address with a port.
	Address string
	Node    *corepb.Node
	// Started is when the bootstrap was loaded. Redactor hides what is sensitive.
	Started  time.Time
	Redactor *dump.Redactor
	Log      *zap.Logger
}

// statusTime is how long an answer waits for the loop.
const statusTime = 2 * time.Second

// statusServer is what /config_dump knows, for programs that speak gRPC.
type statusServer struct {
	statuspb.UnimplementedClientStatusDiscoveryServiceServer
	cfg StatusConfig
	m   *Manager
}

// ServeStatus listens and serves the status service. serve returns when ctx ends, with all goroutines ended.
func (m *Manager) ServeStatus(ctx context.Context, cfg StatusConfig) (serve func(), err error) {
	at := cfg.Address
	network := "tcp"
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		network, at = "unix", path
		if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("--csds: %w", err)
		}
	} else if host, _, err := net.SplitHostPort(at); err != nil || !net.ParseIP(host).IsLoopback() {
		return nil, fmt.Errorf("--csds %q is neither unix:/path nor a loopback address with a port", cfg.Address)
	}
	ln, err := net.Listen(network, at)
	if err != nil {
		return nil, fmt.Errorf("--csds: %w", err)
	}
	if network == "unix" {
		if err := os.Chmod(at, 0o600); err != nil {
			_ = ln.Close()
			return nil, fmt.Errorf("--csds: %w", err)
		}
	}
	cfg.Log.Info("client status discovery service", zap.Stringer("address", ln.Addr()))
	g := grpc.NewServer(grpc.MaxConcurrentStreams(maxCSDS), grpc.MaxRecvMsgSize(64<<10))
	statuspb.RegisterClientStatusDiscoveryServiceServer(g, &statusServer{cfg: cfg, m: m})
	return func() {
		stop := context.AfterFunc(ctx, g.Stop)
		defer stop()
		if err := g.Serve(netutil.LimitListener(ln, maxCSDS)); err != nil && ctx.Err() == nil {
			cfg.Log.Warn("the client status discovery service has ended", zap.Error(err))
		}
	}, nil
}

// FetchClientStatus answers once.
func (s *statusServer) FetchClientStatus(ctx context.Context, r *statuspb.ClientStatusRequest) (*statuspb.ClientStatusResponse, error) {
	if len(r.GetNodeMatchers()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "node_matchers: there is one node here; leave them out")
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	in, err := s.m.Dump(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the configuration manager does not answer: "+err.Error())
	}
	in.Started = s.cfg.Started
	config, err := dump.ClientConfig(in, s.cfg.Node, s.cfg.Redactor, r.GetExcludeResourceContents())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &statuspb.ClientStatusResponse{Config: []*statuspb.ClientConfig{config}}, nil
}

// StreamClientStatus answers each request of a stream.
func (s *statusServer) StreamClientStatus(st statuspb.ClientStatusDiscoveryService_StreamClientStatusServer) error {
	for {
		r, err := st.Recv()
		if err != nil {
			return err
		}
		answer, err := s.FetchClientStatus(st.Context(), r)
		if err != nil {
			return err
		}
		if err := st.Send(answer); err != nil {
			return err
		}
	}
}
