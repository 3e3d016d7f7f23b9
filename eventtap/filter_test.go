// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/internal/invariant"
)

func compiled(t testing.TB, text string) *filter.Filter {
	t.Helper()
	f, err := filter.NewCompiler().Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFilter runs filters through a whole tap: what they leave out is counted and makes no gap, its attempts neither; what
// fields and redact hide they see.
func TestFilter(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	deps := testDeps()
	cfg := Config{Sinks: []SinkConfig{sinkOf("a", s)}, Policy: Policy{Filter: compiled(t, `http.response.status_code >= 500`)}, Memory: DefaultMemory}
	cfg.Modes[event.Attempt] = DropNewest
	hidden := &Policy{Filter: compiled(t, `meshtap.request_id == "kept" && id != "" && source.startsWith("/meshtap/")`), Mask: Mask{Limited: true}}
	cfg.Selections = []Selection{
		{Cluster: "hidden", Policy: hidden},
		{Cluster: "all", Policy: &Policy{}},
		{Cluster: "failing", Policy: &Policy{Filter: compiled(t, `1 / http.request.resend_count == 1`)}},
	}
	tap, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	want := 0
	observe := func(cluster string, status, attempts int, id string, kept bool) {
		o := outcomeOf(cluster, 1)
		o.Status, o.Attempts, o.RequestID = status, attempts, []byte(id)
		tap.Observe(o)
		if kept {
			want += 1 + attempts
		}
	}
	for i := range n {
		observe("plain", 200, 1, "", false)
		observe("plain", 503, 1, "", true)
		observe("hidden", 503, 0, "kept", true)
		observe("hidden", 503, 0, "other", false)
		observe("all", 200, 0, "", true)
		observe("failing", 200, 1, "", false)
		if i%200 == 0 {
			pace(t, tap)
		}
	}
	a := endTap(t, tap, 5*time.Second)
	if got := len(s.events(t)); got != want || a.Dropped[Filtered] != n*(2+1+2) || a.Produced != uint64(want+n*5) {
		t.Errorf("%d events of %d; %+v", got, want, a)
	}
	for i, e := range s.events(t) {
		if e.Sequence != uint64(i+1) || e.StreamSeq != e.Sequence {
			t.Fatalf("a gap: %s", e.AppendJSON(nil))
		}
		if string(e.Subject) == "hidden" && len(e.Texts[event.RequestID]) > 0 {
			t.Fatalf("what is hidden is told: %s", e.AppendJSON(nil))
		}
	}
	a.check(t)
}

// TestFilterErrors: an expression that cannot be evaluated leaves the event out, and that is counted apart.
func TestFilterErrors(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	tap := newTap(t, Config{Policy: Policy{Filter: compiled(t, `1 / http.request.resend_count == 1`)}}, s)
	failed := tap.skipped
	for range 3 {
		tap.Observe(outcomeOf("x", 1))
	}
	waitFor(t, tap)
	if got := failed.Value(tapFilterErrors); got != 3 {
		t.Errorf("%d errors", got)
	}
	endTap(t, tap, 5*time.Second)
}

// TestFilterQueue: each record finds its own filter, also where chunks are used again.
func TestFilterQueue(t *testing.T) {
	t.Parallel()
	a, b := compiled(t, "true"), compiled(t, "false")
	q := queue{pool: newPool(4*chunkSize, 0)}
	var items []item
	put := func(f *filter.Filter, text string) {
		q.mu.Lock()
		q.commitFiltered(copy(q.room(maxRing, false), text), f)
		q.mu.Unlock()
	}
	for range 20 {
		for i := range 100 {
			put([]*filter.Filter{nil, a, b}[i%3], strings.Repeat("nab"[i%3:i%3+1], 200))
		}
		for taken := 0; taken < 100; {
			items = q.next(items[:0], 7)
			for _, it := range items {
				if want := map[byte]*filter.Filter{'n': nil, 'a': a, 'b': b}[it.b[0]]; it.filter != want {
					t.Fatalf("a record %q has the filter %v", it.b[0], it.filter)
				}
			}
			taken += len(items)
			q.mu.Lock()
			q.release()
			q.mu.Unlock()
		}
	}
}

func TestObserveWithFilterDoesNotAllocate(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	tap := still(t)
	o := sampleOutcome()
	o.Policy = &Policy{Filter: compiled(t, "false")}
	for range 2 {
		fillRings(tap, o) // which takes the memory that the rings keep
		for tap.round() {
		}
	}
	if n := testing.AllocsPerRun(100, func() { tap.Observe(o) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
	}
}
