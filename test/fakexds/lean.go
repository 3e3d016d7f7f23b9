// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// Lean is a control plane that costs little, so that what a proxy does can be told from what its control plane does: the
// incremental variant over one aggregated stream, resources that were encoded before it began, and no cache. It sends what
// is asked for, all there is of a request in one response, and then what Push is given.
type Lean struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	tb   testing.TB
	addr string
	// resources are what there is at first, by type and name.
	resources map[string]map[string]*discoverypb.Resource
	// pushed hands on what the stream is to send; without room, so that Push waits for the stream.
	pushed chan *discoverypb.DeltaDiscoveryResponse
	acked  atomic.Int64

	mu    sync.Mutex
	nacks []string // guarded by mu
}

// StartLean runs a Lean on a free loopback port until the test ends.
func StartLean(tb testing.TB, resources map[string][]types.Resource) *Lean {
	tb.Helper()
	l := &Lean{tb: tb, resources: map[string]map[string]*discoverypb.Resource{}, pushed: make(chan *discoverypb.DeltaDiscoveryResponse)}
	for typeURL, list := range resources {
		l.resources[typeURL] = map[string]*discoverypb.Resource{}
		for _, r := range list {
			l.resources[typeURL][cache.GetResourceName(r)] = Encode(tb, r, "1")
		}
	}
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("fakexds: %v", err)
	}
	l.addr = at.Addr().String()
	g := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	discoverypb.RegisterAggregatedDiscoveryServiceServer(g, l)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.Serve(at)
	}()
	tb.Cleanup(func() {
		g.Stop()
		<-served
	})
	return l
}

// Encode wraps a resource as the incremental variant sends it.
func Encode(tb testing.TB, r types.Resource, version string) *discoverypb.Resource {
	tb.Helper()
	a, err := anypb.New(r)
	if err != nil {
		tb.Fatalf("fakexds: %v", err)
	}
	return &discoverypb.Resource{Name: cache.GetResourceName(r), Version: version, Resource: a}
}

// Addr returns the address, "127.0.0.1:port".
func (l *Lean) Addr() string { return l.addr }

// Acked returns how many of the responses that Push made were accepted, and Nacks why others were not.
func (l *Lean) Acked() int64 { return l.acked.Load() }

// Nacks returns the reasons of all that was refused.
func (l *Lean) Nacks() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.nacks)
}

// Push sends one resource in a response of its own. It waits until the stream takes it; there must be one.
func (l *Lean) Push(typeURL string, r *discoverypb.Resource) {
	l.pushed <- &discoverypb.DeltaDiscoveryResponse{TypeUrl: typeURL, Resources: []*discoverypb.Resource{r}}
}

// pushNonce begins the nonces of what Push sends.
const pushNonce = "push-"

// DeltaAggregatedResources serves the stream.
func (l *Lean) DeltaAggregatedResources(s grpc.BidiStreamingServer[discoverypb.DeltaDiscoveryRequest, discoverypb.DeltaDiscoveryResponse]) error {
	asked := make(chan *discoverypb.DeltaDiscoveryRequest)
	go func() { // ends with the stream, which gRPC ends when this method returns
		defer close(asked)
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			l.note(r)
			select {
			case asked <- r:
			case <-s.Context().Done():
				return
			}
		}
	}()
	for n := 0; ; n++ {
		var out *discoverypb.DeltaDiscoveryResponse
		select {
		case r, open := <-asked:
			if !open {
				return nil
			}
			if out = l.answer(r); out == nil {
				continue
			}
			out.Nonce = fmt.Sprint("asked-", n)
		case out = <-l.pushed:
			out.Nonce = fmt.Sprint(pushNonce, n)
		}
		if err := s.Send(out); err != nil {
			return err
		}
	}
}

// note counts an answer.
func (l *Lean) note(r *discoverypb.DeltaDiscoveryRequest) {
	switch {
	case r.GetErrorDetail() != nil:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.nacks = append(l.nacks, r.GetErrorDetail().GetMessage())
	case strings.HasPrefix(r.GetResponseNonce(), pushNonce):
		l.acked.Add(1)
	}
}

// answer makes the response of a request, nil where nothing new is asked for. The first request for a type without names
// asks for all.
func (l *Lean) answer(r *discoverypb.DeltaDiscoveryRequest) *discoverypb.DeltaDiscoveryResponse {
	all := l.resources[r.GetTypeUrl()]
	out := &discoverypb.DeltaDiscoveryResponse{TypeUrl: r.GetTypeUrl()}
	names := r.GetResourceNamesSubscribe()
	if len(names) == 1 && names[0] == "*" || len(names) == 0 && r.GetResponseNonce() == "" && len(r.GetResourceNamesUnsubscribe()) == 0 {
		for _, res := range all {
			out.Resources = append(out.Resources, res)
		}
	} else {
		for _, name := range names {
			if res := all[name]; res != nil {
				out.Resources = append(out.Resources, res)
			}
		}
	}
	if len(out.Resources) == 0 {
		return nil
	}
	return out
}
