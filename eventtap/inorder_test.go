// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
)

var orderEvents = flag.Int("order.events", 100_000, "how many events TestOrderOfMany sends each way")

// inOrder is a bus with several batches in flight that fails in many ways. It keeps nothing but the number that each key
// must have next: of a key every event is numbered one above the one before.
type inOrder struct {
	order Order
	late  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	r              *rand.Rand
	next           [orderKeys]int64
	came, again    int
	failed, opened int
	bad            string
}

const orderKeys = 11

func (*inOrder) Caps() Caps { return Caps{Encoding: Proto, InFlight: 4} }

func (s *inOrder) Open(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order.Reset()
	s.opened++
	return nil
}

func (s *inOrder) Close(context.Context) error {
	s.late.Wait()
	return nil
}

func (s *inOrder) Send(_ context.Context, b *Batch, done func(error)) {
	if err := s.order.Begin(b); err != nil {
		done(err)
		return
	}
	s.mu.Lock()
	dice, now := s.r.IntN(1000), s.r.IntN(2) == 0
	err, n := error(nil), len(b.Events)
	switch {
	case dice < 10: // nothing arrives
		err, n = errDown, 0
	case dice < 20: // the acknowledgement is lost
		err = errDown
	case dice < 30: // the connection breaks in the middle
		err, n = errors.Join(errDown, ErrReopen), s.r.IntN(n)
	}
	if err != nil {
		s.failed++
	}
	s.take(b.Events[:n])
	s.mu.Unlock()
	s.order.End(b, err)
	if now {
		done(err)
		return
	}
	s.late.Go(func() { done(err) })
}

func (s *inOrder) take(events []Event) {
	var e event.Event
	for i := range events {
		if err := e.DecodeProto(events[i].Body); err != nil || e.Kind != event.Request {
			s.bad = fmt.Sprintf("a %v: %v", e.Kind, err)
			return
		}
		key, n := e.Numbers[event.ConnectionID]%orderKeys, e.Numbers[event.ConnectionID]/orderKeys
		switch next := &s.next[key]; {
		case n == *next:
			*next++
			s.came++
		case n < *next:
			s.again++
		case s.bad == "":
			s.bad = fmt.Sprintf("key %d: number %d where %d is next", key, n, *next)
		}
	}
}

// TestOrderOfMany sends many events over a bus that fails one time in thirty and is opened anew: of no key does an event come
// before an earlier one, and none is missing (F87).
func TestOrderOfMany(t *testing.T) {
	t.Parallel()
	onDisk := spooled(t.TempDir())
	onDisk.Memory = 4 * DefaultMemory // what waits for the disk must have room
	for name, cfg := range map[string]Config{"memory": {}, "spool": onDisk} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &inOrder{r: rand.New(rand.NewPCG(87, 1))}
			tap := newTap(t, cfg, s)
			keys := make([]string, orderKeys)
			for k := range keys {
				keys[k] = fmt.Sprint("cluster-", k)
			}
			o := outcomeOf("", 0)
			for n := range *orderEvents {
				o.Cluster, o.ConnectionID = keys[n%orderKeys], uint64(n)
				tap.Observe(o)
				for n%500 == 0 && tap.Account().Sinks[0].Pending > 2000 {
					runtime.Gosched()
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := tap.Close(ctx); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Logf("figure: %d events in order, %d came again; %d batches failed, opened %d times", s.came, s.again, s.failed, s.opened)
			if s.bad != "" || s.came != *orderEvents || s.failed == 0 || s.opened < 2 {
				t.Errorf("%d of %d came in order; %s", s.came, *orderEvents, s.bad)
			}
		})
	}
}
