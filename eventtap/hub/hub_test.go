// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestConformance reads the hub through a subscriber.
func TestConformance(t *testing.T) {
	t.Parallel()
	sink.Run(t, func(*testing.T) sink.Bus {
		h := New(8 << 20)
		return sink.Bus{
			Sink: func(*testing.T) eventtap.Sink { return h },
			Events: func(t *testing.T) (out [][]byte) {
				s := subscribe(t, h, 1, nil)
				for e := (event.Event{}); s.Poll(&e) == nil; {
					out = append(out, e.AppendJSON(nil))
				}
				return out
			},
		}
	})
}

func subscribe(t *testing.T, h *Hub, from uint64, filter func(*event.Event) bool) *Subscriber {
	t.Helper()
	s, err := h.Subscribe(from, filter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// publish sends events with the sequences from first to last, each of about size bytes.
func publish(h *Hub, first, last uint64, size int) {
	b := &eventtap.Batch{}
	for n := first; n <= last; n++ {
		var e event.Event
		e.Reset(event.Request)
		e.ID, e.Source, e.Sequence, e.StreamSeq = fmt.Appendf(nil, "b-%d", n), []byte("/s"), n, n
		e.Texts[event.Cluster] = []byte("even")
		if n%2 == 1 {
			e.Texts[event.Cluster], e.Texts[event.ErrorType] = []byte("odd"), []byte("500")
		}
		e.Texts[event.Details] = make([]byte, size)
		b.Events = append(b.Events, eventtap.Event{ID: e.ID, Kind: e.Kind, Sequence: n, Body: e.AppendProto(nil)})
	}
	h.Send(context.Background(), b, func(error) {})
}

// poll reads sequences until the reader would wait or is told something.
func poll(s *Subscriber) (got []uint64, err error) {
	var e event.Event
	for {
		if err = s.Poll(&e); err != nil {
			return got, err
		}
		got = append(got, e.Sequence)
	}
}

func count(first, last uint64) (out []uint64) {
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

func TestFromNow(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	publish(h, 1, 5, 10)
	s := subscribe(t, h, 0, nil)
	if got, err := poll(s); len(got) != 0 || err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
	publish(h, 6, 9, 10)
	if got, _ := poll(s); fmt.Sprint(got) != fmt.Sprint(count(6, 9)) {
		t.Errorf("%v", got)
	}
}

func TestFromSequence(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	publish(h, 1, 200, 500)
	if got, _ := poll(subscribe(t, h, 150, nil)); fmt.Sprint(got) != fmt.Sprint(count(150, 200)) {
		t.Errorf("%v", got)
	}
	s := subscribe(t, h, 203, nil)
	publish(h, 201, 205, 10)
	if got, _ := poll(s); fmt.Sprint(got) != fmt.Sprint(count(203, 205)) {
		t.Errorf("a sequence of the future: %v", got)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	publish(h, 1, 6, 10)
	odd := func(e *event.Event) bool { return string(e.Texts[event.Cluster]) == "odd" }
	if got, _ := poll(subscribe(t, h, 1, odd)); fmt.Sprint(got) != "[1 3 5]" {
		t.Errorf("%v", got)
	}
}

// TestBounded publishes more than the history holds: the newest stay, and who asks for older ones is told how many are
// gone and goes on.
func TestBounded(t *testing.T) {
	t.Parallel()
	h := New(4 * blockSize)
	publish(h, 1, 1000, 1000)
	s := subscribe(t, h, 1, nil)
	got, err := poll(s)
	var missed *MissedError
	if len(got) != 0 || !errors.As(err, &missed) || missed.Slow {
		t.Fatalf("%v, %v", got, err)
	}
	got, err = poll(s)
	if err != io.EOF || len(got) == 0 || got[len(got)-1] != 1000 || missed.Count != got[0]-1 || uint64(len(got)) != 1000-missed.Count {
		t.Errorf("%d events, the first is %d; told that %d are missed; %v", len(got), got[0], missed.Count, err)
	}
	if held := len(h.blocks) * blockSize; held > 4*blockSize || len(got) < 60 {
		t.Errorf("%d bytes hold %d events", held, len(got))
	}
}

// TestSlowReader is overtaken: it is told exactly how many events it missed.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	h := New(4 * blockSize)
	publish(h, 1, 10, 1000)
	s := subscribe(t, h, 1, nil)
	var e event.Event
	for range 5 {
		if err := s.Poll(&e); err != nil {
			t.Fatal(err)
		}
	}
	publish(h, 11, 1000, 1000)
	got, err := poll(s) // what it looked at stays until it lets go
	var missed *MissedError
	if !errors.As(err, &missed) || !missed.Slow {
		t.Fatalf("%v, %v", got, err)
	}
	oldest := h.oldest()
	if last := got[len(got)-1]; missed.Count != oldest-last-1 {
		t.Errorf("read to %d, the oldest is %d, told that %d are missed", last, oldest, missed.Count)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(1 << 20)
		s := subscribe(t, h, 0, nil)
		var e event.Event
		done := make(chan error)
		go func() { done <- s.Next(t.Context(), &e) }()
		synctest.Wait()
		publish(h, 1, 2, 10)
		if err := <-done; err != nil || e.Sequence != 1 {
			t.Fatalf("%v, %d", err, e.Sequence)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Next(t.Context(), &e); err != nil || e.Sequence != 2 {
			t.Errorf("what was there at the end: %v, %d", err, e.Sequence)
		}
		if err := s.Next(t.Context(), &e); err != io.EOF {
			t.Errorf("%v", err)
		}
	})
}

func TestNextEndsWithContext(t *testing.T) {
	t.Parallel()
	s := subscribe(t, New(1<<20), 0, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Next(ctx, new(event.Event)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTooMany(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	for range MaxSubscribers {
		subscribe(t, h, 0, nil)
	}
	if _, err := h.Subscribe(0, nil); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v", err)
	}
}

// TestConcurrent has readers that come and go under a writer: each sees rising numbers, and every step of more than one
// is a miss that it was told of.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	h := New(4 * blockSize)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for {
				s, err := h.Subscribe(0, nil)
				if err != nil {
					t.Error(err)
					return
				}
				var e event.Event
				var last uint64
				for err == nil {
					if err = s.Next(context.Background(), &e); err != nil {
						break
					}
					if last != 0 && e.Sequence != last+1 {
						t.Errorf("%d after %d", e.Sequence, last)
					}
					last = e.Sequence
				}
				s.Close()
				if err == io.EOF {
					return
				}
			}
		})
	}
	for n := uint64(1); n < 20000; n += 10 {
		publish(h, n, n+9, 300)
	}
	_ = h.Close(context.Background())
	readers.Wait()
	if h.subs != 0 {
		t.Errorf("%d readers are left", h.subs)
	}
	for i, b := range h.blocks {
		if b.refs != 0 {
			t.Errorf("block %d has %d references", i, b.refs)
		}
	}
}

// TestThousandWatchers holds the memory of slow readers (figures.md F91: at most 50 MiB for 1,000).
func TestThousandWatchers(t *testing.T) {
	h := New(1 << 20)
	publish(h, 1, 40, 1000)
	before := heap()
	var subs []*Subscriber
	for i := range 1000 {
		s := subscribe(t, h, 1, nil)
		var e event.Event
		err := s.Poll(&e)
		if errors.As(err, new(*MissedError)) {
			err = s.Poll(&e)
		}
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, s)
		publish(h, uint64(41+40*i), uint64(80+40*i), 1000) // it is overtaken while it looks at a block
	}
	grown := heap() - before
	t.Logf("the heap has grown by %d KiB", grown>>10)
	if grown > 50<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	runtime.KeepAlive(subs)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
