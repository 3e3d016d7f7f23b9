// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
)

const (
	// blockSize is the unit of the history, in bytes. It holds the largest event with room to spare.
	blockSize = 32 << 10
	minBlocks = 4
	// MaxSubscribers is how many readers there may be at a time.
	MaxSubscribers = 1024
)

// Hub is the history and its readers. It is a Sink for one tap; Subscribe may be called from any goroutine.
type Hub struct {
	max int // blocks

	mu sync.Mutex
	// Guarded by mu.
	blocks []*block      // the oldest first; the last is being written
	next   uint64        // the place of the next event, from 1
	more   chan struct{} // closed when there is more to read; nil where nobody waits
	closed bool
	subs   int
}

// block is a run of events. What is written stays as it is, so readers look at it without the lock.
type block struct {
	first  uint64 // the place of its first event
	buf    []byte
	events []span
	refs   int // readers that look at it
}

// span is one event in a block's bytes.
type span struct {
	lo, hi int
	seq    uint64
}

// New returns a hub with a history of so many bytes.
func New(bytes int) *Hub {
	return &Hub{max: max(bytes/blockSize, minBlocks), next: 1}
}

// Caps returns what the hub promises as a sink.
func (*Hub) Caps() eventtap.Caps {
	return eventtap.Caps{Encoding: eventtap.Proto, InFlight: 1}
}

// Open does nothing.
func (*Hub) Open(context.Context) error { return nil }

// Send adds a batch to the history.
func (h *Hub) Send(_ context.Context, b *eventtap.Batch, done func(error)) {
	h.mu.Lock()
	for i := range b.Events {
		h.add(&b.Events[i])
	}
	h.rouse()
	h.mu.Unlock()
	done(nil)
}

// add appends an event. mu must be held.
func (h *Hub) add(e *eventtap.Event) {
	if len(e.Body) > blockSize {
		return // the tap makes none; see event.MaxSize
	}
	b := h.last()
	if b == nil || len(b.buf)+len(e.Body) > cap(b.buf) {
		b = h.grow()
	}
	lo := len(b.buf)
	b.buf = append(b.buf, e.Body...)
	b.events = append(b.events, span{lo, len(b.buf), e.Sequence})
	h.next++
}

func (h *Hub) last() *block {
	if len(h.blocks) == 0 {
		return nil
	}
	return h.blocks[len(h.blocks)-1]
}

// grow begins a new block, in the memory of the oldest where the history is full and no reader looks at that.
func (h *Hub) grow() *block {
	var b *block
	if len(h.blocks) == h.max {
		old := h.blocks[0]
		h.blocks = append(h.blocks[:0], h.blocks[1:]...)
		if old.refs == 0 {
			b = old
		}
	}
	if b == nil {
		b = &block{buf: make([]byte, 0, blockSize)}
	}
	b.first, b.buf, b.events = h.next, b.buf[:0], b.events[:0]
	h.blocks = append(h.blocks, b)
	return b
}

// rouse wakes the readers that wait. mu must be held.
func (h *Hub) rouse() {
	if h.more != nil {
		close(h.more)
		h.more = nil
	}
}

// Close ends the stream: readers see what is in the history, and then io.EOF.
func (h *Hub) Close(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.rouse()
	return nil
}

// MissedError tells a reader that it was too slow, or came too late for what it asked for.
type MissedError struct {
	// Count is how many events went by.
	Count uint64
	// Slow says that they did since the reader began, and that this is its end.
	Slow bool
}

// Error returns the count in words.
func (e *MissedError) Error() string {
	return fmt.Sprintf("%d events went by before they were read", e.Count)
}

// ErrTooMany says that there are MaxSubscribers readers already.
var ErrTooMany = errors.New("there are too many readers of events; try again later")

// Subscriber is a reader. One goroutine uses it.
type Subscriber struct {
	hub    *Hub
	place  uint64 // of the next event to read
	from   uint64 // the least sequence to show
	late   uint64 // events that were gone at the beginning
	filter func(*event.Event) bool
	block  *block // being looked at
	buf    []byte // its bytes
	events []span // those of its events that are not read yet
}

