// SPDX-License-Identifier: Apache-2.0

// Package fakexds is a control plane for tests: go-control-plane's cache and server on a loopback port, which can also be
// killed, restarted on the same port, halted, and made to send what no control plane should. It tells every answer it
// gets. It speaks both variants, over the aggregated service and over those for one type each, and REST; every node gets
// the same.
package fakexds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The type URLs, for callers that want no other import.
const (
	ClusterType  = resource.ClusterType
	EndpointType = resource.EndpointType
	ListenerType = resource.ListenerType
	RouteType    = resource.RouteType
	SecretType   = resource.SecretType
	ConfigType   = resource.ExtensionConfigType
	RuntimeType  = resource.RuntimeType
	ScopeType    = resource.ScopedRouteType
	HostType     = resource.VirtualHostType
)

// node is the only key of the cache: all proxies get the same.
const node = "all"

// Answer is a request of a proxy: an ACK, a NACK, or a subscription.
type Answer struct {
	// Stream counts the streams from 1.
	Stream  int
	TypeURL string
	// Delta says that the request is of the incremental variant: Names are then those that are new, Left those that are
	// taken back, and Initial the versions that a new stream begins with; there is no Version.
	Delta   bool
	Left    []string
	Initial map[string]string
	// Nonce is that of the response that is answered, "" in the first request of a stream for a type.
	Nonce, Version string
	Names          []string
	// Ack and Nack are false for requests that only change a subscription. Detail is the reason of a NACK.
	Ack, Nack bool
	Detail    string
	// HasNode says that the request told who the proxy is.
	HasNode bool
}

// Options are how a Server differs from the usual one.
type Options struct {
	// TLS is how TLS is spoken, nil for plain text.
	TLS *tls.Config
	// Linear keeps each type in a cache of its own (LinearCache in a MuxCache), with versions of its own. It answers no polls.
	Linear bool
}

// Server is the control plane.
type Server struct {
	tb    testing.TB
	opt   Options
	cache cache.SnapshotCache
	// linear are the caches of the types where Options.Linear is set.
	linear map[string]*cache.LinearCache
	// answers has room for all that a test can provoke; a full one fails the test.
	answers chan Answer
	addr    string

	mu sync.Mutex
	// All below are guarded by mu.
	current  cache.Snapshot
	grpc     *grpc.Server
	served   chan struct{} // closed when grpc has ended
	cancel   context.CancelFunc
	streams  map[*stream]struct{}
	opened   int
	accepted int
	injected int
	gate     chan struct{} // closed while responses may go out
	muted    map[string]bool
	every    time.Duration // see Drip
	paced    chan struct{} // closed when every changes
}

// Start runs a Server on a free loopback port until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return StartWith(tb, Options{})
}

// StartWith is Start with options.
func StartWith(tb testing.TB, opt Options) *Server {
	tb.Helper()
	s := &Server{
		tb:      tb,
		opt:     opt,
		cache:   cache.NewSnapshotCache(false, oneNode{}, log.NewDefaultLogger()),
		answers: make(chan Answer, 1<<16),
		streams: map[*stream]struct{}{},
		gate:    make(chan struct{}),
		muted:   map[string]bool{},
		paced:   make(chan struct{}),
	}
	close(s.gate)
	if opt.Linear {
		s.linear = map[string]*cache.LinearCache{}
		for _, m := range methods {
			if m.typeURL != resource.AnyType {
				s.linear[m.typeURL] = cache.NewLinearCache(m.typeURL)
			}
		}
	}
	s.listen("127.0.0.1:0")
	tb.Cleanup(s.Kill)
	return s
}

type oneNode struct{}

// ID returns the one key of the cache.
func (oneNode) ID(*corepb.Node) string { return node }

// Addr returns the address, "127.0.0.1:port". It stays the same over Kill and Restart.
func (s *Server) Addr() string { return s.addr }

// Answers returns what proxies sent, in order.
func (s *Server) Answers() <-chan Answer { return s.answers }

// Set replaces all resources of a type. Other types keep theirs, with their versions.
func (s *Server) Set(typeURL, version string, resources ...types.Resource) {
	s.SetAll(version, map[string][]types.Resource{typeURL: resources})
}

// source is the cache that streams are served from.
func (s *Server) source() cache.Cache {
	if s.linear == nil {
		return s.cache
	}
	mux := &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cache.Cache{},
	}
	for typeURL, c := range s.linear {
		mux.Caches[typeURL] = c
	}
	return mux
}

// SetAll replaces the resources of several types: in one snapshot, or one type after the other where Options.Linear is set.
func (s *Server) SetAll(version string, resources map[string][]types.Resource) {
	s.tb.Helper()
	for typeURL, c := range s.linear {
		if list, ok := resources[typeURL]; ok {
			c.SetResources(cache.IndexRawResourcesByName(list))
		}
	}
	s.mu.Lock()
	for typeURL, list := range resources {
		s.current.Resources[cache.GetResponseType(typeURL)] = cache.NewResources(version, list)
	}
	next := &cache.Snapshot{Resources: s.current.Resources}
	s.mu.Unlock()
	if err := s.cache.SetSnapshot(context.Background(), node, next); err != nil {
		s.tb.Errorf("fakexds: set snapshot: %v", err)
	}
}

// Update changes or adds one resource. Options.Linear is to be set: the cost does not depend on how many there are.
func (s *Server) Update(typeURL, name string, r types.Resource) {
	s.tb.Helper()
	if err := s.linear[typeURL].UpdateResource(name, r); err != nil {
		s.tb.Errorf("fakexds: update %s: %v", name, err)
	}
}

