// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"fmt"
	"math/rand/v2"
	"strconv"
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
						fmt.Sprint("c", rnd.IntN(2)), fmt.Sprint(rnd.IntN(4))))
				}
			}
		}
		for _, resolve := range []Resolve{PerWriter, LastWriter} {
			want := ""
			for round := range 20 {
				s, last := NewState(resolve), map[string]string{}
				for _, i := range append(rnd.Perm(len(events)), rnd.Perm(len(events))...) {
					if e := events[i]; s.Take(e) == Newer {
						key := string(e.Texts[event.Cluster])
						if resolve == PerWriter {
							key += string(e.Source)
						}
						last[key] = string(e.ID)
					}
				}
				if got := fmt.Sprint(last); round == 0 {
					want = got
				} else if got != want {
					t.Fatalf("seed %d: %s, and in another order %s", seed, got, want)
				}
			}
		}
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
