// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// outcomeOf is an outcome of a cluster whose connection id is a counter, to find it again.
func outcomeOf(cluster string, n int) *mesh.Outcome {
	o := sampleOutcome()
	o.Cluster, o.ConnectionID = cluster, uint64(n)
	return o
}

// settled waits until nothing moves in the bubble, with time passing for the timers.
func settled(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// reconcile checks a sink's stream: numbers rise, no event is there twice, and every gap is explained by lost events that
// stand in it, to the event. It returns how many events came, and how many were lost by reason.
func reconcile(t *testing.T, events []*event.Event) (came, lost uint64, reasons map[string]uint64) {
	t.Helper()
	reasons = map[string]uint64{}
	var last, gap uint64
	for i, e := range events {
		if e.Kind == event.Lost {
			n := e.Uint(event.Count)
			gap += n
			reasons[string(e.Texts[event.Reason])] += n
			if e.Sequence != 0 || e.StreamSeq != 0 {
				t.Errorf("a lost event has the numbers %d and %d", e.Sequence, e.StreamSeq)
			}
			if first, l := e.Uint(event.FirstStreamSeq), e.Uint(event.LastStreamSeq); l-first+1 < n {
				t.Errorf("a lost event says that %d are lost of %d to %d", n, first, l)
			}
			continue
		}
		came++
		if e.StreamSeq != last+gap+1 {
			t.Fatalf("event %d of the stream is number %d, after number %d and %d lost", i, e.StreamSeq, last, gap)
		}
		last, gap = e.StreamSeq, 0
	}
	for _, n := range reasons {
		lost += n
	}
	return came, lost, reasons
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	for _, enc := range []Encoding{JSON, JSONLines, JSONBatch, Proto, ProtoDelimited, ProtoBatch} {
		synctest.Test(t, func(t *testing.T) {
			s := newMemSink(Caps{Encoding: enc, InFlight: 2, Keyed: true})
			tap := newTap(t, Config{}, s)
			const keys, each = 5, 200
			for n := range each {
				for k := range keys {
					tap.Observe(outcomeOf(fmt.Sprint("cluster-", k), n))
				}
			}
			settled(time.Second)
			a := tap.Account()
			a.check(t)
			if a.Produced != keys*each || a.Sinks[0].Acked != a.Produced {
				t.Fatalf("%+v", a)
			}
			events := s.events(t)
			if came, lost, _ := reconcile(t, events); came != keys*each || lost != 0 {
				t.Errorf("%d came, %d were lost", came, lost)
			}
			next := map[string]int64{}
			for i, e := range events {
				key := string(e.PartitionKey)
				if got := e.Numbers[event.ConnectionID]; got != next[key] {
					t.Fatalf("%s: number %d after %d", key, got, next[key])
				}
				next[key]++
				if e.Sequence != uint64(i+1) || string(e.ID) != fmt.Sprintf("%s-%d", e.BootID, e.Sequence) || s.ids[i] != string(e.ID) && enc.separate() {
					t.Fatalf("event %d has sequence %d and id %s, and was sent with id %s", i, e.Sequence, e.ID, s.ids[i])
				}
			}
		})
	}
}

// TestSameOnAllSinks compares what two sinks get: the same ids in the same order.
func TestSameOnAllSinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newMemSink(Caps{Encoding: JSON, InFlight: 1}), newMemSink(Caps{Encoding: Proto, InFlight: 4})
		tap := newTap(t, Config{}, a, b)
		for n := range 300 {
			tap.Observe(outcomeOf("x", n))
		}
		settled(time.Second)
		if len(a.ids) != 300 || strings.Join(a.ids, " ") != strings.Join(b.ids, " ") {
			t.Errorf("%d and %d events, or not the same ids", len(a.ids), len(b.ids))
		}
		for i, e := range a.events(t) {
			if other := b.events(t)[i]; string(e.AppendJSON(nil)) != string(other.AppendJSON(nil)) {
				t.Fatalf("%s\n%s", e.AppendJSON(nil), other.AppendJSON(nil))
			}
			if i == 5 {
				break
			}
		}
	})
}

