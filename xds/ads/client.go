// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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
	// Delta asks incrementally; otherwise by state of the world.
	Delta bool
	// Method is the gRPC method of the stream, such as "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"; ""
	// is that of the aggregated service.
	Method string
	// Poll makes requests over REST instead of a stream, for the one type there is then. It excludes Delta.
	Poll *Poll
	// Node goes with each request, or with the first one of each stream where NodeOnFirstOnly is set.
	Node            *corepb.Node
	NodeOnFirstOnly bool
	// Authority replaces the target's address in the :authority header where it is not "".
	Authority string
	// Metadata is sent with the stream, as header names and values in turn.
	Metadata []string
	// Secure returns how TLS is spoken with the targets, for each connection anew; nil is plain text. The application protocol
	// is set here. It may ask others, and fails then when its context ends.
	Secure func(context.Context) (*tls.Config, error)
	// Tokens returns more of Metadata, for each stream anew; nil is none.
	Tokens func() ([]string, error)
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

// Add adds the counts of another stream.
func (c *Counts) Add(o Counts) {
	c.Duplicate += o.Duplicate
	c.UnknownType += o.UnknownType
	c.Streams += o.Streams
}

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
	inbox []func(half, time.Time)

	duplicate, unknown, streams atomic.Uint64

	// Owned by the goroutine in Run. late says that the stream has begun without what is to be said at its beginning.
	state half
	late  bool
}

var (
	errClosed = errors.New("ads: the control plane closed the stream")
	errAnew   = errors.New("ads: begun anew, to tell the control plane what is there already")
)

// opener opens a stream; close frees what is behind it and is called once. It fails when ctx ends.
type opener func(ctx context.Context, t Target) (s stream, close func(), err error)

// stream is what a Client needs of a gRPC stream. The messages are those of the variant.
type stream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// New returns a Client. It does nothing until Run.
func New(cfg Config, log *zap.Logger) *Client {
	if cfg.MaxResponseBytes == 0 {
		cfg.MaxResponseBytes = DefaultMaxResponseBytes
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	c := &Client{cfg: cfg, log: log, wake: make(chan struct{}, 1)}
	switch {
	case cfg.Poll != nil:
		c.open, c.state = poller(cfg), newSotw(cfg)
	case cfg.Delta:
		c.open, c.state = dialer(cfg), newDelta(cfg)
	default:
		c.open, c.state = dialer(cfg), newSotw(cfg)
	}
	return c
}

// Subscribe changes the names that are asked for of a type.
func (c *Client) Subscribe(typeURL string, add, remove []string) {
	c.post(func(s half, _ time.Time) { s.subscribe(typeURL, add, remove) })
}

// Refresh asks once more for the names of a type.
func (c *Client) Refresh(typeURL string) {
	c.post(func(s half, _ time.Time) { s.refresh(typeURL) })
}

// Ack accepts the response with the nonce.
func (c *Client) Ack(typeURL, nonce, version string) {
	c.post(func(s half, _ time.Time) { s.ack(typeURL, nonce, version) })
}

// Nack refuses the resources of these names of the response with the nonce; the others are taken. It may follow an Ack;
// without effect where a newer response came meanwhile.
func (c *Client) Nack(typeURL, nonce, version, detail string, names []string) {
	c.post(func(s half, now time.Time) { s.refuse(typeURL, nack{nonce, version, detail, names}, now) })
}

// Hold says that resources of a type are there already, of a version that the control plane is not to count on: it is to send
// them again, and to say which of them are gone. It matters where a stream is incremental.
func (c *Client) Hold(typeURL string, names []string) {
	c.post(func(s half, _ time.Time) {
		if s.hold(typeURL, names) {
			c.late = true
		}
	})
}

// Counts returns what was ignored and tried so far. It may be called from any goroutine.
func (c *Client) Counts() Counts {
	return Counts{Duplicate: c.duplicate.Load(), UnknownType: c.unknown.Load(), Streams: c.streams.Load()}
}

func (c *Client) post(note func(half, time.Time)) {
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
		if !c.sleep(ctx, wait, out) {
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

// sleep waits between two streams. It returns false when ctx ended.
func (c *Client) sleep(ctx context.Context, d time.Duration, out chan<- Event) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		wait, ok := c.expire(ctx, out)
		if !ok {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-c.wake:
			c.readInbox()
		case <-after(wait):
		}
	}
}

// expire tells the owner of resources whose time to live is over, and returns how long the next one has, 0 for ever. ok is
// false when ctx ended.
func (c *Client) expire(ctx context.Context, out chan<- Event) (wait time.Duration, ok bool) {
	for {
		e, wait, some := c.state.expire(time.Now())
		if !some {
			return wait, true
		}
		if !c.tell(ctx, out, e) {
			return 0, false
		}
	}
}

// after is time.After, but for ever where d is 0.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
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
	received := make(chan proto.Message)
	var recvErr error
	var wg sync.WaitGroup
	wg.Go(func() { recvErr = receiveAll(ctx, s, c.state.empty, received) })
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
	c.late = false
	if _, err := c.sendAll(s); err != nil {
		return false, err
	}
	if !c.tell(ctx, out, Connected{target}) {
		return false, ctx.Err()
	}
	return c.serve(ctx, s, received, out)
}

// receiveAll reads responses until the stream ends.
func receiveAll(ctx context.Context, s stream, empty func() proto.Message, to chan<- proto.Message) error {
	defer close(to)
	for {
		r := empty()
		if err := s.RecvMsg(r); err != nil {
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
func (c *Client) serve(ctx context.Context, s stream, received <-chan proto.Message, out chan<- Event) (
	responded bool, err error,
) {
	var held time.Duration
	for {
		life, ok := c.expire(ctx, out)
		if !ok {
			return responded, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return responded, ctx.Err()
		case <-after(held):
		case <-after(life):
		case <-c.wake:
			if c.readInbox(); c.late {
				return responded, errAnew
			}
		case r, ok := <-received:
			if !ok {
				return responded, nil // the reason is what receiveAll returned
			}
			responded = true
			if !c.handOn(ctx, r, out) {
				return responded, ctx.Err()
			}
		}
		if held, err = c.sendAll(s); err != nil {
			return responded, err
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
		if err := s.SendMsg(req); err != nil {
			return 0, err
		}
	}
}

// handOn gives a response to the owner. It returns false when ctx ended.
func (c *Client) handOn(ctx context.Context, m proto.Message, out chan<- Event) bool {
	r, v := c.state.receive(m, time.Now())
	switch v {
	case stranger:
		c.unknown.Add(1)
		c.log.Warn("a response of a type that was not asked for is ignored", zap.String("type_url", r.TypeURL))
		return true
	case duplicate:
		c.duplicate.Add(1)
		return true
	case alive:
		return true
	}
	return c.tell(ctx, out, r)
}
