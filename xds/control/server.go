// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/meshtap/meshtap/xds/resource"
)

const (
	// defaultPatience is how long a rollout waits for a proxy's answer to a step.
	defaultPatience = 5 * time.Second
	// maxStreams bounds the streams of all proxies, and maxNode the bytes of a node's id and cluster.
	maxStreams = 4096
	maxNode    = 256
	// connectTime bounds the begin of a connection, with its TLS.
	connectTime = 10 * time.Second
	// stopTime bounds the end of the gRPC server.
	stopTime = 3 * time.Second
)

// Config is what a Server needs besides a mesh.
type Config struct {
	Log *zap.Logger
	// Patience is how long a rollout waits for a proxy's answer to a step before it goes on. The default is 5 s.
	Patience time.Duration
	// TLS is how proxies connect; nil is plain text.
	TLS *tls.Config
}

// Server is the control plane: it serves a mesh over ADS.
type Server struct {
	// Immutable.
	log      *zap.Logger
	patience time.Duration
	tls      *tls.Config // nil for plain text
	prefix   string      // of versions: no two control planes use the same

	wg sync.WaitGroup // the rollouts

	mu sync.Mutex
	// Guarded by mu. It is taken before the mu of a view.
	mesh    *Mesh
	views   map[Node]*view
	streams map[streamID]*stream
}

// streamID names a stream: go-control-plane counts those of the two variants apart.
type streamID struct {
	delta bool
	id    int64
}

// New returns a Server for a mesh, which must come from Parse. It serves nothing yet.
func New(m *Mesh, cfg Config) *Server {
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	boot := make([]byte, 4)
	rand.Read(boot) // it never fails (crypto/rand)
	return &Server{
		log: cfg.Log, patience: cfg.Patience, tls: cfg.TLS, prefix: hex.EncodeToString(boot) + ".",
		mesh: m, views: map[Node]*view{}, streams: map[streamID]*stream{},
	}
}

// Set puts another mesh into force and returns at once; the rollout to the proxies goes on behind it.
func (s *Server) Set(m *Mesh) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mesh = m
	for n, v := range s.views {
		r := Build(m, n)
		v.set(&r)
	}
}

// Serve answers proxies on ln until ctx ends, then ends their streams, closes ln and returns nil. It may be called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	streams, end := context.WithCancel(context.Background())
	defer end()
	wildcards := []string{resource.EndpointsType, resource.RouteType} // without names, these ask for nothing
	ads := &adsServer{
		sotw:  sotw.NewServer(streams, s, (*callbacks)(s), sotw.WithOrderedADS(), sotw.DeactivateLegacyWildcardForTypes(wildcards)),
		delta: delta.NewServer(streams, s, (*callbacks)(s), delta.DeactivateLegacyWildcardForTypes(wildcards)),
	}
	g := grpc.NewServer(
		grpc.Creds(s.credentials()),
		grpc.ConnectionTimeout(connectTime),
		grpc.MaxConcurrentStreams(16),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
	)
	discoverypb.RegisterAggregatedDiscoveryServiceServer(g, ads)
	served := make(chan error, 1)
	go func() { served <- g.Serve(netutil.LimitListener(ln, maxStreams)) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		end() // streams do not end by themselves
		timer := time.AfterFunc(stopTime, g.Stop)
		g.GracefulStop()
		timer.Stop()
		<-served //nolint:errcheck // it was told to end
	}
	s.wg.Wait()
	return err
}

// adsServer is the service that gRPC calls.
type adsServer struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	sotw  sotw.Server
	delta delta.Server
}

// StreamAggregatedResources serves the state-of-the-world variant.
func (a *adsServer) StreamAggregatedResources(st discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return a.sotw.StreamHandler(st, "")
}

// DeltaAggregatedResources serves the incremental variant.
func (a *adsServer) DeltaAggregatedResources(st discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return a.delta.DeltaStreamHandler(st, "")
}

func nodeOf(n *corev3.Node) Node { return Node{Service: n.GetCluster(), ID: n.GetId()} }

// find returns the view of a node that has a stream.
func (s *Server) find(n *corev3.Node) (*view, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.views[nodeOf(n)]; v != nil {
		return v, nil
	}
	return nil, errors.New("control: the stream's node has changed")
}

// CreateWatch implements cache.ConfigWatcher with the caches of the request's node.
func (s *Server) CreateWatch(r *cache.Request, sub cache.Subscription, out chan cache.Response) (func(), error) {
	v, err := s.find(r.GetNode())
	if err != nil {
		return nil, err
	}
	return v.mux.CreateWatch(r, sub, out)
}

// CreateDeltaWatch implements cache.ConfigWatcher with the caches of the request's node.
func (s *Server) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	v, err := s.find(r.GetNode())
	if err != nil {
		return nil, err
	}
	return v.mux.CreateDeltaWatch(r, sub, out)
}

// callbacks is the Server as go-control-plane calls it, from the goroutine of each stream.
type callbacks Server

func (c *callbacks) open(ctx context.Context, id streamID) error {
	address := "unknown"
	if p, ok := peer.FromContext(ctx); ok {
		address = p.Addr.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) >= maxStreams {
		return status.Errorf(codes.ResourceExhausted, "this control plane serves %d streams, and all are taken", maxStreams)
	}
	c.streams[id] = newStream(address, id.delta, time.Now())
	return nil
}

