// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"context"
	"strings"
	"sync"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// method is one gRPC method of the server: a variant, for one type or for all.
type method struct {
	typeURL string
	delta   bool
}

// methods are those of the aggregated service, and of those for one type each.
var methods = map[string]method{
	discoverypb.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName: {resource.AnyType, false},
	discoverypb.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName:  {resource.AnyType, true},

	"/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters":                   {ClusterType, false},
	"/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters":                    {ClusterType, true},
	"/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints":                {EndpointType, false},
	"/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints":                 {EndpointType, true},
	"/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners":                {ListenerType, false},
	"/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners":                 {ListenerType, true},
	"/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs": {ConfigType, false},
	"/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs":  {ConfigType, true},
	"/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets":                      {SecretType, false},
	"/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets":                       {SecretType, true},
	"/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes":                         {RouteType, false},
	"/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes":                          {RouteType, true},
	"/envoy.service.route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes":            {ScopeType, false},
	"/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes":             {ScopeType, true},
	"/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts":              {HostType, true},
	"/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime":                    {RuntimeType, false},
	"/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime":                     {RuntimeType, true},
}

// service stands between gRPC and go-control-plane's servers, to watch and to meddle.
type service struct {
	server *Server
	sotw   sotw.Server
	delta  delta.Server
}

// serve serves one stream, of whatever method.
func (a *service) serve(_ any, in grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(in)
	m, known := methods[name]
	if !known {
		return status.Errorf(codes.Unimplemented, "fakexds: there is no %s", name)
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	s := a.server
	st := &stream{
		ServerStream: in, server: s, method: m, ctx: ctx, cancel: cancel,
		last: map[string]*discoverypb.DiscoveryResponse{}, injected: map[string]bool{}, answered: map[string]bool{},
	}
	s.mu.Lock()
	s.opened++
	st.number = s.opened
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
	}()
	done := make(chan error, 1)
	go func() {
		if m.delta {
			done <- a.delta.DeltaStreamHandler(deltaStream{st}, m.typeURL)
		} else {
			done <- a.sotw.StreamHandler(sotwStream{st}, m.typeURL)
		}
	}()
	// The handler's reader stays in Recv until this method returns and gRPC ends the stream.
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return status.Error(codes.Unavailable, "fakexds: the stream was killed")
	}
}

// stream is one stream as go-control-plane's server sees it.
type stream struct {
	grpc.ServerStream
	server *Server
	method method
	number int
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// All below are guarded by mu. last is the last response of the cache by type, in the state-of-the-world variant;
	// injected and answered are nonces.
	last     map[string]*discoverypb.DiscoveryResponse
	injected map[string]bool
	answered map[string]bool
}

// Context returns the stream's context, which KillStreams ends.
func (st *stream) Context() context.Context { return st.ctx }

func (st *stream) end() { st.cancel() }

// send sends a response of the cache, unless its type is muted.
func (st *stream) send(typeURL string, r proto.Message) error {
	s := st.server
	s.mu.Lock()
	gate, muted := s.gate, s.muted[typeURL]
	s.mu.Unlock()
	select {
	case <-gate:
	case <-st.ctx.Done():
		return st.ctx.Err()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if r, ok := r.(*discoverypb.DiscoveryResponse); ok {
		st.last[typeURL] = r
	}
	if muted {
		return nil
	}
	return st.SendMsg(r)
}

// inject sends a response past the cache, where it is of the stream's variant and type.
func (st *stream) inject(typeURL, nonce string, r proto.Message) {
	_, isDelta := r.(*discoverypb.DeltaDiscoveryResponse)
	if isDelta != st.method.delta || st.method.typeURL != resource.AnyType && st.method.typeURL != typeURL {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if old := st.last[typeURL]; old == nil || old.GetNonce() != nonce {
		st.injected[typeURL+" "+nonce] = true
	}
	_ = st.SendMsg(r)
}

// tell tells a request, and reports whether it answers what was injected.
func (st *stream) tell(a Answer, nack bool) (injected bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	key := a.TypeURL + " " + a.Nonce
	first := a.Nonce != "" && !st.answered[key]
	st.answered[key] = true
	a.Stream, a.Delta, a.Ack, a.Nack = st.number, st.method.delta, first && !nack, nack
	select {
	case st.server.answers <- a:
	default:
		st.server.tb.Errorf("fakexds: more than %d answers were not read", cap(st.server.answers))
	}
	return st.injected[key]
}

// sotwStream is a stream of the state-of-the-world variant.
type sotwStream struct{ *stream }

// Send sends a response of the cache.
func (st sotwStream) Send(r *discoverypb.DiscoveryResponse) error { return st.send(r.GetTypeUrl(), r) }

// Recv receives a request, tells it, and hides from the cache what was injected.
func (st sotwStream) Recv() (*discoverypb.DiscoveryRequest, error) {
	r := &discoverypb.DiscoveryRequest{}
	if err := st.RecvMsg(r); err != nil {
		return nil, err
	}
	injected := st.tell(Answer{
		TypeURL: r.GetTypeUrl(), Nonce: r.GetResponseNonce(), Version: r.GetVersionInfo(), Names: r.GetResourceNames(),
		HasNode: r.GetNode() != nil, Detail: r.GetErrorDetail().GetMessage(),
	}, r.GetErrorDetail() != nil)
	if injected {
		// The cache goes on where it was: its last response counts as accepted.
		r.ErrorDetail, r.ResponseNonce, r.VersionInfo = nil, "", ""
		st.mu.Lock()
		defer st.mu.Unlock()
		if old := st.last[r.GetTypeUrl()]; old != nil {
			r.ResponseNonce, r.VersionInfo = old.GetNonce(), old.GetVersionInfo()
		}
	}
	return r, nil
}

// deltaStream is a stream of the incremental variant.
type deltaStream struct{ *stream }

// Send sends a response of the cache.
func (st deltaStream) Send(r *discoverypb.DeltaDiscoveryResponse) error {
	return st.send(r.GetTypeUrl(), r)
}

// Recv receives a request, tells it, and hides from the cache what was injected.
func (st deltaStream) Recv() (*discoverypb.DeltaDiscoveryRequest, error) {
	r := &discoverypb.DeltaDiscoveryRequest{}
	if err := st.RecvMsg(r); err != nil {
		return nil, err
	}
	injected := st.tell(Answer{
		TypeURL: r.GetTypeUrl(), Nonce: r.GetResponseNonce(), Names: r.GetResourceNamesSubscribe(),
		Left: r.GetResourceNamesUnsubscribe(), Initial: r.GetInitialResourceVersions(),
		HasNode: r.GetNode() != nil, Detail: r.GetErrorDetail().GetMessage(),
	}, r.GetErrorDetail() != nil)
	if injected {
		r.ErrorDetail, r.ResponseNonce = nil, ""
	}
	return r, nil
}

// Short returns the last part of a type URL, for messages.
func Short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }
