// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/backoff"
)

// DefaultMaxResponseBytes bounds one response where Config does not: as much as about 100,000 endpoints with metadata.
const DefaultMaxResponseBytes = 64 << 20

// Config says where the control plane is and what it is told about us.
type Config struct {
	// Targets are tried in turn. There is at least one.
	Targets []Target
	// Types are the type URLs that can be subscribed to, in the order in which a new stream asks for them.
	Types []string
	// Node goes with each request, or with the first one of each stream where NodeOnFirstOnly is set.
	Node            *corepb.Node
	NodeOnFirstOnly bool
	// Authority replaces the target's address in the :authority header where it is not "".
	Authority string
	// Metadata is sent with the stream, as header names and values in turn.
	Metadata []string
	// MaxResponseBytes bounds one response; 0 means DefaultMaxResponseBytes.
	MaxResponseBytes int
	// Random returns a number in [0, 1); nil means math/rand.
	Random func() float64
}

// Target is an address of a control plane: Network is "tcp" with a host:port, or "unix" with a path.
type Target struct{ Network, Address string }

// String returns the address.
func (t Target) String() string { return t.Address }

// Counts are the responses that were ignored, and the streams that were tried.
type Counts struct{ Duplicate, UnknownType, Streams uint64 }

// Client is one stream to a control plane.
type Client struct {
	// Immutable.
	cfg  Config
	log  *zap.Logger
	open opener
	wake chan struct{} // capacity 1: a note that is not read yet says all that a second one would

	mu sync.Mutex
	// inbox are notes for the goroutine in Run; guarded by mu. Its owner writes only in answer to events, of which one is
	// under way at a time, so it stays short.
	inbox []func(*sotw, time.Time)

	duplicate, unknown, streams atomic.Uint64

	// Owned by the goroutine in Run.
	state *sotw
}

var errClosed = errors.New("ads: the control plane closed the stream")

// opener opens a stream; close frees what is behind it and is called once. It fails when ctx ends.
type opener func(ctx context.Context, t Target) (s stream, close func(), err error)

// stream is what a Client needs of a gRPC stream.
type stream interface {
	Send(*discoverypb.DiscoveryRequest) error
	Recv() (*discoverypb.DiscoveryResponse, error)
}

// New returns a Client. It does nothing until Run.
func New(cfg Config, log *zap.Logger) *Client {
	if cfg.MaxResponseBytes == 0 {
		cfg.MaxResponseBytes = DefaultMaxResponseBytes
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	return &Client{cfg: cfg, log: log, open: dialer(cfg), wake: make(chan struct{}, 1), state: newSotw(cfg)}
}

// Subscribe changes the names that are asked for of a type.
func (c *Client) Subscribe(typeURL string, add, remove []string) {
	c.post(func(s *sotw, _ time.Time) { s.subscribe(typeURL, add, remove) })
}

// Refresh asks once more for the names of a type.
func (c *Client) Refresh(typeURL string) {
	c.post(func(s *sotw, _ time.Time) { s.refresh(typeURL) })
}

// Ack accepts the response with the nonce.
func (c *Client) Ack(typeURL, nonce, version string) {
	c.post(func(s *sotw, _ time.Time) { s.ack(typeURL, nonce, version) })
}

// Nack refuses the response with the nonce. It may follow an Ack; without effect where a newer response came meanwhile.
func (c *Client) Nack(typeURL, nonce, version, detail string) {
	c.post(func(s *sotw, now time.Time) { s.refuse(typeURL, nonce, version, detail, now) })
}

// Counts returns what was ignored and tried so far. It may be called from any goroutine.
func (c *Client) Counts() Counts {
	return Counts{Duplicate: c.duplicate.Load(), UnknownType: c.unknown.Load(), Streams: c.streams.Load()}
}

func (c *Client) post(note func(*sotw, time.Time)) {
	c.mu.Lock()
	c.inbox = append(c.inbox, note)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// readInbox applies the notes that were left.
func (c *Client) readInbox() {
	c.mu.Lock()
	notes := c.inbox
	c.inbox = nil
	c.mu.Unlock()
	now := time.Now()
	for _, note := range notes {
		note(c.state, now)
	}
}

// Run keeps a stream open until ctx ends, and tells out what happens. It returns nil then, with all its goroutines
// ended.
func (c *Client) Run(ctx context.Context, out chan<- Event) error {
	failures := backoff.Backoff{Base: time.Second, Max: 30 * time.Second}
	for try := 0; ; try++ {
		target := c.cfg.Targets[try%len(c.cfg.Targets)]
		start := time.Now()
		responded, err := c.oneStream(ctx, target, out)
		if ctx.Err() != nil || !c.tell(ctx, out, Disconnected{err, responded}) {
			return nil
		}
		wait := failures.Next(c.cfg.Random)
		if responded {
			failures.Reset()
			wait = again(time.Since(start), c.cfg.Random)
			try-- // this target is a good one
		}
		c.log.Info("the xDS stream has ended", zap.Stringer("target", target), zap.Error(err),
			zap.Bool("responded", responded), zap.Duration("retry_in", wait))
		if !c.sleep(ctx, wait) {
			return nil
		}
	}
}

// spacing is the least time between the starts of two streams.
const spacing = 100 * time.Millisecond

// again returns how long to wait after a stream that brought a response and lasted for a time: a moment's jitter, and
// what is missing to spacing.
func again(lasted time.Duration, random func() float64) time.Duration {
	return max(spacing-lasted, 0) + time.Duration(random()*float64(spacing))
}

func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-c.wake:
			c.readInbox()
		}
	}
}

