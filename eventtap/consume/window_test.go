// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/meshtap/meshtap/eventtap/event"
)

// sequenced returns an event with a sequence of a boot.
func sequenced(boot string, n uint64) *event.Event {
	e := numbered(boot, n)
	e.Sequence = n
	return e
}

// TestWindowModel compares the window with a set, for events that come in any order within it.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	w, model := NewWindow(), map[string]bool{}
	top := map[string]uint64{"a": 1, "b": 1}
	for range 200_000 {
		boot := []string{"a", "b"}[rnd.IntN(2)]
		n := top[boot]
		switch rnd.IntN(10) {
		case 0:
			n += uint64(rnd.IntN(WindowSize / 2)) // a gap
		case 1, 2, 3:
			n -= min(uint64(rnd.IntN(WindowSize)), n-1)
		default:
			n++
		}
		top[boot] = max(top[boot], n)
		key := fmt.Sprint(boot, n)
		if got := w.Repeated(sequenced(boot, n)); got != model[key] {
			t.Fatalf("%s came before: %v, want %v", key, got, model[key])
		}
		model[key] = true
	}
}

// TestWindowIsBounded: what is far behind counts as new, lost events are known by their ids, and nothing grows without end.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	w := NewWindow()
	w.Repeated(sequenced("a", 1))
	w.Repeated(sequenced("a", WindowSize))
	if !w.Repeated(sequenced("a", 1)) {
		t.Error("the first of the window is forgotten")
	}
	w.Repeated(sequenced("a", WindowSize+1))
	for range 2 {
		if w.Repeated(sequenced("a", 1)) {
			t.Error("what is behind the window is taken for a repeat")
		}
	}
	w.Repeated(sequenced("a", 10*WindowSize))
	if w.Repeated(sequenced("a", 10*WindowSize-1)) {
		t.Error("what was skipped is taken for a repeat")
	}
	for n := range 3 * maxIDs {
		e := lostUpTo("a", 1, uint64(n))
		e.ID = []byte(strconv.Itoa(n))
		if w.Repeated(e) || !w.Repeated(e) {
			t.Fatalf("the lost event %d", n)
		}
	}
	for n := range maxBoots + 10 {
		w.Repeated(sequenced(strconv.Itoa(n), 1))
	}
	if len(w.boots) > maxBoots || len(w.order) > maxBoots || len(w.ids)+len(w.before) > 2*maxIDs {
		t.Errorf("%d boots, %d ids", len(w.boots), len(w.ids)+len(w.before))
	}
}
