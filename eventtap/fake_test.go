// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// memSink keeps what it is sent. behave decides what becomes of each batch; it may call done itself, and returns false
// where the batch is not to be kept.
type memSink struct {
	caps   Caps
	behave func(b *Batch, done func(error)) (keep bool)
	open   func() error

	mu     sync.Mutex
	opened int
	closed int
	bodies [][]byte
	ids    []string
	kinds  []event.Kind
	more   chan struct{}
}

func newMemSink(caps Caps) *memSink {
	return &memSink{caps: caps, more: make(chan struct{}, 1)}
}

func (s *memSink) Caps() Caps { return s.caps }

func (s *memSink) Open(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.open != nil {
		return s.open()
	}
	return nil
}

func (s *memSink) Send(_ context.Context, b *Batch, done func(error)) {
	if s.behave != nil {
		if s.behave(b, done) {
			s.keep(b)
		}
		return
	}
	s.keep(b)
	done(nil)
}

func (s *memSink) keep(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range b.Events {
		s.bodies = append(s.bodies, append([]byte(nil), e.Body...))
		s.ids = append(s.ids, string(e.ID))
		s.kinds = append(s.kinds, e.Kind)
	}
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *memSink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

// events decodes what was kept.
func (s *memSink) events(t testing.TB) []*event.Event {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*event.Event
	for _, b := range s.bodies {
		e := new(event.Event)
		var err error
		if s.caps.Encoding <= JSONBatch {
			err = e.DecodeJSON(b)
		} else {
			err = e.DecodeProto(b)
		}
		if err != nil {
			t.Fatalf("%v\n%q", err, b)
		}
		out = append(out, e)
	}
	return out
}

var errDown = errors.New("the bus is down")

// newTap makes a tap with sinks of this process.
func newTap(t testing.TB, cfg Config, sinks ...Sink) *Tap {
	t.Helper()
	return newTapOf(t, cfg, testDeps(), sinks...)
}

func newTapOf(t testing.TB, cfg Config, deps Deps, sinks ...Sink) *Tap {
	t.Helper()
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	for i, s := range sinks {
		cfg.Sinks = append(cfg.Sinks, SinkConfig{Name: string(rune('a' + i)), TypeURL: "test", Config: s})
	}
	tap, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tap.Close(ctx)
	})
	return tap
}

// testDeps have one type of sink, "test", whose configuration is the sink.
func testDeps() Deps {
	return Deps{Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Random: rand.Reader,
		Node: mesh.Node{ID: "proxy-1", Cluster: "prod"}, Builders: map[string]SinkBuilder{
			"test": func(c any, _ SinkDeps) (Sink, error) { return c.(Sink), nil },
		}}
}

// check holds the account's identity.
func (a Account) check(t testing.TB) {
	t.Helper()
	for _, s := range a.Sinks {
		sum := s.Acked + s.Pending
		for _, n := range s.Dropped {
			sum += n
		}
		if sum != s.Produced+s.Recovered || s.Produced > a.Produced {
			t.Errorf("sink %s: produced %d, acked %d + pending %d + dropped %v = %d", s.Name, s.Produced, s.Acked, s.Pending, s.Dropped, sum)
		}
	}
}
