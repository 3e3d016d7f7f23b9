// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// BenchmarkObserve is what a request pays: where there is room, with the rings emptied beside the measurement, and where
// there is none. The goal is 200 ns and no allocation.
func BenchmarkObserve(b *testing.B) {
	b.Run("taken", func(b *testing.B) {
		t := still(b)
		o := sampleOutcome()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			t.Observe(o)
			if i++; i&1023 == 0 {
				b.StopTimer()
				for t.round() {
				}
				b.StartTimer()
			}
		}
		if a := t.Account(); a.Dropped != [NumReasons]uint64{} {
			b.Fatalf("events were dropped: %+v", a)
		}
	})
	b.Run("dropped", func(b *testing.B) {
		t := still(b)
		o := sampleOutcome()
		fillRings(t, o)
		b.ReportAllocs()
		for b.Loop() {
			t.Observe(o)
		}
	})
}

// still makes a tap whose batcher does not run, so that nobody empties the rings but the test.
func still(b testing.TB) *Tap {
	t := newTap(b, Config{ClientNetwork: true}, newDiscard(Proto))
	_ = t.Close(context.Background())
	for i := range t.rings {
		t.rings[i].closed = false
	}
	return t
}

// fillRings observes until there is no room.
func fillRings(t *Tap, o *mesh.Outcome) {
	for t.Account().Dropped[RingFull] == 0 {
		t.Observe(o)
	}
}

// BenchmarkEvent is what an event costs the whole process, from Observe until the sink has its bytes, in processor time:
// the wall clock is mostly the batcher's sleep.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct {
		name  string
		e     Encoding
		spool bool
	}{{"json", JSON, false}, {"jsonlines", JSONLines, false}, {"proto", Proto, false}, {"protobatch", ProtoBatch, false}, {"spool", ProtoBatch, true}} {
		b.Run(c.name, func(b *testing.B) {
			const burst = 2048
			sink, cfg := newDiscard(c.e), Config{}
			if c.spool {
				cfg = spooled(b.TempDir())
				cfg.Memory, cfg.Spool.Every = DefaultMemory, DefaultCommit
			}
			t := newTap(b, cfg, sink)
			o := sampleOutcome()
			b.ReportAllocs()
			before, n := cpu(), 0
			for b.Loop() {
				sink.expect.Store(burst)
				for range burst {
					t.Observe(o)
				}
				select {
				case <-sink.reached:
				case <-time.After(10 * time.Second):
					b.Fatalf("events are missing: %+v", t.Account())
				}
				n += burst
			}
			b.ReportMetric(float64(cpu()-before)/float64(n), "cpu-ns/event")
			b.ReportMetric(0, "ns/op")
			if a := t.Account(); a.Dropped != [NumReasons]uint64{} {
				b.Fatalf("%+v", a)
			}
		})
	}
}

// cpu returns the processor time of this process, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// discard takes everything, and says when it had as much as was expected.
type discard struct {
	caps    Caps
	expect  atomic.Int64
	reached chan struct{}
}

func newDiscard(e Encoding) *discard {
	return &discard{caps: Caps{Encoding: e, InFlight: 1}, reached: make(chan struct{}, 1)}
}

func (d *discard) Caps() Caps                { return d.caps }
func (*discard) Open(context.Context) error  { return nil }
func (*discard) Close(context.Context) error { return nil }
func (d *discard) Send(_ context.Context, b *Batch, done func(error)) {
	n := int64(len(b.Events))
	done(nil)
	if d.expect.Add(-n) == 0 {
		d.reached <- struct{}{}
	}
}

// traced are headers with a traceparent, which they lend as the proxy does.
type traced []byte

func (h traced) RequestHeader(string) []byte { return h }
func (traced) ResponseHeader(string) []byte  { return nil }
func (traced) ResponseTrailer(string) []byte { return nil }

func TestObserveDoesNotAllocate(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	tap := still(t)
	o := sampleOutcome()
	o.Headers = traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	fillRings(tap, o) // which takes the memory that the rings keep
	if n := testing.AllocsPerRun(100, func() { tap.Observe(o) }); n != 0 {
		t.Errorf("Observe allocates %v times where there is no room", n)
	}
	for tap.round() {
	}
	before := tap.Account().Dropped
	if n := testing.AllocsPerRun(100, func() { tap.Observe(o) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
	}
	if after := tap.Account().Dropped; after != before {
		t.Errorf("events were dropped: %v, and before %v", after, before)
	}
}

// BenchmarkFill is the batcher's first step: an event of a record.
func BenchmarkFill(b *testing.B) {
	rec := make([]byte, maxRecord)
	rec = rec[:putOutcome(rec, sampleOutcome(), nil, false)]
	var f filler
	var e event.Event
	b.ReportMetric(float64(len(rec)), "record-bytes")
	for b.Loop() {
		f.scratch = f.scratch[:0]
		f.outcome(&e, rec)
	}
}
