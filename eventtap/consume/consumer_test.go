// SPDX-License-Identifier: Apache-2.0

package consume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
)

// bus is a source in memory.
type bus struct {
	messages []*consume.Message
	end      error // what comes after them; nil is the end
	follow   bool
}

func (b *bus) Read(ctx context.Context, each func(*consume.Message) error) error {
	for _, m := range b.messages {
		if err := each(m); err != nil {
			return err
		}
	}
	if b.follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.end
}

func (*bus) Close() error { return nil }

// put adds a message of events.
func (b *bus) put(done func(), events ...*event.Event) {
	m := &consume.Message{Type: event.TypeJSONBatch, Data: []byte("["), Done: done}
	for i, e := range events {
		if i > 0 {
			m.Data = append(m.Data, ',')
		}
		m.Data = e.AppendJSON(m.Data)
	}
	m.Data = append(m.Data, ']')
	b.messages = append(b.messages, m)
}

// request returns the n-th event of a run, with a key.
func request(n uint64, key string) *event.Event {
	e := &event.Event{}
	e.Reset(event.Request)
	e.ID, e.Source, e.BootID = fmt.Appendf(nil, "boot-%d", n), []byte("/meshtap/web"), []byte("boot")
	e.PartitionKey, e.Sequence, e.StreamSeq = []byte(key), n, n
	e.Time = int64(n)
	return e
}

func TestNext(t *testing.T) {
	t.Parallel()
	var b bus
	var acked atomic.Int64
	done := func() { acked.Add(1) }
	b.put(done, request(1, "a"), request(2, "b"))
	b.put(done, request(2, "b"), request(1, "a")) // a repeat
	b.messages = append(b.messages, &consume.Message{Data: []byte("nonsense"), Done: done})
	b.put(nil, request(5, "a"), request(6, "c"))
	yes, err := filter.NewCompiler().Compile(`partitionkey != "c"`)
	if err != nil {
		t.Fatal(err)
	}
	var gaps []consume.Gap
	c := consume.New(&b, consume.Options{Filter: yes, Gap: func(g consume.Gap) { gaps = append(gaps, g) }})
	defer c.End()
	var got []string
	for {
		d, err := c.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(d.ID))
		d.Done()
	}
	want := consume.Counts{Events: 3, Missing: 2, Repeated: 2, Unselected: 1, Unreadable: 1}
	if fmt.Sprint(got) != "[boot-1 boot-2 boot-5]" || c.Counts() != want || acked.Load() != 3 {
		t.Errorf("%v, %+v, %d messages are done", got, c.Counts(), acked.Load())
	}
	if len(gaps) != 1 || gaps[0].From != 3 || gaps[0].To != 4 || gaps[0].Count != 2 {
		t.Errorf("%+v", gaps)
	}
}

// TestNextEnds: End joins the reading where it is, and what was not handled stays with the bus.
func TestNextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bus{follow: true}
		var acked atomic.Int64
		for n := range uint64(1000) {
			b.put(func() { acked.Add(1) }, request(n+1, "a"))
		}
		c := consume.New(&b, consume.Options{})
		d, err := c.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.Done()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2000 { // what waits may come before the end of its context is seen
			if _, err = c.Next(ctx); err != nil {
				break
			}
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after its context: %v", err)
		}
		c.End()
		if acked.Load() != 1 {
			t.Errorf("%d messages are done", acked.Load())
		}
	})
}

// TestRun: events of one key are handled one after the other and in order, those of others beside them, and a message is
// done when all of it is.
func TestRun(t *testing.T) {
	t.Parallel()
	var b bus
	var acked atomic.Int64
	const n, keys = 5000, 37
	for i := uint64(1); i <= n; i += 2 {
		b.put(func() { acked.Add(1) }, request(i, fmt.Sprint(i%keys)), request(i+1, fmt.Sprint((i+1)%keys)))
	}
	var mu sync.Mutex
	last, busy := map[string]uint64{}, map[string]bool{}
	c := consume.New(&b, consume.Options{})
	err := c.Run(t.Context(), 8, func(_ context.Context, e consume.Event) error {
		key := string(e.PartitionKey)
		mu.Lock()
		if busy[key] || last[key] >= e.Sequence {
			t.Errorf("%s: %d after %d, busy %v", key, e.Sequence, last[key], busy[key])
		}
		busy[key] = true
		mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		busy[key], last[key] = false, e.Sequence
		return nil
	})
	if err != nil || acked.Load() != n/2 || c.Counts().Events != n {
		t.Errorf("%v, %d messages are done, %+v", err, acked.Load(), c.Counts())
	}
}

// TestRunRetries: a handler gets an event again, its lane waits, and what is given up ends Run or goes to Dead.
func TestRunRetries(t *testing.T) {
	t.Parallel()
	failed := errors.New("no")
	for _, c := range []struct {
		name     string
		attempts int
		dead     bool
		fails    int
		want     string
		err      error
		acked    int64
	}{
		{"once", 0, false, 1, "1 2", failed, 1},
		{"again", 3, false, 2, "1 2 2 2 3", nil, 3},
		{"given up", 2, false, 9, "1 2 2", failed, 1},
		{"dead", 2, true, 9, "1 2 2 dead 3", nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var b bus
				var acked atomic.Int64
				for n := uint64(1); n <= 3; n++ {
					b.put(func() { acked.Add(1) }, request(n, "a"))
				}
				var got bytes.Buffer
				opt := consume.Options{Attempts: c.attempts}
				if c.dead {
					opt.Dead = func(consume.Event, error) error { got.WriteString(" dead"); return nil }
				}
				fails := c.fails
				err := consume.New(&b, opt).Run(t.Context(), 4, func(_ context.Context, e consume.Event) error {
					fmt.Fprintf(&got, " %d", e.Sequence)
					if e.Sequence == 2 && fails > 0 {
						fails--
						return failed
					}
					return nil
				})
				if got.String() != " "+c.want || !errors.Is(err, c.err) || acked.Load() != c.acked {
					t.Errorf("%s, %v, %d messages are done", got.String(), err, acked.Load())
				}
			})
		})
	}
}

