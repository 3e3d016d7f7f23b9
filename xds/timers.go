// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"container/heap"
	"time"

	"github.com/meshtap/meshtap/xds/graph"
)

// timers are the timers of the graph: one runtime timer for all of them, so that they fire in the loop and need no
// goroutines. The zero value has none.
type timers struct {
	due dueHeap
	// running holds the timers that were not stopped. One that was stays in due until its time.
	running map[graph.TimerID]struct{}
}

type due struct {
	id graph.TimerID
	at time.Time
}

func (t *timers) start(id graph.TimerID, at time.Time) {
	if t.running == nil {
		t.running = map[graph.TimerID]struct{}{}
	}
	t.running[id] = struct{}{}
	heap.Push(&t.due, due{id, at})
}

func (t *timers) stop(id graph.TimerID) { delete(t.running, id) }

// next returns a channel that is ready when the next timer runs out, nil where there is none, and a function that frees
// what is behind it.
func (t *timers) next(now time.Time) (<-chan time.Time, func()) {
	t.dropStopped()
	if len(t.due) == 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(t.due[0].at.Sub(now))
	return timer.C, func() { timer.Stop() }
}

// expired takes out the timers that have run out, in order.
func (t *timers) expired(now time.Time) []graph.TimerID {
	var out []graph.TimerID
	for t.dropStopped(); len(t.due) > 0 && !t.due[0].at.After(now); t.dropStopped() {
		id := heap.Pop(&t.due).(due).id
		delete(t.running, id)
		out = append(out, id)
	}
	return out
}

func (t *timers) dropStopped() {
	for len(t.due) > 0 {
		if _, ok := t.running[t.due[0].id]; ok {
			return
		}
		heap.Pop(&t.due)
	}
}

// dueHeap is a heap.Interface; timers of the same time keep the order of their start.
type dueHeap []due

// Len returns the number of timers.
func (h dueHeap) Len() int { return len(h) }

// Less orders by time, then by start.
func (h dueHeap) Less(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].id < h[j].id
}

// Swap exchanges two timers.
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push adds a due.
func (h *dueHeap) Push(x any) { *h = append(*h, x.(due)) }

// Pop takes the last one.
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
