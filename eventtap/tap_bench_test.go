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
)

// BenchmarkObserve is what a request pays: the rings are emptied beside the measurement.
func BenchmarkObserve(b *testing.B) {
	t := newTap(b, Config{}, newDiscard(Proto))
	_ = t.Close(context.Background())
	for i := range t.rings {
		t.rings[i].closed = false
	}
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
}

// BenchmarkEvent is what an event costs the whole process, from Observe until the sink has its bytes, in processor time:
// the wall clock is mostly the batcher's sleep.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct {
		name string
		e    Encoding
	}{{"json", JSON}, {"jsonlines", JSONLines}, {"proto", Proto}, {"protobatch", ProtoBatch}} {
		b.Run(c.name, func(b *testing.B) {
			const burst = 2048
			sink := newDiscard(c.e)
			t := newTap(b, Config{}, sink)
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

func TestObserveDoesNotAllocate(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	sink := newDiscard(Proto)
	tap := newTap(t, Config{ClientNetwork: true}, sink)
	o := sampleOutcome()
	o.Headers = headers{}
	sink.expect.Store(1000)
	for range 1000 {
		tap.Observe(o)
	}
	<-sink.reached
	if n := testing.AllocsPerRun(2000, func() { tap.Observe(o) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
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