func (c *Client) tell(ctx context.Context, out chan<- Event, ev Event) bool {
	select {
	case out <- ev:
		return true
	case <-ctx.Done():
		return false
	}
}

// oneStream opens a stream and serves it to its end. responded says whether a response came.
func (c *Client) oneStream(ctx context.Context, target Target, out chan<- Event) (responded bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	c.streams.Add(1)
	s, closeConn, err := c.open(ctx, target)
	if err != nil {
		cancel()
		return false, err
	}
	// Unbuffered: what is not read here stays in the connection, and its window stops the control plane.
	received := make(chan *discoverypb.DiscoveryResponse)
	var recvErr error
	var wg sync.WaitGroup
	wg.Go(func() { recvErr = receiveAll(ctx, s, received) })
	defer func() {
		cancel()
		closeConn()
		wg.Wait()
		// A failed Send says EOF; why the stream ended is what Recv says.
		if err == nil || errors.Is(err, io.EOF) {
			err = recvErr
		}
		if errors.Is(err, io.EOF) {
			err = errClosed
		}
	}()
	c.readInbox()
	c.state.restart()
	if _, err := c.sendAll(s); err != nil {
		return false, err
	}
	if !c.tell(ctx, out, Connected{target}) {
		return false, ctx.Err()
	}
	return c.serve(ctx, s, received, out)
}

// receiveAll reads responses until the stream ends.
func receiveAll(ctx context.Context, s stream, to chan<- *discoverypb.DiscoveryResponse) error {
	defer close(to)
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve sends what is to be sent and hands on what is received.
func (c *Client) serve(ctx context.Context, s stream, received <-chan *discoverypb.DiscoveryResponse, out chan<- Event) (
	responded bool, err error,
) {
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return responded, ctx.Err()
		case <-due:
		case <-c.wake:
			c.readInbox()
		case r, ok := <-received:
			if !ok {
				return responded, nil // the reason is what receiveAll returned
			}
			responded = true
			if !c.handOn(ctx, r, out) {
				return responded, ctx.Err()
			}
		}
		wait, err := c.sendAll(s)
		if err != nil {
			return responded, err
		}
		due = nil
		if wait > 0 {
			due = time.After(wait)
		}
	}
}

// sendAll sends the requests that are due. It returns when the next one will be, 0 where none is held.
func (c *Client) sendAll(s stream) (time.Duration, error) {
	for {
		req, wait := c.state.next(time.Now())
		if req == nil {
			return wait, nil
		}
		if err := s.Send(req); err != nil {
			return 0, err
		}
	}
}

// handOn gives a response to the owner. It returns false when ctx ended.
func (c *Client) handOn(ctx context.Context, r *discoverypb.DiscoveryResponse, out chan<- Event) bool {
	known, fresh := c.state.receive(r)
	switch {
	case !known:
		c.unknown.Add(1)
		c.log.Warn("a response of a type that was not asked for is ignored", zap.String("type_url", r.GetTypeUrl()))
		return true
	case !fresh:
		c.duplicate.Add(1)
		return true
	}
	return c.tell(ctx, out, unpack(r))
}

// unpack makes an event of a response. A resource in a discovery.Resource wrapper is taken out of it; a wrapper without
// a resource is a sign of life and is left out.
func unpack(r *discoverypb.DiscoveryResponse) Response {
	out := Response{
		TypeURL: r.GetTypeUrl(), Version: r.GetVersionInfo(), Nonce: r.GetNonce(),
		ControlPlane: r.GetControlPlane().GetIdentifier(),
		Resources:    make([]Resource, 0, len(r.GetResources())),
	}
	for _, res := range r.GetResources() {
		if res.GetTypeUrl() == wrapperType {
			w := &discoverypb.Resource{}
			if proto.Unmarshal(res.GetValue(), w) == nil {
				res = w.GetResource()
			}
			if res == nil {
				continue
			}
		}
		out.Resources = append(out.Resources, Resource{res.GetTypeUrl(), res.GetValue()})
		out.Bytes += len(res.GetValue())
	}
	for _, e := range r.GetResourceErrors() {
		out.Absent = append(out.Absent, Absent{e.GetResourceName().GetName(), e.GetErrorDetail().GetMessage()})
	}
	return out
}

const wrapperType = "type.googleapis.com/envoy.service.discovery.v3.Resource"