// TestRingFull observes more than the rings hold while the batcher cannot run.
func TestRingFull(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: Proto, InFlight: 4})
	tap := newTap(t, Config{Memory: MinMemory}, s)
	var produced uint64
	for range 3 {
		tap.cut.Lock()
		for k := range 4000 {
			tap.Observe(outcomeOf(fmt.Sprint(k%3), k))
			produced++
		}
		tap.cut.Unlock()
		waitFor(t, tap)
	}
	if err := tap.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	a := tap.Account()
	a.check(t)
	came, lost, reasons := reconcile(t, s.events(t))
	if a.Produced != produced || came+lost != produced || a.Dropped[RingFull] == 0 {
		t.Errorf("produced %d, account %+v, came %d, lost %d", produced, a, came, lost)
	}
	if reasons["ring_full"] != a.Dropped[RingFull] || came != a.Sinks[0].Acked {
		t.Errorf("lost %v, account %+v", reasons, a)
	}
	checkSequence(t, s.events(t), produced)
}

// checkSequence holds the sequence of a stream in which only rings have lost events: every number up to the last is an
// event's, or in the range of exactly one lost event.
func checkSequence(t *testing.T, events []*event.Event, produced uint64) {
	t.Helper()
	next := uint64(1)
	for _, e := range events {
		first, last := e.Sequence, e.Sequence
		if e.Kind == event.Lost {
			first, last = e.Uint(event.FirstSequence), e.Uint(event.LastSequence)
			if n := e.Uint(event.Count); n != last-first+1 || string(e.Texts[event.Origin]) != "ring" || e.Uint(event.FirstTime) > e.Uint(event.LastTime) {
				t.Errorf("%s", e.AppendJSON(nil))
			}
		}
		if first != next {
			t.Fatalf("number %d after %d", first, next-1)
		}
		next = last + 1
	}
	if next != produced+1 {
		t.Errorf("the last number is %d of %d", next-1, produced)
	}
}

// waitFor waits until nothing is pending.
func waitFor(t *testing.T, tap *Tap) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		a := tap.Account()
		a.check(t)
		pending := a.Pending
		for _, s := range a.Sinks {
			pending += s.Pending
		}
		if pending == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still pending: %+v", a)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestSinkFull blocks one sink: it loses its own copies, to the event, and the other loses nothing.
func TestSinkFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		free := newMemSink(Caps{Encoding: Proto, InFlight: 1})
		blocked := newMemSink(Caps{Encoding: Proto, InFlight: 2})
		var held []func(error)
		var mu sync.Mutex
		open := false
		blocked.behave = func(_ *Batch, done func(error)) bool {
			mu.Lock()
			defer mu.Unlock()
			if open {
				done(nil)
			} else {
				held = append(held, done)
			}
			return true
		}
		tap := newTap(t, Config{Memory: MinMemory}, free, blocked)
		const total = 20000
		for n := range total {
			tap.Observe(outcomeOf("x", n))
			if n%500 == 0 {
				settled(20 * time.Millisecond)
			}
		}
		settled(time.Second)
		a := tap.Account()
		a.check(t)
		if a.Sinks[0].Acked != total || a.Sinks[1].Acked != 0 || a.Sinks[1].Dropped[SinkFull] == 0 || a.Dropped[RingFull] != 0 {
			t.Fatalf("%+v", a)
		}
		mu.Lock()
		open = true
		for _, done := range held {
			done(nil)
		}
		mu.Unlock()
		settled(time.Second)
		tap.Observe(outcomeOf("x", total))
		settled(time.Second)
		a = tap.Account()
		a.check(t)
		came, lost, reasons := reconcile(t, blocked.events(t))
		if came != a.Sinks[1].Acked || lost != a.Sinks[1].Dropped[SinkFull] || reasons["sink_full"] != lost || came+lost != total+1 {
			t.Errorf("came %d, lost %v, account %+v", came, reasons, a.Sinks[1])
		}
		if came, lost, _ = reconcile(t, free.events(t)); came != total+1 || lost != 0 {
			t.Errorf("the other sink: %d came, %d lost", came, lost)
		}
	})
}

