// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// fakeStream is a stream in memory.
type fakeStream struct {
	ctx       context.Context
	target    Target
	requests  chan *discoverypb.DiscoveryRequest
	responses chan *discoverypb.DiscoveryResponse
	fail      chan error
	closed    bool
}

func (f *fakeStream) SendMsg(m any) error {
	select {
	case f.requests <- m.(*discoverypb.DiscoveryRequest):
		return nil
	case <-f.ctx.Done():
		return io.EOF
	}
}

func (f *fakeStream) RecvMsg(m any) error {
	select {
	case r := <-f.responses:
		proto.Merge(m.(proto.Message), r)
		return nil
	case err := <-f.fail:
		return err
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
}

// fakeNet opens fakeStreams; refuse makes it fail.
type fakeNet struct {
	streams chan *fakeStream
	refuse  func(Target) error

	mu      sync.Mutex
	opened  []time.Time // guarded by mu
	targets []string    // guarded by mu
}

// record returns when and to where streams were opened so far.
func (n *fakeNet) record() ([]time.Time, []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.opened), slices.Clone(n.targets)
}

func (n *fakeNet) open(ctx context.Context, t Target) (stream, func(), error) {
	n.mu.Lock()
	n.opened = append(n.opened, time.Now())
	n.targets = append(n.targets, t.Address)
	n.mu.Unlock()
	if n.refuse != nil {
		if err := n.refuse(t); err != nil {
			return nil, nil, err
		}
	}
	s := &fakeStream{
		ctx: ctx, target: t,
		requests:  make(chan *discoverypb.DiscoveryRequest, 100),
		responses: make(chan *discoverypb.DiscoveryResponse),
		fail:      make(chan error),
	}
	select {
	case n.streams <- s:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return s, func() { s.closed = true }, nil
}

// start runs a client in a bubble. The returned function ends it and waits.
func start(t *testing.T, n *fakeNet, random float64) (*Client, chan Event, func()) {
	t.Helper()
	c := New(Config{
		Targets: []Target{{"tcp", "one:1"}, {"tcp", "two:2"}}, Types: []string{cds, eds, lds, rds},
		Random: func() float64 { return random },
	}, zap.NewNop())
	c.open = n.open
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan Event)
	done := make(chan error)
	go func() { done <- c.Run(ctx, out) }()
	return c, out, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func next[E Event](t *testing.T, out <-chan Event) E {
	t.Helper()
	ev, ok := (<-out).(E)
	if !ok {
		t.Fatalf("got %T, want %T", ev, *new(E))
	}
	return ev
}

func TestClientAsksAcksAndAsksAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{streams: make(chan *fakeStream)}
		c, out, stop := start(t, n, 0.999)
		defer stop()
		c.Subscribe(cds, []string{Wildcard}, nil)
		s := <-n.streams
		if got := next[Connected](t, out); got.Target.Address != "one:1" {
			t.Errorf("connected to %v", got.Target)
		}
		if r := <-s.requests; r.GetTypeUrl() != cds || r.GetResponseNonce() != "" {
			t.Errorf("first request %v", r)
		}
		s.responses <- response(cds, "1", "n1", "a")
		if got := next[Response](t, out); got.Version != "1" || string(got.Resources[0].Bytes) != "a" {
			t.Errorf("response %+v", got)
		}
		c.Subscribe(eds, []string{"a"}, nil)
		c.Ack(cds, "n1", "1")
		synctest.Wait()
		var urls []string
		for len(s.requests) > 0 {
			r := <-s.requests
			urls = append(urls, r.GetTypeUrl()+r.GetResponseNonce())
		}
		slices.Sort(urls)
		if fmt.Sprint(urls) != "["+cds+"n1 "+eds+"]" {
			t.Errorf("requests %v", urls)
		}
		// The same response again is ignored: no event, no request.
		s.responses <- response(cds, "1", "n1", "a")
		s.responses <- response("type/secret", "1", "n1", "a")
		synctest.Wait()
		if got := c.Counts(); got.Duplicate != 1 || got.UnknownType != 1 || len(s.requests) != 0 {
			t.Errorf("counts %+v, %d requests", got, len(s.requests))
		}
		// The stream ends before the endpoints came: everything is asked for again, at once.
		s.fail <- io.EOF
		if d := next[Disconnected](t, out); !d.Responded || !errors.Is(d.Err, errClosed) {
			t.Errorf("disconnected: %+v", d)
		}
		s = <-n.streams
		next[Connected](t, out)
		if r := <-s.requests; r.GetTypeUrl() != cds || r.GetVersionInfo() != "1" || r.GetResponseNonce() != "" {
			t.Errorf("request on the new stream %v", r)
		}
		if r := <-s.requests; r.GetTypeUrl() != eds || fmt.Sprint(r.GetResourceNames()) != "[a]" {
			t.Errorf("request on the new stream %v", r)
		}
		opened, _ := n.record()
		if gap := opened[1].Sub(opened[0]); gap > 2*spacing {
			t.Errorf("reconnected after %v", gap)
		}
	})
}

func TestClientBacksOffUntilAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		n := &fakeNet{streams: make(chan *fakeStream), refuse: func(Target) error {
			if tries++; tries > 8 {
				return nil
			}
			return errors.New("refused")
		}}
		c, out, stop := start(t, n, 0.999)
		defer stop()
		c.Subscribe(cds, []string{Wildcard}, nil)
		for range 8 {
			if d := next[Disconnected](t, out); d.Responded || d.Err == nil {
				t.Errorf("disconnected: %+v", d)
			}
		}
		var gaps []time.Duration
		opened, targets := n.record()
		for i := 1; i < len(opened); i++ {
			gaps = append(gaps, opened[i].Sub(opened[i-1]).Round(time.Second))
		}
		if got, want := fmt.Sprint(gaps), "[1s 2s 4s 8s 16s 30s 30s]"; got != want {
			t.Errorf("gaps %s, want %s", got, want)
		}
		if got, want := fmt.Sprint(targets[:4]), "[one:1 two:2 one:1 two:2]"; got != want {
			t.Errorf("targets %s, want %s", got, want)
		}
		// A stream that opens and ends without a response is a failure too; one with a response starts anew.
		s := <-n.streams
		next[Connected](t, out)
		s.fail <- errors.New("unavailable")
		next[Disconnected](t, out)
		before := time.Now()
		s = <-n.streams
		if waited := time.Since(before).Round(time.Second); waited != 30*time.Second {
			t.Errorf("waited %v, want 30s", waited)
		}
		next[Connected](t, out)
		s.responses <- response(cds, "1", "n1")
		next[Response](t, out)
		s.fail <- errors.New("going away")
		next[Disconnected](t, out)
		before = time.Now()
		s = <-n.streams
		if waited := time.Since(before); waited > 2*spacing {
			t.Errorf("waited %v after a stream with a response", waited)
		}
		next[Connected](t, out)
		s.fail <- errors.New("unavailable")
		next[Disconnected](t, out)
		before = time.Now()
		<-n.streams
		if waited := time.Since(before).Round(time.Second); waited != time.Second {
			t.Errorf("waited %v, want the first wait again", waited)
		}
		next[Connected](t, out)
	})
}

// TestClientMakesNoStorm kills the stream every 100 ms for five minutes (F03), and right after each response.
func TestClientMakesNoStorm(t *testing.T) {
	for _, life := range []time.Duration{100 * time.Millisecond, 0} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &fakeNet{streams: make(chan *fakeStream)}
				c, out, stop := start(t, n, 0) // the shortest waits
				defer stop()
				c.Subscribe(cds, []string{Wildcard}, nil)
				begin := time.Now()
				for time.Since(begin) < 5*time.Minute {
					s := <-n.streams
					next[Connected](t, out)
					s.responses <- response(cds, "1", "n1")
					next[Response](t, out)
					time.Sleep(life)
					s.fail <- io.EOF
					next[Disconnected](t, out)
				}
				opened, _ := n.record()
				if perSecond := float64(len(opened)) / 300; perSecond > 12 {
					t.Errorf("%.1f streams a second", perSecond)
				}
			})
		})
	}
}

// TestClientEndsWhileItIsNotRead ends clients at moments at which one of their goroutines waits for somebody.
func TestClientEndsWhileItIsNotRead(t *testing.T) {
	tests := []struct {
		name string
		to   func(*fakeNet, *Client, <-chan Event)
	}{
		{"opening", func(*fakeNet, *Client, <-chan Event) {}},
		{"connected is not read", func(n *fakeNet, _ *Client, _ <-chan Event) { <-n.streams }},
		{"response is not read", func(n *fakeNet, _ *Client, out <-chan Event) {
			s := <-n.streams
			<-out
			s.responses <- response(cds, "1", "n1")
			s.responses <- response(cds, "2", "n2")
		}},
		{"disconnected is not read", func(n *fakeNet, _ *Client, out <-chan Event) {
			s := <-n.streams
			<-out
			s.fail <- io.EOF
		}},
		{"waiting to try again", func(n *fakeNet, c *Client, out <-chan Event) {
			s := <-n.streams
			<-out
			s.fail <- io.EOF
			<-out
			c.Subscribe(eds, []string{"a"}, nil)
		}},
		{"nobody takes requests", func(n *fakeNet, c *Client, out <-chan Event) {
			s := <-n.streams
			<-out
			for range cap(s.requests) + 1 {
				c.Refresh(cds)
				synctest.Wait()
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &fakeNet{streams: make(chan *fakeStream)}
				c, out, stop := start(t, n, 0.999)
				c.Subscribe(cds, []string{Wildcard}, nil)
				tt.to(n, c, out)
				synctest.Wait()
				stop() // a goroutine that is left would fail the bubble
			})
		})
	}
}

func TestUnpackTakesResourcesOutOfTheirWrappers(t *testing.T) {
	t.Parallel()
	wrap := func(r *discoverypb.Resource) *anypb.Any {
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return &anypb.Any{TypeUrl: wrapperType, Value: b}
	}
	r := response(cds, "1", "n1", "plain")
	r.Resources = append(r.Resources,
		wrap(&discoverypb.Resource{Name: "w", Resource: &anypb.Any{TypeUrl: cds, Value: []byte("wrapped")}}),
		wrap(&discoverypb.Resource{Name: "heartbeat"}),
		&anypb.Any{TypeUrl: wrapperType, Value: []byte{0xff}},
	)
	r.ResourceErrors = []*discoverypb.ResourceError{{ResourceName: &discoverypb.ResourceName{Name: "x"}}}
	got := newState(true).unpack(r, time.Now())
	var words []string
	for _, res := range got.Resources {
		words = append(words, fmt.Sprintf("%s=%s", res.TypeURL, res.Bytes))
	}
	if want := fmt.Sprintf("[%s=plain %s=wrapped %s=\xff]", cds, cds, wrapperType); fmt.Sprint(words) != want {
		t.Errorf("resources %q, want %q", words, want)
	}
	if fmt.Sprint(got.Alive) != "[heartbeat]" {
		t.Errorf("alive %v", got.Alive)
	}
	if len(got.Absent) != 1 || got.Absent[0].Name != "x" {
		t.Errorf("absent %+v", got.Absent)
	}
}
