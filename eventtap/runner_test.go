// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/eventtap/event"
)

// TestRetry fails the first sends: the batch comes again, in order, with waits that grow and stay bounded.
func TestRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		var at []time.Time
		failures := 12
		s.behave = func(_ *Batch, done func(error)) bool {
			at = append(at, time.Now())
			if failures > 0 {
				failures--
				done(errDown)
				return false
			}
			done(nil)
			return true
		}
		tap := newTap(t, Config{}, s)
		for n := range 10 {
			tap.Observe(outcomeOf("x", n))
		}
		settled(time.Minute)
		if came, lost, _ := reconcile(t, s.events(t)); came != 10 || lost != 0 {
			t.Errorf("%d came, %d lost", came, lost)
		}
		if a := tap.Account(); a.Sinks[0].Retries != 12 || a.Sinks[0].Acked != 10 {
			t.Errorf("%+v", a)
		}
		for i := 1; i < 13; i++ {
			bound := min(retryMax, retryBase<<(i-1))
			if d := at[i].Sub(at[i-1]); d < retryBase/4 || d > bound {
				t.Errorf("wait %d is %v, must be in %v to %v", i, d, retryBase/4, bound)
			}
		}
		failures = 1
		first := len(at) // the ten may have been two batches
		tap.Observe(sampleOutcome())
		settled(time.Minute)
		if d := at[first+1].Sub(at[first]); d > retryBase {
			t.Errorf("after a success the first wait is %v, at most %v is allowed", d, retryBase)
		}
	})
}

// TestComplaints has a bus that is down for minutes: the log says so at once and now and then, with the cause of the
// moment, and not at each try.
func TestComplaints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		begin, sends := time.Now(), 0
		s.behave = func(_ *Batch, done func(error)) bool {
			sends++
			switch down := time.Since(begin); {
			case down < 90*time.Second:
				done(errDown)
			case down < 150*time.Second:
				done(errors.New("the password is wrong"))
			default:
				done(nil)
			}
			return true
		}
		core, logs := observer.New(zap.DebugLevel)
		deps := testDeps()
		deps.Log = zap.New(core)
		tap, err := New(Config{Memory: MinMemory, Sinks: []SinkConfig{{Name: "bus", TypeURL: "test", Config: s}}}, deps)
		if err != nil {
			t.Fatal(err)
		}
		tap.Observe(sampleOutcome())
		settled(5 * time.Minute)
		if err := tap.Close(t.Context()); err != nil {
			t.Error(err)
		}
		var got []string
		for _, e := range logs.All() {
			fields := e.ContextMap()
			if fields["sink"] != "bus" {
				t.Errorf("%v", e)
			}
			got = append(got, fmt.Sprint(e.Message, ": ", fields["error"]))
		}
		want := []string{
			"the event sink failed; trying again: the bus is down",
			"the event sink failed; trying again: the bus is down",
			"the event sink failed; trying again: the password is wrong",
			"the event sink works again: <nil>",
		}
		if !slices.Equal(got, want) || sends < 50 {
			t.Errorf("%d sends, and the log says %q", sends, got)
		}
	})
}

// TestReopen has a sink whose connection is gone: it is closed and opened before the batch comes again.
func TestReopen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 2})
		sends := 0
		s.behave = func(_ *Batch, done func(error)) bool {
			if sends++; sends == 1 {
				done(fmt.Errorf("refused: %w", ErrReopen))
				return false
			}
			done(nil)
			return true
		}
		opens := 0
		s.open = func() error {
			if opens++; opens == 2 || opens == 3 {
				return errDown
			}
			return nil
		}
		tap := newTap(t, Config{}, s)
		tap.Observe(sampleOutcome())
		settled(time.Minute)
		if len(s.ids) != 1 || s.opened != 4 || s.closed != 1 {
			t.Errorf("%d events, opened %d times, closed %d times", len(s.ids), s.opened, s.closed)
		}
	})
}

// TestBatchesInFlight holds back every answer: as many batches are sent as the sink allows, and no more; one that fails
// is sent again behind the others.
func TestBatchesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 3})
		var held []func(error)
		var first []string
		var sizes []uint64
		s.behave = func(b *Batch, done func(error)) bool {
			sizes = append(sizes, uint64(len(b.Events)))
			first = append(first, string(b.ID(nil)))
			if len(first) > 7 {
				done(nil)
			} else {
				held = append(held, done)
			}
			return true
		}
		tap := newTap(t, Config{}, s)
		for n := range 10 * MaxBatch {
			tap.Observe(outcomeOf("x", n))
		}
		settled(time.Second)
		if len(held) != 3 {
			t.Fatalf("%d batches are in flight", len(held))
		}
		held[1](errDown)
		settled(time.Minute)
		if len(held) != 3 {
			t.Fatal("a batch was sent while one has to be sent again")
		}
		held[0](nil)
		held[2](nil)
		settled(time.Minute)
		if len(held) != 4 || first[3] != first[1] {
			t.Fatalf("sent were %q, which must end with the one that has to be sent again, alone", first)
		}
		held[3](nil)
		settled(time.Minute)
		if len(held) != 7 {
			t.Fatalf("sent were %q", first)
		}
		if a := tap.Account(); a.Sinks[0].Acked != sizes[0]+sizes[1]+sizes[2] {
			t.Errorf("%+v", a.Sinks[0])
		}
		ids := slices.Clone(first)
		slices.Sort(ids)
		if len(slices.Compact(ids)) != 6 {
			t.Errorf("batches share ids: %q", first)
		}
		for _, done := range held[4:] {
			done(nil)
		}
		settled(time.Second)
		if a := tap.Account(); a.Sinks[0].Acked != 10*MaxBatch {
			t.Errorf("%+v", a.Sinks[0])
		}
	})
}