// Inject sends a response as it is on all open streams of the state-of-the-world variant, past the cache. A nonce is made up where it has none; it is
// returned. What the proxy answers is told, and hidden from the cache.
func (s *Server) Inject(r *discoverypb.DiscoveryResponse) (nonce string) {
	s.mu.Lock()
	s.injected++
	if r.GetNonce() == "" {
		r.Nonce = fmt.Sprint("injected-", s.injected)
	}
	s.mu.Unlock()
	s.injectAll(r.GetTypeUrl(), r.GetNonce(), r)
	return r.GetNonce()
}

// InjectDelta is Inject for the streams of the incremental variant.
func (s *Server) InjectDelta(r *discoverypb.DeltaDiscoveryResponse) (nonce string) {
	s.mu.Lock()
	s.injected++
	if r.GetNonce() == "" {
		r.Nonce = fmt.Sprint("injected-", s.injected)
	}
	s.mu.Unlock()
	s.injectAll(r.GetTypeUrl(), r.GetNonce(), r)
	return r.GetNonce()
}

func (s *Server) injectAll(typeURL, nonce string, r proto.Message) {
	s.mu.Lock()
	var open []*stream
	for st := range s.streams {
		open = append(open, st)
	}
	s.mu.Unlock()
	for _, st := range open {
		st.inject(typeURL, nonce, r)
	}
}

// Pause holds all responses back until Resume.
func (s *Server) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

// Resume ends Pause.
func (s *Server) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
}

// Mute drops the responses of a type, and Unmute ends that.
func (s *Server) Mute(typeURL string) { s.mute(typeURL, true) }

// Unmute ends Mute. What was dropped meanwhile is not sent again by itself.
func (s *Server) Unmute(typeURL string) { s.mute(typeURL, false) }

func (s *Server) mute(typeURL string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted[typeURL] = on
}

// KillStreams ends all open streams and keeps the connections and the port open. It returns how many there were.
func (s *Server) KillStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.end()
	}
	return len(s.streams)
}

// Kill closes the port and all connections at once.
func (s *Server) Kill() {
	s.mu.Lock()
	g, served, cancel := s.grpc, s.served, s.cancel
	s.grpc = nil
	s.mu.Unlock()
	if g == nil {
		return
	}
	cancel()
	g.Stop()
	<-served
}

// Restart opens the port again after Kill, with the resources that were set last.
func (s *Server) Restart() {
	s.tb.Helper()
	s.listen(s.addr)
}

// TLS returns how TLS is spoken, and SetTLS changes it, from the next Restart on.
func (s *Server) TLS() *tls.Config { return s.opt.TLS }

// SetTLS changes what TLS returns; nil speaks plain text.
func (s *Server) SetTLS(c *tls.Config) { s.opt.TLS = c }

// Counts returns how many connections and streams there were so far.
func (s *Server) Counts() (connections, streams int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, s.opened
}

func (s *Server) listen(addr string) {
	s.tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.tb.Fatalf("fakexds: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	svc := &service{server: s, sotw: sotw.NewServer(ctx, s.source(), nil), delta: delta.NewServer(ctx, s.source(), nil)}
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(64 << 20), grpc.UnknownServiceHandler(svc.serve)}
	if s.opt.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(s.opt.TLS)))
	}
	g := grpc.NewServer(opts...)
	served := make(chan struct{})
	s.mu.Lock()
	s.addr = l.Addr().String()
	s.grpc, s.served, s.cancel = g, served, cancel
	s.mu.Unlock()
	go func() {
		defer close(served)
		_ = g.Serve(&countingListener{l, s})
	}()
}

// ServeREST answers polls over HTTP on another free port until the test ends, and returns its address. It outlives Kill.
func (s *Server) ServeREST() string {
	s.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatalf("fakexds: %v", err)
	}
	h := &http.Server{Handler: http.HandlerFunc(s.answerPoll)}
	if s.opt.TLS != nil {
		l = tls.NewListener(l, s.opt.TLS)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = h.Serve(l)
	}()
	s.tb.Cleanup(func() {
		_ = h.Close()
		<-served
	})
	return l.Addr().String()
}

// paths are those of the polls.
var paths = map[string]string{
	resource.FetchClusters: ClusterType, resource.FetchEndpoints: EndpointType,
	resource.FetchListeners: ListenerType, resource.FetchRoutes: RouteType, resource.FetchRuntimes: RuntimeType,
	resource.FetchSecrets: SecretType, resource.FetchExtensionConfigs: ConfigType, resource.FetchScopedRoutes: ScopeType,
}

// answerPoll answers as go-control-plane's gateway does.
func (s *Server) answerPoll(w http.ResponseWriter, r *http.Request) {
	req := &discoverypb.DiscoveryRequest{}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = protojson.Unmarshal(body, req)
	}
	typeURL, known := paths[r.URL.Path]
	if err != nil || !known || r.Method != http.MethodPost {
		http.Error(w, fmt.Sprint("not a poll: ", err), http.StatusBadRequest)
		return
	}
	req.TypeUrl = typeURL
	var same *types.SkipFetchError
	resp, err := rest.NewServer(s.cache, nil).Fetch(r.Context(), req)
	switch {
	case errors.As(err, &same):
		w.WriteHeader(http.StatusNotModified)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	text, err := protojson.Marshal(resp)
	if err != nil {
		s.tb.Errorf("fakexds: %v", err)
	}
	_, _ = w.Write(text)
}

// countingListener counts connections.
type countingListener struct {
	net.Listener
	server *Server
}

// Accept counts.
func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.server.mu.Lock()
		l.server.accepted++
		l.server.mu.Unlock()
		c = &dripping{Conn: c, server: l.server, closed: make(chan struct{})}
	}
	return c, err
}