// closed ends a stream, and its node's view with the last one.
func (c *callbacks) closed(id streamID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	delete(c.streams, id)
	if s == nil || s.view == nil {
		return
	}
	v := s.view
	v.mu.Lock()
	delete(v.streams, s)
	left := len(v.streams)
	v.mu.Unlock()
	v.signal()
	v.log.Info("a proxy has left", zap.String("address", s.address))
	if left == 0 {
		v.cancel()
		delete(c.views, v.node)
	}
}

// stream returns a stream, whose first request tells its node.
func (c *callbacks) stream(id streamID, n *corev3.Node) (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil {
		return nil, status.Error(codes.Internal, "the stream is not open")
	}
	node := nodeOf(n)
	switch {
	case s.view != nil && (n == nil || node == s.view.node):
		return s, nil
	case s.view != nil:
		return nil, status.Error(codes.InvalidArgument, "a stream has one node")
	case node.ID == "" || node.Service == "":
		return nil, status.Error(codes.InvalidArgument, "node.id and node.cluster are required: the cluster is the service's name in mesh.yaml")
	case len(node.ID) > maxNode || len(node.Service) > maxNode:
		return nil, status.Errorf(codes.InvalidArgument, "node.id and node.cluster may have %d bytes each", maxNode)
	}
	s.view = c.join(node)
	s.view.mu.Lock()
	s.view.streams[s] = struct{}{}
	s.view.mu.Unlock()
	s.view.log.Info("a proxy has come", zap.String("address", s.address), zap.Bool("delta", s.delta))
	return s, nil
}

// join returns the view of a node, and makes it where the node is new.
func (c *callbacks) join(n Node) *view {
	if v := c.views[n]; v != nil {
		return v
	}
	r := Build(c.mesh, n)
	v := newView(n, &r, c.prefix, c.patience, c.log)
	if c.mesh.Services[n.Service] == nil {
		v.log.Warn("the proxy's service is not in the mesh: it gets no configuration")
	}
	var ctx context.Context
	ctx, v.cancel = context.WithCancel(context.Background())
	c.wg.Go(func() { v.run(ctx, &r) })
	c.views[n] = v
	return v
}

func (c *callbacks) request(id streamID, n *corev3.Node, typeURL string, a answer) error {
	s, err := c.stream(id, n)
	if err != nil {
		return err
	}
	v := s.view
	v.mu.Lock()
	t := s.types[typeURL]
	answered := t != nil && t.answered(a, s.delta, time.Now())
	v.mu.Unlock()
	if answered {
		if a.rejected {
			v.log.Warn("a proxy rejects its configuration", zap.String("type", short(typeURL)), zap.String("reason", clean(a.detail)))
		} else {
			v.log.Debug("a proxy has confirmed its configuration", zap.String("type", short(typeURL)))
		}
		v.signal()
	}
	return nil
}

// OnStreamOpen implements sotw.Callbacks.
func (c *callbacks) OnStreamOpen(ctx context.Context, id int64, _ string) error {
	return c.open(ctx, streamID{false, id})
}

// OnStreamClosed implements sotw.Callbacks.
func (c *callbacks) OnStreamClosed(id int64, _ *corev3.Node) { c.closed(streamID{false, id}) }

// OnStreamRequest implements sotw.Callbacks.
func (c *callbacks) OnStreamRequest(id int64, r *discoverypb.DiscoveryRequest) error {
	return c.request(streamID{false, id}, r.GetNode(), r.GetTypeUrl(),
		answer{r.GetResponseNonce(), r.GetVersionInfo(), r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil})
}

// OnStreamResponse implements sotw.Callbacks.
func (c *callbacks) OnStreamResponse(_ context.Context, id int64, req *discoverypb.DiscoveryRequest, resp *discoverypb.DiscoveryResponse) {
	if s, err := c.stream(streamID{false, id}, nil); err == nil {
		s.response(req, resp)
	}
}

// OnDeltaStreamOpen implements delta.Callbacks.
func (c *callbacks) OnDeltaStreamOpen(ctx context.Context, id int64, _ string) error {
	return c.open(ctx, streamID{true, id})
}

// OnDeltaStreamClosed implements delta.Callbacks.
func (c *callbacks) OnDeltaStreamClosed(id int64, _ *corev3.Node) { c.closed(streamID{true, id}) }

// OnStreamDeltaRequest implements delta.Callbacks.
func (c *callbacks) OnStreamDeltaRequest(id int64, r *discoverypb.DeltaDiscoveryRequest) error {
	return c.request(streamID{true, id}, r.GetNode(), r.GetTypeUrl(),
		answer{r.GetResponseNonce(), "", r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil})
}

// OnStreamDeltaResponse implements delta.Callbacks.
func (c *callbacks) OnStreamDeltaResponse(id int64, _ *discoverypb.DeltaDiscoveryRequest, resp *discoverypb.DeltaDiscoveryResponse) {
	if s, err := c.stream(streamID{true, id}, nil); err == nil {
		s.deltaResponse(resp)
	}
}

var (
	_ cache.ConfigWatcher = (*Server)(nil)
	_ sotw.Callbacks      = (*callbacks)(nil)
	_ delta.Callbacks     = (*callbacks)(nil)
)
