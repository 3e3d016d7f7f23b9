// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"context"
	"strings"
	"sync"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ads stands between gRPC and go-control-plane's server, to watch and to meddle.
type ads struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
	inner  sotw.Server
}

// StreamAggregatedResources serves one stream.
func (a *ads) StreamAggregatedResources(in discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	s := a.server
	st := &stream{
		AggregatedDiscoveryService_StreamAggregatedResourcesServer: in,
		server: s, ctx: ctx, cancel: cancel,
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
	go func() { done <- a.inner.StreamHandler(st, resource.AnyType) }()
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
	discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	server *Server
	number int
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// All below are guarded by mu. last is the last response of the cache by type; injected and answered are nonces.
	last     map[string]*discoverypb.DiscoveryResponse
	injected map[string]bool
	answered map[string]bool
}

// Context returns the stream's context, which KillStreams ends.
func (st *stream) Context() context.Context { return st.ctx }

func (st *stream) end() { st.cancel() }

// Send sends a response of the cache, unless its type is muted.
func (st *stream) Send(r *discoverypb.DiscoveryResponse) error {
	s := st.server
	s.mu.Lock()
	gate, muted := s.gate, s.muted[r.GetTypeUrl()]
	s.mu.Unlock()
	select {
	case <-gate:
	case <-st.ctx.Done():
		return st.ctx.Err()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.last[r.GetTypeUrl()] = r
	if muted {
		return nil
	}
	return st.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Send(r)
}

func (st *stream) inject(r *discoverypb.DiscoveryResponse) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if old := st.last[r.GetTypeUrl()]; old == nil || old.GetNonce() != r.GetNonce() {
		st.injected[r.GetTypeUrl()+" "+r.GetNonce()] = true
	}
	_ = st.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Send(r)
}

// Recv receives a request, tells it, and hides from the cache what was injected.
func (st *stream) Recv() (*discoverypb.DiscoveryRequest, error) {
	r, err := st.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	key := r.GetTypeUrl() + " " + r.GetResponseNonce()
	first := r.GetResponseNonce() != "" && !st.answered[key]
	st.answered[key] = true
	a := Answer{
		Stream: st.number, TypeURL: r.GetTypeUrl(), Nonce: r.GetResponseNonce(), Version: r.GetVersionInfo(),
		Names: r.GetResourceNames(), HasNode: r.GetNode() != nil,
		Ack: first && r.GetErrorDetail() == nil, Nack: r.GetErrorDetail() != nil, Detail: r.GetErrorDetail().GetMessage(),
	}
	select {
	case st.server.answers <- a:
	default:
		st.server.tb.Errorf("fakexds: more than %d answers were not read", cap(st.server.answers))
	}
	if st.injected[key] {
		// The cache goes on where it was: its last response counts as accepted.
		r.ErrorDetail, r.ResponseNonce, r.VersionInfo = nil, "", ""
		if old := st.last[r.GetTypeUrl()]; old != nil {
			r.ResponseNonce, r.VersionInfo = old.GetNonce(), old.GetVersionInfo()
		}
	}
	return r, nil
}

// Short returns the last part of a type URL, for messages.
func Short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }
