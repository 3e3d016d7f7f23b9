// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/eventtap/event"
)

// change is a circuit's change as a proxy tells it.
func change(proxy, boot string, seq uint64, time int64, cluster, to string) *event.Event {
	e := &event.Event{}
	e.Reset(event.Circuit)
	e.Source, e.BootID, e.Sequence, e.Time = []byte(proxy), []byte(boot), seq, time
	e.ID = fmt.Appendf(nil, "%s-%d", boot, seq)
	e.Texts[event.Cluster], e.Texts[event.To] = []byte(cluster), []byte(to)
	return e
}

func TestState(t *testing.T) {
	t.Parallel()
	const old, new = "ffffffffffffffff60000000", "000000000000000060000001"
	for _, c := range []struct {
		name    string
		resolve Resolve
		events  []*event.Event
		want    []Verdict
	}{
		{"a clock that goes back", LastWriter, []*event.Event{change("p", old, 1, 5, "x", "open"), change("q", old, 1, 4, "x", "closed"),
			change("p", new, 1, 3, "x", "half_open")}, []Verdict{Newer, Stale, Moved}},
		{"a request has no state", PerWriter, []*event.Event{sequenced("a", 1)}, []Verdict{Stateless}},
		{"in order", PerWriter, []*event.Event{change("p", old, 1, 1, "x", "open"), change("p", old, 2, 2, "x", "closed")}, []Verdict{Newer, Newer}},
		{"out of order", PerWriter, []*event.Event{change("p", old, 2, 2, "x", "closed"), change("p", old, 1, 1, "x", "open")}, []Verdict{Newer, Stale}},
		{"twice", PerWriter, []*event.Event{change("p", old, 1, 1, "x", "open"), change("p", old, 1, 1, "x", "open")}, []Verdict{Newer, Stale}},
		{"of different things", PerWriter, []*event.Event{change("p", old, 2, 2, "x", "open"), change("p", old, 1, 1, "y", "open")}, []Verdict{Newer, Newer}},
		{"a later boot", PerWriter, []*event.Event{change("p", new, 1, 1, "x", "closed"), change("p", old, 9, 9, "x", "open")}, []Verdict{Newer, Stale}},
		{"two proxies", PerWriter, []*event.Event{change("p", old, 2, 2, "x", "open"), change("q", new, 1, 1, "x", "closed")}, []Verdict{Newer, Newer}},
		{"the last of two proxies", LastWriter, []*event.Event{change("p", old, 2, 2, "x", "open"), change("q", new, 1, 1, "x", "closed")}, []Verdict{Newer, Stale}},
		{"at the same time", LastWriter, []*event.Event{change("p", old, 1, 1, "x", "open"), change("q", new, 1, 1, "x", "closed")}, []Verdict{Newer, Newer}},
		{"at the same time, the other way", LastWriter, []*event.Event{change("q", new, 1, 1, "x", "closed"), change("p", old, 1, 1, "x", "open")}, []Verdict{Newer, Stale}},
		{"both differ", Both, []*event.Event{change("p", old, 1, 1, "x", "open"), change("q", new, 1, 9, "x", "closed"), change("p", old, 2, 2, "x", "closed")}, []Verdict{Newer, Conflict, Newer}},
	} {
		s := NewState(c.resolve)
		for i, e := range c.events {
			if got := s.Take(e); got != c.want[i] {
				t.Errorf("%s: event %d is %d, want %d", c.name, i+1, got, c.want[i])
			}
		}
	}
}

