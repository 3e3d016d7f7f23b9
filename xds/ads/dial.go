// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"context"
	"net"
	"slices"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	connectTimeout = 5 * time.Second
	// gRPC servers close connections that ping more often than every 5 minutes, unless told otherwise. A peer that
	// vanished is found within a minute by TCP: see options.
	pingAfter   = 5 * time.Minute
	pingTimeout = 20 * time.Second
)

// dialer opens streams over a gRPC connection of their own. The connection is not reused: its state is the stream's
// state, and the back-off is ours.
func dialer(cfg Config) opener {
	encoded := encodeNode(cfg.Node)
	return func(ctx context.Context, t Target) (stream, func(), error) {
		name := t.Address
		if t.Network == "unix" {
			name = "localhost" // a path is not an authority
		}
		secure, err := newChannel(ctx, cfg, t)
		if err != nil {
			return nil, nil, err
		}
		ctx, err = withHeaders(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient("passthrough:///"+name, options(cfg, t, secure)...)
		if err != nil {
			return nil, nil, err
		}
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method(cfg))
		if err != nil {
			_ = conn.Close()
			if why := secure.failed(); why != nil {
				err = why
			}
			return nil, nil, err
		}
		return &sender{s, encoded}, func() { _ = conn.Close() }, nil
	}
}

// newChannel returns the TLS of a connection, nil where it is to be plain text.
func newChannel(ctx context.Context, cfg Config, t Target) (*channel, error) {
	if cfg.Secure == nil {
		return nil, nil
	}
	config, err := cfg.Secure(ctx)
	if err != nil {
		return nil, err
	}
	return &channel{target: t, config: config}, nil
}

// withHeaders adds the headers of a stream: those that are always the same, and the tokens of now.
func withHeaders(ctx context.Context, cfg Config) (context.Context, error) {
	all := cfg.Metadata
	if cfg.Tokens != nil {
		tokens, err := cfg.Tokens()
		if err != nil {
			return nil, err
		}
		all = slices.Concat(all, tokens)
	}
	if len(all) == 0 {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, all...), nil
}

// method is the gRPC method of a stream.
func method(cfg Config) string {
	switch {
	case cfg.Method != "":
		return cfg.Method
	case cfg.Delta:
		return discoverypb.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName
	default:
		return discoverypb.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName
	}
}

func options(cfg Config, t Target, secure *channel) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if secure != nil {
		creds = secure
	}
	d := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3,
	}}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return d.DialContext(ctx, t.Network, t.Address)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(cfg.MaxResponseBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithUserAgent("meshtap"),
	}
	if cfg.Authority != "" {
		opts = append(opts, grpc.WithAuthority(cfg.Authority))
	}
	return opts
}
