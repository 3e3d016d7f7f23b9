// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
)

// flaky is a bus that fails in every way a Sink may: at once, later, for good, in part, after it has taken the events,
// and by refusing some. It remembers what it has taken, by id.
type flaky struct {
	caps Caps
	r    *rand.Rand

	mu      sync.Mutex
	calm    bool
	isOpen  bool
	taken   map[string]int
	order   [][]byte
	refused int
	late    sync.WaitGroup
}

func newFlaky(seed uint64, caps Caps) *flaky {
	return &flaky{caps: caps, r: rand.New(rand.NewPCG(seed, 9)), taken: map[string]int{}}
}

func (s *flaky) Caps() Caps { return s.caps }

func (s *flaky) Open(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.calm && s.r.IntN(3) == 0 {
		return errDown
	}
	s.isOpen = true
	return nil
}

func (s *flaky) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isOpen = false
	return nil
}

func (s *flaky) Send(_ context.Context, b *Batch, done func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isOpen {
		panic("Send on a sink that is not open")
	}
	answer := done
	if s.r.IntN(2) == 0 {
		answer = func(err error) { s.late.Go(func() { done(err) }) }
	}
	dice := s.r.IntN(10)
	if s.calm {
		dice = 9
	}
	switch dice {
	case 0:
		answer(errDown)
	case 1:
		answer(errors.Join(errDown, ErrReopen))
	case 2: // the acknowledgement is lost
		s.take(b, nil)
		answer(errDown)
	case 3:
		n := s.r.IntN(len(b.Events))
		s.take(&Batch{Events: b.Events[:n]}, nil)
		answer(errDown)
	case 4:
		var no []int
		for i := range b.Events {
			if s.r.IntN(4) == 0 && b.Events[i].Kind != event.Lost && s.taken[s.id(&b.Events[i])] == 0 {
				no = append(no, i)
				s.refused++
			}
		}
		s.take(b, no)
		answer(&RefusedError{no, errDown})
	default:
		s.take(b, nil)
		answer(nil)
	}
}

// id reads the id of an event from its body, as a consumer does.
func (s *flaky) id(e *Event) string {
	d, err := s.decode(e.Body)
	if err != nil {
		panic(err)
	}
	return string(d.ID)
}

func (s *flaky) decode(b []byte) (*event.Event, error) {
	e := new(event.Event)
	if s.caps.Encoding <= JSONBatch {
		return e, e.DecodeJSON(b)
	}
	return e, e.DecodeProto(b)
}

// take keeps the events but those whose indices are given.
func (s *flaky) take(b *Batch, but []int) {
	for i, e := range b.Events {
		if len(but) > 0 && but[0] == i {
			but = but[1:]
			continue
		}
		id := s.id(&e)
		if s.taken[id]++; s.taken[id] == 1 {
			s.order = append(s.order, append([]byte(nil), e.Body...))
		}
	}
}

// TestAccountHolds has concurrent producers, buses that fail in all ways, and a reader of the account: at every moment
// the identity holds for every sink, and at the end every event is where the account says.
func TestAccountHolds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			sinks := []*flaky{
				newFlaky(seed, Caps{Encoding: JSON, InFlight: 1}),
				newFlaky(seed+100, Caps{Encoding: Proto, InFlight: 4, Keyed: true}),
				newFlaky(seed+200, Caps{Encoding: ProtoBatch, InFlight: 6}),
			}
			tap := newTap(t, Config{Memory: MinMemory}, sinks[0], sinks[1], sinks[2])
			produced := produce(t, tap)
			for _, s := range sinks {
				s.calmDown()
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := tap.Close(ctx); err != nil {
				t.Fatal(err)
			}
			a := tap.Account()
			a.check(t)
			if a.Produced != produced {
				t.Errorf("produced %d, the account says %d", produced, a.Produced)
			}
			for i, s := range sinks {
				s.late.Wait()
				checkFlaky(t, s, a.Sinks[i], produced)
			}
		})
	}
}

// produce observes from several goroutines in bursts, while another one holds the account against the identity.
func produce(t *testing.T, tap *Tap) (produced uint64) {
	const producers, each = 4, 6000
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				tap.Account().check(t)
			}
		}
	}()
	var done sync.WaitGroup
	for p := range producers {
		done.Go(func() {
			for n := range each {
				tap.Observe(outcomeOf(fmt.Sprint("cluster-", n%7), p*each+n))
				if n%100 == 0 {
					tap.Notify(&notices[n/100%len(notices)].n)
				}
			}
		})
	}
	done.Wait()
	close(stop)
	<-stopped
	return producers * (each + each/100)
}

