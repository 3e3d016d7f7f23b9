// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/internal/backoff"
)

// Options say what a Consumer does beside reading.
type Options struct {
	// Patience is how many events of a run may pass before a hole in its numbers is told; 0 is DefaultPatience. It must be
	// more than how far events get out of order, which they do between the partitions of a bus.
	Patience uint64
	// State, where it is not nil, leaves out what is stale, and says of each other event what it is: Event.Verdict.
	State *State
	// Filter, where it is not nil, chooses. Lost events pass.
	Filter *filter.Filter
	// Gap and Unreadable, where they are not nil, are called on the goroutine that reads.
	Gap        func(Gap)
	Unreadable func(error)
	// Attempts is how often Run's handler gets an event that it fails on; 0 is once. Between them the lane waits, and
	// with it the events of the same keys alone.
	Attempts int
	// Dead takes an event on which all attempts failed, and Run goes on if it returns nil. Without it Run ends.
	Dead func(Event, error) error
}

// Counts say what became of what came.
type Counts struct {
	// Events are those that were handed out, Lost what lost events told of, and Missing what nobody told of.
	Events, Lost, Missing uint64
	// Repeated, Stale and Unselected were left out; Unreadable was no event.
	Repeated, Stale, Unselected, Unreadable uint64
}

// Consumer reads one source. Next, or Run, is used by one goroutine, and not both.
type Consumer struct {
	src    Source
	opt    Options
	window *Window
	gaps   *Gaps

	mu     sync.Mutex
	counts Counts // guarded by mu

	// Of Next.
	start  sync.Once
	cancel context.CancelFunc
	out    chan *Delivery
	err    error // of the reading, once out is closed
}

// New returns a consumer of a source, which stays the caller's.
func New(src Source, o Options) *Consumer {
	return &Consumer{src: src, opt: o, window: NewWindow(), gaps: NewGaps(o.Patience), out: make(chan *Delivery, inFlight)}
}

// inFlight is how many events wait between the source and who handles them, in all for Next and in each lane for Run.
const inFlight = 64

// Delivery is an event that is to be handled.
type Delivery struct {
	Event
	of *handling
}

// handling is a message of which not everything was handled.
type handling struct {
	left atomic.Int64
	done func()
}

// Done says that the event was handled, once. When all of a message are, the bus may forget it.
func (d *Delivery) Done() { d.of.end() }

func (h *handling) end() {
	if h.left.Add(-1) == 0 && h.done != nil {
		h.done()
	}
}

// Counts returns what became of what came until now.
func (c *Consumer) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// read hands out the events of the source until its end.
func (c *Consumer) read(ctx context.Context, each func(*Delivery) error) error {
	err := c.src.Read(ctx, func(m *Message) error { return c.message(m, each) })
	if err == nil {
		c.tell(c.gaps.Rest())
	}
	return err
}

// message takes one message apart.
func (c *Consumer) message(m *Message, each func(*Delivery) error) (err error) {
	h := &handling{done: m.Done}
	h.left.Store(1)
	Decode(m, func(e Event) {
		if err != nil || !c.take(&e) {
			return
		}
		h.left.Add(1)
		err = each(&Delivery{e, h})
	}, func(bad error) {
		c.count(func(n *Counts) { n.Unreadable++ })
		if c.opt.Unreadable != nil {
			c.opt.Unreadable(bad)
		}
	})
	if err == nil {
		h.end()
	}
	return err
}

// take reports whether an event is to be handed out, and notes what it is to the State.
func (c *Consumer) take(e *Event) (wanted bool) {
	if c.window.Repeated(e.Event) {
		c.count(func(n *Counts) { n.Repeated++ })
		return false
	}
	c.tell(c.gaps.See(e.Event))
	add := func(n *Counts) { n.Events++ }
	switch wanted = true; {
	case e.Kind == event.Lost:
		add = func(n *Counts) { n.Events++; n.Lost += e.Uint(event.Count) }
	case c.resolve(e) == Stale:
		add, wanted = func(n *Counts) { n.Stale++ }, false
	case c.opt.Filter != nil:
		if yes, err := c.opt.Filter.Match(e.Event); err != nil || !yes {
			add, wanted = func(n *Counts) { n.Unselected++ }, false
		}
	}
	c.count(add)
	return wanted
}

// resolve notes what an event is to the State, if there is one.
func (c *Consumer) resolve(e *Event) Verdict {
	if c.opt.State == nil {
		return Stateless
	}
	if e.Verdict = c.opt.State.Take(e.Event); e.Verdict == Newer || e.Verdict == Moved {
		if w, ok := c.opt.State.Counts(e.Event); ok {
			e.Counts = &w
		}
	}
	return e.Verdict
}

func (c *Consumer) count(add func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.counts)
}

func (c *Consumer) tell(gaps []Gap) {
	for _, g := range gaps {
		c.count(func(n *Counts) { n.Missing += g.Count })
		if c.opt.Gap != nil {
			c.opt.Gap(g)
		}
	}
}

// Next returns the next event, which the caller ends with Done, or the error with which the source ended; io.EOF where
// there is nothing more. The first call begins to read; End ends that.
func (c *Consumer) Next(ctx context.Context) (*Delivery, error) {
	c.start.Do(func() {
		var inner context.Context
		inner, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go func() {
			c.err = c.read(inner, func(d *Delivery) error {
				select {
				case c.out <- d:
					return nil
				case <-inner.Done():
					return inner.Err()
				}
			})
			close(c.out)
		}()
	})
	select {
	case d, ok := <-c.out:
		switch {
		case ok:
			return d, nil
		case c.err != nil:
			return nil, c.err
		}
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// End ends what Next began, and waits until the source is not read any more. What was not ended with Done stays with the
// bus.
func (c *Consumer) End() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	for range c.out {
	}
}

// The waits between attempts of a handler.
const (
	retryBase = 50 * time.Millisecond
	retryMax  = 5 * time.Second
)

// Run calls handle for every event, in so many lanes at a time: events of one partition key come one after the other and
// in order. It returns when the source is at its end and everything was handled, with the error of ctx, of the source, or
// of an event that was given up. What was not handled then stays with the bus.
func (c *Consumer) Run(ctx context.Context, lanes int, handle func(context.Context, Event) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	queues := make([]chan *Delivery, max(lanes, 1))
	for i := range queues {
		queues[i] = make(chan *Delivery, inFlight)
		running.Go(func() {
			for d := range queues[i] {
				if ctx.Err() != nil {
					continue // it is being ended
				}
				if err := c.handle(ctx, d.Event, handle); err != nil {
					fail(err)
					continue
				}
				d.Done()
			}
		})
	}
	seed := maphash.MakeSeed()
	err := c.read(ctx, func(d *Delivery) error {
		select {
		case queues[maphash.Bytes(seed, d.PartitionKey)%uint64(len(queues))] <- d:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for _, q := range queues {
		close(q)
	}
	running.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// handle gives an event to the handler as often as it may.
func (c *Consumer) handle(ctx context.Context, e Event, handle func(context.Context, Event) error) error {
	wait := backoff.Backoff{Base: retryBase, Max: retryMax}
	for attempt := 1; ; attempt++ {
		err := handle(ctx, e)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), err)
		case attempt >= c.opt.Attempts && c.opt.Dead != nil:
			return c.opt.Dead(e, err)
		case attempt >= c.opt.Attempts:
			return err
		}
		timer := time.NewTimer(wait.Next(rand.Float64))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