// TestLossIsToldWithoutTraffic loses events and then observes nothing: the lost event comes all the same.
func TestLossIsToldWithoutTraffic(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	tap := newTap(t, Config{Memory: MinMemory}, s)
	tap.cut.Lock()
	for n := range 4000 {
		tap.Observe(outcomeOf("x", n))
	}
	tap.cut.Unlock()
	if err := tap.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, lost, _ := reconcile(t, s.events(t))
	if a := tap.Account(); lost == 0 || lost != a.Dropped[RingFull] {
		t.Errorf("%d lost, account %+v", lost, a)
	}
}

// TestNoticesAreNotStarved fills the rings with outcomes: notices still find room.
func TestNoticesAreNotStarved(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	tap := newTap(t, Config{Memory: MinMemory}, s)
	tap.cut.Lock()
	for k := range 4000 {
		tap.Observe(outcomeOf("x", k))
	}
	for range 10 {
		tap.Notify(&notices[0].n)
	}
	tap.cut.Unlock()
	if err := tap.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, k := range s.kinds {
		if k == event.Circuit {
			got++
		}
	}
	if a := tap.Account(); got != 10 || a.Dropped[RingFull] == 0 {
		t.Errorf("%d notices came, account %+v", got, a)
	}
}

// TestNoticesHaveRoomAtSinks fills the queue of a sink that is down: notices still find room there.
func TestNoticesHaveRoomAtSinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		var up atomic.Bool
		s.behave = func(_ *Batch, done func(error)) bool {
			if !up.Load() {
				done(errDown)
				return false
			}
			done(nil)
			return true
		}
		tap := newTap(t, Config{Memory: MinMemory}, s)
		for n := 0; tap.Account().Sinks[0].Dropped[SinkFull] < 100; n++ {
			tap.Observe(outcomeOf("x", n))
			if n%500 == 0 {
				settled(20 * time.Millisecond)
			}
		}
		for range 10 {
			tap.Notify(&notices[0].n)
			tap.Observe(sampleOutcome())
			settled(20 * time.Millisecond)
		}
		up.Store(true)
		settled(time.Minute)
		got := 0
		for _, k := range s.kinds {
			if k == event.Circuit {
				got++
			}
		}
		if got != 10 {
			t.Errorf("%d notices came, account %+v", got, tap.Account())
		}
		reconcile(t, s.events(t))
	})
}

// TestNoticeComesAfterItsCause observes outcomes and then notifies: the notice is behind all of them.
func TestNoticeComesAfterItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		tap := newTap(t, Config{}, s)
		for round := range 50 {
			for n := range round {
				tap.Observe(outcomeOf("orders", n))
			}
			tap.Notify(&notices[0].n)
			settled(20 * time.Millisecond)
			if last := s.kinds[len(s.kinds)-1]; last != event.Circuit {
				t.Fatalf("round %d: the last event is a %v", round, last)
			}
		}
	})
}

// TestTraceParent: the trace that a request belongs to is an attribute of its event, where it has the form of one.
func TestTraceParent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		s := newMemSink(Caps{Encoding: Proto, InFlight: 1})
		tap := newTap(t, Config{}, s)
		want := []string{trace, "", "", ""}
		for _, h := range []mesh.Headers{
			headers{"traceparent": trace}, headers{"traceparent": strings.ToUpper(trace)}, headers{"traceparent": trace + "-00"}, headers{},
		} {
			o := sampleOutcome()
			o.Headers = h
			tap.Observe(o)
		}
		settled(time.Second)
		for i, e := range s.events(t) {
			if got := string(e.TraceParent); got != want[i] {
				t.Errorf("event %d: traceparent %q, want %q", i, got, want[i])
			}
		}
		if len(s.ids) != len(want) {
			t.Errorf("%d events", len(s.ids))
		}
	})
}

func TestOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		cfg := Config{}
		cfg.Modes[event.Request], cfg.Modes[event.Health] = Off, Off
		tap := newTap(t, cfg, s)
		tap.Observe(sampleOutcome())
		tcp := sampleOutcome()
		tcp.Kind = mesh.OutcomeTCP
		tap.Observe(tcp)
		for i := range notices {
			tap.Notify(&notices[i].n)
		}
		settled(time.Second)
		for _, k := range s.kinds {
			if cfg.Modes[k] == Off {
				t.Errorf("a %v came", k)
			}
		}
		if a := tap.Account(); a.Produced != uint64(len(s.kinds)) || len(s.kinds) != len(notices) {
			t.Errorf("%d events, account %+v", len(s.kinds), a)
		}
	})
}

// TestNoSinks: without sinks nothing is kept and nothing is counted.
func TestNoSinks(t *testing.T) {
	t.Parallel()
	tap := newTap(t, Config{})
	tap.Observe(sampleOutcome())
	tap.Notify(&notices[0].n)
	if a := tap.Account(); a.Produced != 0 || len(a.Sinks) != 0 {
		t.Errorf("%+v", a)
	}
	if err := tap.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestPanics: a record that the batcher cannot read, and a sink that panics, cost what they held and nothing else.
func TestPanics(t *testing.T) {
	t.Parallel()
	t.Run("in the batcher", func(t *testing.T) {
		t.Parallel()
		s, other := newMemSink(Caps{Encoding: JSON, InFlight: 1}), newMemSink(Caps{Encoding: Proto, InFlight: 1})
		tap := newTap(t, Config{}, s, other)
		r := &tap.notices
		bad := func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.produced++
			if r.room(maxNotice, true) == nil {
				t.Fatal("no room")
			}
			r.commit(1) // too short for anything
		}
		tap.cut.Lock() // one slice for all
		for range 10 {
			tap.Notify(&notices[0].n)
			bad()
			bad()
			tap.Notify(&notices[0].n)
		}
		tap.cut.Unlock()
		waitFor(t, tap)
		tap.Observe(sampleOutcome())
		if err := tap.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := tap.Account()
		a.check(t)
		for i, events := range [][]*event.Event{s.events(t), other.events(t)} {
			came, _, reasons := reconcile(t, events)
			if a.Produced != 41 || a.Dropped[Internal] != 20 || a.Sinks[i].Acked != 21 || came != 21 || reasons["internal"] != 20 {
				t.Errorf("%d came, lost are %v, account %+v", came, reasons, a)
			}
			checkSequence(t, events, 41)
		}
	})
	t.Run("in a sink", func(t *testing.T) {
		t.Parallel()
		s, good := newMemSink(Caps{Encoding: JSON, InFlight: 1}), newMemSink(Caps{Encoding: JSON, InFlight: 1})
		s.behave = func(*Batch, func(error)) bool { panic("a bug") }
		tap := newTap(t, Config{}, s, good)
		for n := range 500 {
			tap.Observe(outcomeOf("x", n))
		}
		if err := tap.Close(t.Context()); err == nil {
			t.Error("Close says nothing")
		}
		a := tap.Account()
		a.check(t)
		if a.Sinks[0].Dropped[Shutdown] != 500 || a.Sinks[1].Acked != 500 {
			t.Errorf("%+v", a)
		}
	})
}

// TestStats reads the account where an operator does.
func TestStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
		var up atomic.Bool
		s.behave = func(_ *Batch, done func(error)) bool {
			if !up.Load() {
				done(errDown)
				return false
			}
			done(nil)
			return true
		}
		deps := testDeps()
		tap, err := New(Config{Memory: MinMemory, Sinks: []SinkConfig{{Name: "bus", TypeURL: "test", Config: s}}}, deps)
		if err != nil {
			t.Fatal(err)
		}
		whole, sink := deps.Stats.Group(tapSchema, "meshtap.tap"), deps.Stats.Group(sinkSchema, "meshtap.tap.sink.bus")
		for n := range 10000 {
			tap.Observe(outcomeOf("x", n))
			if n%500 == 0 {
				settled(20 * time.Millisecond)
			}
		}
		settled(2 * time.Second)
		dropped := sink.Value(sinkDropped + int(SinkFull))
		if whole.Value(tapProduced) != 10000 || dropped == 0 || sink.Value(sinkPending)+dropped != 10000 || sink.Value(sinkRetries) == 0 {
			t.Errorf("produced %d, pending %d, dropped %d", whole.Value(tapProduced), sink.Value(sinkPending), dropped)
		}
		up.Store(true)
		settled(10 * time.Second)
		if sink.Value(sinkAcked)+dropped != 10000 || sink.Value(sinkPending) != 0 {
			t.Errorf("acked %d, pending %d, dropped %d", sink.Value(sinkAcked), sink.Value(sinkPending), dropped)
		}
		if err := tap.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestNew covers what New refuses.
func TestNew(t *testing.T) {
	t.Parallel()
	good := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"too little memory": {Config{Memory: 1 << 20}, "bytes of memory"},
		"too many sinks": {Config{Memory: MinMemory, Sinks: []SinkConfig{
			{Name: "a", TypeURL: "test", Config: good}, {Name: "b", TypeURL: "test", Config: good}, {Name: "c", TypeURL: "test", Config: good},
			{Name: "d", TypeURL: "test", Config: good}, {Name: "e", TypeURL: "test", Config: good}}}, "too few for 5 sinks"},
		"unknown sink": {Config{Memory: DefaultMemory, Sinks: []SinkConfig{{Name: "a", TypeURL: "other"}}}, `no sink of type "other"`},
		"a sink's name twice": {Config{Memory: DefaultMemory, Sinks: []SinkConfig{
			{Name: "a", TypeURL: "test", Config: good}, {Name: "a", TypeURL: "test", Config: good}}}, `two sinks have the name "a"`},
		"no batch in flight": {Config{Memory: DefaultMemory, Sinks: []SinkConfig{
			{Name: "a", TypeURL: "test", Config: newMemSink(Caps{})}}}, "0 batches in flight"},
		"a sink that wants too much": {Config{Memory: MinMemory, Sinks: []SinkConfig{
			{Name: "a", TypeURL: "test", Config: newMemSink(Caps{InFlight: 8})}, {Name: "b", TypeURL: "test", Config: good},
			{Name: "c", TypeURL: "test", Config: good}, {Name: "d", TypeURL: "test", Config: good}}}, "too small for 8 batches"},
		"a sink that cannot be built": {Config{Memory: DefaultMemory, Sinks: []SinkConfig{{Name: "a", TypeURL: "broken"}}}, `sink "a": broken`},
	} {
		deps := testDeps()
		deps.Builders["broken"] = func(any, SinkDeps) (Sink, error) { return nil, errors.New("broken") }
		if _, err := New(c.cfg, deps); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestMemory fills a tap with the largest events in front of sinks that are down: the heap grows by what the
// configuration allows, and little more.
func TestMemory(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector takes memory of its own")
	}
	down := func(_ *Batch, done func(error)) bool { done(errDown); return false }
	a, b := newMemSink(Caps{Encoding: JSON, InFlight: 4}), newMemSink(Caps{Encoding: Proto, InFlight: 4})
	a.behave, b.behave = down, down
	before := heap()
	tap := newTap(t, Config{Memory: DefaultMemory}, a, b)
	big := largest(strings.Repeat("\x01", 512))
	for tap.Account().Sinks[0].Dropped[SinkFull] < 1000 || tap.Account().Sinks[1].Dropped[SinkFull] < 1000 {
		for range 1000 {
			tap.Observe(big)
			tap.Observe(sampleOutcome())
		}
		tap.Notify(&notices[4].n)
	}
	grown := heap() - before
	t.Logf("the heap has grown by %d KiB of %d", grown>>10, DefaultMemory>>10)
	if grown > DefaultMemory+1<<20 {
		t.Errorf("the heap has grown by %d KiB, %d are allowed", grown>>10, DefaultMemory>>10)
	}
	tap.Account().check(t)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