// TestAccountHoldsOverClose closes the tap at a moment and with a deadline that the seed says, while events are produced
// and the buses fail. The identity holds before, meanwhile and afterwards; nothing is pending in the end, and a bus has
// every event that counts as acknowledged.
func TestAccountHoldsOverClose(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 11))
			sinks := []*flaky{
				newFlaky(seed, Caps{Encoding: JSON, InFlight: 1}),
				newFlaky(seed+100, Caps{Encoding: Proto, InFlight: 4, Keyed: true}),
				newFlaky(seed+200, Caps{Encoding: ProtoBatch, InFlight: 6}),
			}
			tap := newTap(t, Config{Memory: MinMemory}, sinks[0], sinks[1], sinks[2])
			p := startProducers(t, tap, seed)
			time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
			sinks[r.IntN(3)].calmDown()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(400))*time.Millisecond)
			defer cancel()
			_ = tap.Close(ctx) // whether all were delivered in time is up to the seed
			produced := p.end()
			a := tap.Account()
			a.check(t)
			if a.Produced != produced || a.Pending != 0 {
				t.Errorf("seed %d: produced %d, the account says %+v", seed, produced, a)
			}
			for i, s := range sinks {
				s.late.Wait()
				came, _ := s.count(t)
				if sa := a.Sinks[i]; sa.Pending != 0 || came < sa.Acked || came > sa.Acked+sa.Dropped[Shutdown] || sa.Dropped[Refused] > uint64(s.refused) {
					t.Errorf("seed %d: the bus has %d events and refused %d, the account says %+v", seed, came, s.refused, sa)
				}
			}
		})
	}
}

// producers observe in bursts of random sizes at random times until they are told to end, and hold the identity at each.
type producers struct {
	stop chan struct{}
	done sync.WaitGroup
	n    [3]uint64
}

func startProducers(t *testing.T, tap *Tap, seed uint64) *producers {
	p := &producers{stop: make(chan struct{})}
	for i := range p.n {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		p.done.Go(func() {
			for {
				for range r.IntN(300) {
					if r.IntN(100) == 0 {
						tap.Notify(&notices[r.IntN(len(notices))].n)
					} else {
						tap.Observe(outcomeOf(fmt.Sprint("cluster-", r.IntN(7)), int(p.n[i])))
					}
					p.n[i]++
				}
				tap.Account().check(t)
				select {
				case <-p.stop:
					return
				case <-time.After(time.Duration(r.IntN(40)) * time.Millisecond):
				}
			}
		})
	}
	return p
}

func (p *producers) end() (n uint64) {
	close(p.stop)
	p.done.Wait()
	for _, v := range p.n {
		n += v
	}
	return n
}

// calmDown makes the bus take everything from now on.
func (s *flaky) calmDown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = true
}

// count returns how many events the bus has, and how many its lost events tell of.
func (s *flaky) count(t *testing.T) (came, told uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.order {
		e, err := s.decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == event.Lost {
			told += e.Uint(event.Count)
		} else {
			came++
		}
	}
	return came, told
}

// checkFlaky holds what a bus has taken against its account.
func checkFlaky(t *testing.T, s *flaky, a SinkAccount, produced uint64) {
	t.Helper()
	if a.Pending != 0 || a.Dropped[Shutdown] != 0 || a.Dropped[Refused] != uint64(s.refused) {
		t.Errorf("%s: %+v, the bus refused %d", a.Name, a, s.refused)
	}
	came, told := s.count(t)
	if came != a.Acked {
		t.Errorf("%s: the bus has %d events, %d are acknowledged", a.Name, came, a.Acked)
	}
	if came+told != produced {
		t.Errorf("%s: %d events came and %d were told to be lost, of %d", a.Name, came, told, produced)
	}
}

// TestOrderPerKey has a bus that fails often and takes one batch at a time: no key's events change places.
func TestOrderPerKey(t *testing.T) {
	t.Parallel()
	s := newFlaky(42, Caps{Encoding: Proto, InFlight: 1})
	tap := newTap(t, Config{}, s)
	produce(t, tap)
	s.calmDown()
	if err := tap.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	var last uint64
	producers := map[string]map[int64]int64{}
	for _, b := range s.order {
		var e event.Event
		if err := e.DecodeProto(b); err != nil {
			t.Fatal(err)
		}
		if e.Kind == event.Lost {
			continue
		}
		if e.Sequence <= last {
			t.Fatalf("sequence %d after %d", e.Sequence, last)
		}
		last = e.Sequence
		if e.Kind != event.Request {
			continue
		}
		key, n := string(e.PartitionKey), e.Numbers[event.ConnectionID]
		if producers[key] == nil {
			producers[key] = map[int64]int64{}
		}
		p := n / 6000
		if before, ok := producers[key][p]; ok && before >= n {
			t.Fatalf("%s: number %d after %d", key, n, before)
		}
		producers[key][p] = n
	}
}