// TestFirstIsSilent has a sink that answers every batch but the first: what was sent behind it is acknowledged, and no more is
// sent until it is known what became of it. It fails in the end, and comes again before anything new does.
func TestFirstIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 3})
		var silent func(error)
		var ids []string
		s.behave = func(b *Batch, done func(error)) bool {
			ids = append(ids, string(b.ID(nil)))
			if len(ids) == 1 {
				silent = done
			} else {
				done(nil)
			}
			return true
		}
		tap := newTap(t, Config{}, s)
		for n := range 10 * MaxBatch {
			tap.Observe(outcomeOf("x", n))
		}
		settled(time.Minute)
		if len(ids) != 3 {
			t.Fatalf("%d batches were sent while the first was not answered", len(ids))
		}
		if a := tap.Account().Sinks[0]; a.Acked == 0 || a.Acked > 2*MaxBatch {
			t.Errorf("%+v", a)
		}
		silent(errDown)
		settled(time.Minute)
		if len(ids) < 5 || ids[3] != ids[0] {
			t.Errorf("sent were %q", ids)
		}
		if a := tap.Account().Sinks[0]; a.Acked != 10*MaxBatch || a.Retries != 1 {
			t.Errorf("%+v", a)
		}
	})
}

// TestNothingOvertakes has a sink that fails at once, time and again: until a batch is taken, none is sent behind it.
func TestNothingOvertakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 4})
		sends := 0
		s.behave = func(_ *Batch, done func(error)) bool {
			sends++
			if sends%3 != 0 {
				done(errDown)
				return false
			}
			done(nil)
			return true
		}
		tap := newTap(t, Config{}, s)
		for n := range 10 * MaxBatch {
			tap.Observe(outcomeOf("x", n))
		}
		settled(10 * time.Minute)
		if came, lost, _ := reconcile(t, s.events(t)); came != 10*MaxBatch || lost != 0 {
			t.Errorf("%d came, %d lost", came, lost)
		}
		if a := tap.Account(); a.Sinks[0].Retries < 20 {
			t.Errorf("%+v", a)
		}
	})
}

// TestRefused has a bus that never takes one event: the others count, and a lost event tells of it.
func TestRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		s.behave = func(b *Batch, done func(error)) bool {
			for i, e := range b.Events {
				if e.Kind == event.Request && i == 3 {
					s.keep(&Batch{Events: append(slices.Clone(b.Events[:3]), b.Events[4:]...)})
					done(&RefusedError{[]int{3}, errors.New("too big")})
					return false
				}
			}
			done(nil)
			return true
		}
		tap := newTap(t, Config{}, s)
		tap.cut.Lock() // one batch for all
		for n := range 10 {
			tap.Observe(outcomeOf("x", n))
		}
		tap.cut.Unlock()
		settled(time.Minute)
		a := tap.Account()
		a.check(t)
		if a.Sinks[0].Acked != 9 || a.Sinks[0].Dropped[Refused] != 1 || a.Sinks[0].Retries != 0 {
			t.Errorf("%+v", a.Sinks[0])
		}
		events := s.events(t)
		last := events[len(events)-1]
		if last.Kind != event.Lost || last.Uint(event.Count) != 1 || string(last.Texts[event.Reason]) != "refused" ||
			last.Uint(event.FirstStreamSeq) != 4 || last.Uint(event.LastStreamSeq) != 4 || string(last.Texts[event.Origin]) != "a" {
			t.Errorf("the last event is %s", last.AppendJSON(nil))
		}
	})
}

// TestBatchBytes sends large events: a batch keeps to its memory.
func TestBatchBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSONLines, InFlight: 1})
		s.behave = func(b *Batch, done func(error)) bool {
			if len(b.Body) > bodyBytes {
				t.Errorf("a body of %d bytes", len(b.Body))
			}
			done(nil)
			return true
		}
		tap := newTap(t, Config{}, s)
		big := largest(string(make([]byte, 4096)))
		for range 100 {
			tap.Observe(big)
		}
		settled(time.Minute)
		if came, lost, _ := reconcile(t, s.events(t)); came != 100 || lost != 0 {
			t.Errorf("%d came, %d lost", came, lost)
		}
	})
}