// Subscribe returns a reader of the events from now on, or with from above 0 of those with a sequence of at least from,
// as far as the history has them. filter, where it is not nil, chooses; it sees lost events too. The caller closes it.
func (h *Hub) Subscribe(from uint64, filter func(*event.Event) bool) (*Subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == MaxSubscribers {
		return nil, ErrTooMany
	}
	h.subs++
	s := &Subscriber{hub: h, place: h.next, from: from, filter: filter}
	if from > 0 && len(h.blocks) > 0 {
		s.place = h.blocks[0].first
		if oldest := h.oldest(); oldest > from && s.place > 1 {
			s.late = oldest - from
		}
	}
	return s, nil
}

// oldest returns the least sequence in the history, 0 where there is none. mu must be held.
func (h *Hub) oldest() uint64 {
	for _, b := range h.blocks {
		for _, e := range b.events {
			if e.seq != 0 {
				return e.seq
			}
		}
	}
	return 0
}

// boot returns the boot of the oldest event in the history that has a sequence, "" where there is none.
func (h *Hub) boot() string {
	s, err := h.Subscribe(1, nil)
	if err != nil {
		return ""
	}
	defer s.Close()
	var e event.Event
	for {
		var missed *MissedError
		switch err := s.Poll(&e); {
		case errors.As(err, &missed) && !missed.Slow:
		case err != nil:
			return ""
		case e.Sequence != 0:
			boot, _, _ := splitID(string(e.ID))
			return boot
		}
	}
}

// Next fills e with the next event that passes the filter; its bytes are valid until the next call. Where there is none
// it waits. It returns io.EOF where the hub is closed, and a *MissedError where events are gone: at the beginning, after
// which the reader goes on, or because it was too slow, which ends it.
func (s *Subscriber) Next(ctx context.Context, e *event.Event) error {
	return s.read(ctx, e, true)
}

// Poll is Next, but for that it returns io.EOF where it would wait.
func (s *Subscriber) Poll(e *event.Event) error { return s.read(context.Background(), e, false) }

func (s *Subscriber) read(ctx context.Context, e *event.Event, wait bool) error {
	if n := s.late; n > 0 {
		s.late = 0
		return &MissedError{Count: n}
	}
	for {
		for len(s.events) > 0 {
			at := s.events[0]
			s.events = s.events[1:]
			s.place++
			if at.seq != 0 && at.seq < s.from {
				continue
			}
			if err := e.DecodeProto(s.buf[at.lo:at.hi]); err != nil {
				return err
			}
			if s.filter == nil || s.filter(e) {
				return nil
			}
		}
		more, err := s.take(wait)
		if err != nil {
			return err
		}
		if more == nil {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take looks at the next events, or returns the channel that says when there are more.
func (s *Subscriber) take(wait bool) (more <-chan struct{}, err error) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.release()
	if s.place < h.next {
		if first := h.blocks[0].first; s.place < first {
			return nil, &MissedError{Count: first - s.place, Slow: true}
		}
		for _, b := range h.blocks {
			if n := s.place - b.first; s.place >= b.first && n < uint64(len(b.events)) {
				s.block, s.buf, s.events = b, b.buf, b.events[n:]
				b.refs++
				return nil, nil
			}
		}
	}
	if h.closed || !wait {
		return nil, io.EOF
	}
	if h.more == nil {
		h.more = make(chan struct{})
	}
	return h.more, nil
}

// release stops looking at a block. mu must be held.
func (s *Subscriber) release() {
	b := s.block
	if b == nil {
		return
	}
	s.block, s.buf, s.events = nil, nil, nil
	b.refs--
}

// Close ends the reader.
func (s *Subscriber) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.release()
	s.hub.subs--
}

var _ eventtap.Sink = (*Hub)(nil)