// TestStale: with a State, what is older than what came is left out.
func TestStale(t *testing.T) {
	t.Parallel()
	circuit := func(n uint64, to string) *event.Event {
		e := request(n, "a")
		e.Kind = event.Circuit
		e.Texts[event.Cluster], e.Texts[event.To] = []byte("a"), []byte(to)
		return e
	}
	var b bus
	b.put(nil, circuit(2, "closed"), circuit(1, "open"), request(3, "a"))
	c := consume.New(&b, consume.Options{State: consume.NewState(consume.PerWriter)})
	var got []uint64
	err := c.Run(t.Context(), 1, func(_ context.Context, e consume.Event) error {
		got = append(got, e.Sequence)
		return nil
	})
	if err != nil || fmt.Sprint(got) != "[2 3]" || c.Counts().Stale != 1 {
		t.Errorf("%v, %v, %+v", got, err, c.Counts())
	}
}

// TestConflict: with a State, an event says what it is, and what counts.
func TestConflict(t *testing.T) {
	t.Parallel()
	circuit := func(source string, n uint64, to string) *event.Event {
		e := request(n, "a")
		e.Kind, e.Source, e.BootID, e.ID = event.Circuit, []byte(source), []byte(source), fmt.Appendf(nil, "%s-%d", source, n)
		e.Texts[event.Cluster], e.Texts[event.To] = []byte("a"), []byte(to)
		return e
	}
	open := func(words []consume.Word) int {
		return slices.IndexFunc(words, func(w consume.Word) bool { return w.To == "open" }) // none is a conflict
	}
	for _, c := range []struct {
		name  string
		state *consume.State
		want  string
	}{
		{"both", consume.NewState(consume.Both), "p-1 Newer open, q-1 Conflict -, p-2 Newer closed, "},
		{"a rule", consume.NewStateBy(open), "p-1 Newer open, p-2 Conflict -, "},
		{"none", nil, "p-1 Stateless -, q-1 Stateless -, p-2 Stateless -, "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b bus
			b.put(nil, circuit("p", 1, "open"), circuit("q", 1, "closed"), circuit("p", 2, "closed"))
			var got strings.Builder
			names := map[consume.Verdict]string{consume.Stateless: "Stateless", consume.Newer: "Newer", consume.Conflict: "Conflict", consume.Moved: "Moved"}
			err := consume.New(&b, consume.Options{State: c.state}).Run(t.Context(), 1, func(_ context.Context, e consume.Event) error {
				counts := "-"
				if e.Counts != nil {
					counts = e.Counts.To
				}
				fmt.Fprintf(&got, "%s %s %s, ", e.ID, names[e.Verdict], counts)
				return nil
			})
			if err != nil || got.String() != c.want {
				t.Errorf("%v, got %s, want %s", err, &got, c.want)
			}
		})
	}
}

// TestJoin: a message in the binary content mode is the event that it was.
func TestJoin(t *testing.T) {
	t.Parallel()
	b, err := consume.Join(map[string]string{"specversion": "1.0", "id": "b-1", "source": "/meshtap/web", "type": "io.meshtap.outcome.v1",
		"time": "2026-11-22T08:00:00Z", "sequence": "0000000001", "sampledrate": "4", "bootid": "b"}, []byte(`{"http.response.status_code":503}`))
	if err != nil {
		t.Fatal(err)
	}
	e, err := consume.DecodeLine(b)
	if err != nil || e.Kind != event.Request || e.SampledRate != 4 || e.Numbers[event.Status] != 503 || e.Sequence != 1 {
		t.Errorf("%s: %+v, %v", b, e.Event, err)
	}
	if _, err := consume.Join(map[string]string{"sampledrate": "x"}, nil); err == nil {
		t.Error("a rate that is no number was taken")
	}
	if _, err := consume.Join(map[string]string{"id": "1"}, []byte("{")); err == nil {
		t.Error("data that is no JSON was taken")
	}
}

// Example is a program that stores what is new, in order for each service.
func Example() {
	var src bus // source.Open(ctx, "kafka://127.0.0.1:9092", source.Options{Topics: []string{"events"}, Follow: true})
	src.put(nil, request(1, "payments"), request(2, "payments"), request(2, "payments"), request(4, "payments"))
	c := consume.New(&src, consume.Options{Gap: func(g consume.Gap) { fmt.Printf("%d missing, from number %d\n", g.Count, g.From) }})
	err := c.Run(context.Background(), 16, func(_ context.Context, e consume.Event) error {
		fmt.Printf("%s: %s\n", e.PartitionKey, e.ID)
		return nil
	})
	fmt.Printf("%d events, %d came twice, %v\n", c.Counts().Events, c.Counts().Repeated, err)
	// Unordered output:
	// payments: boot-1
	// payments: boot-2
	// payments: boot-4
	// 1 missing, from number 3
	// 3 events, 1 came twice, <nil>
}