// TestStateConverges: in whatever order events come, and however often, the last that counts of each thing is the same.
func TestStateConverges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var events []*event.Event
		for p := range 3 {
			now := int64(0)
			for b := range 2 {
				boot := fmt.Sprintf("%016x%08x", rnd.Uint64(), 100+b)
				for n := range 1 + rnd.IntN(6) {
					now += int64(rnd.IntN(3))
					events = append(events, change(fmt.Sprint("p", p), boot, uint64(n+1), now,
						fmt.Sprint("c", rnd.IntN(2)), []string{"open", "closed", "half_open"}[rnd.IntN(3)]))
				}
			}
		}
		for name, fresh := range map[string]func() *State{
			"each its own": func() *State { return NewState(PerWriter) },
			"the last":     func() *State { return NewState(LastWriter) },
			"a rule":       func() *State { return NewStateBy(worst) },
		} {
			want := ""
			for round := range 20 {
				s, last := fresh(), map[string]string{}
				for _, i := range append(rnd.Perm(len(events)), rnd.Perm(len(events))...) {
					e := events[i]
					key := string(e.Texts[event.Cluster])
					if s.rule == nil {
						key += string(e.Source)
					}
					switch s.Take(e) {
					case Newer, Moved:
						w, ok := s.Counts(e)
						if !ok {
							t.Fatalf("seed %d: %s counts for nothing", seed, e.ID)
						}
						last[key] = fmt.Sprint(w)
					case Conflict:
						delete(last, key)
					}
				}
				if got := fmt.Sprint(last); round == 0 {
					want = got
				} else if got != want {
					t.Fatalf("seed %d, %s: %s, and in another order %s", seed, name, got, want)
				}
			}
		}
	}
}

// worst is a rule of a user: an open circuit counts before others, the latest of them; where all are closed and two do not
// agree on the version, nothing counts.
func worst(words []Word) int {
	at := -1
	for i, w := range words {
		if w.To == "open" && (at < 0 || w.Time > words[at].Time) {
			at = i
		}
	}
	if at < 0 && !slices.ContainsFunc(words, func(w Word) bool { return w.Version != words[0].Version }) {
		return 0
	}
	return at
}

// TestRule: what a user's rule chooses counts, and each event is told what it makes of it.
func TestRule(t *testing.T) {
	t.Parallel()
	const boot = "000000000000000060000001"
	s := NewStateBy(worst)
	versioned := change("q", boot, 3, 30, "x", "closed")
	versioned.Texts[event.Version] = []byte("7")
	for i, c := range []struct {
		e      *event.Event
		want   Verdict
		counts string // source and what it says; "" where nothing counts
	}{
		{sequenced("a", 1), Stateless, ""},
		{change("p", boot, 1, 1, "x", "closed"), Newer, "p closed"},
		{change("q", boot, 1, 2, "x", "open"), Newer, "q open"},
		{change("p", boot, 2, 3, "x", "closed"), Stale, "q open"},
		{change("p", boot, 3, 4, "x", "open"), Newer, "p open"},
		{change("p", boot, 4, 5, "x", "closed"), Moved, "q open"},
		{change("p", boot, 3, 4, "x", "open"), Stale, "q open"},
		{change("p", boot, 5, 6, "y", "closed"), Newer, "p closed"},
		{change("q", boot, 2, 7, "x", "closed"), Moved, "p closed"},
		{versioned, Conflict, ""},
		{change("q", boot, 4, 40, "x", "closed"), Moved, "p closed"},
	} {
		if got := s.Take(c.e); got != c.want {
			t.Errorf("event %d is %d, want %d", i, got, c.want)
		}
		w, ok := s.Counts(c.e)
		if got := strings.TrimSpace(w.Source + " " + w.To); got != c.counts || ok != (got != "") {
			t.Errorf("after event %d %q counts, want %q", i, got, c.counts)
		}
	}
	if w, ok := NewState(PerWriter).Counts(versioned); ok {
		t.Errorf("a State that knows nothing says %+v", w)
	}
}

func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	s := NewState(PerWriter)
	for n := range maxKeys + 100 {
		s.Take(change("p", "b", 1, 1, strconv.Itoa(n), "open"))
	}
	if len(s.keys) > maxKeys || s.n > maxKeys {
		t.Errorf("%d things are known", len(s.keys))
	}
}
