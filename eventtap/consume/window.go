// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"slices"

	"github.com/meshtap/meshtap/eventtap/event"
)

const (
	// WindowSize is how far behind the newest event of a boot a repeat is known, in events.
	WindowSize = 16 << 10
	// maxBoots bounds how many runs of proxies are followed at a time.
	maxBoots = 4096
	// maxIDs bounds the ids of events without a sequence that are remembered: twice this.
	maxIDs = 4096
)

// Window tells which events came before, by boot and sequence. What is more than WindowSize behind the newest of its boot
// counts as new, because losing it would be worse than having it twice. One goroutine uses it.
type Window struct {
	boots map[string]*seen
	order []string // the boots by when they were first seen, to forget the oldest
	// ids are those of events without a sequence, which are lost events.
	ids, before map[string]struct{}
}

// seen is a bit for each of the last WindowSize sequences, up to top.
type seen struct {
	top  uint64
	bits [WindowSize / 64]uint64
}

// NewWindow returns a window that has seen nothing.
func NewWindow() *Window {
	return &Window{boots: map[string]*seen{}, ids: map[string]struct{}{}}
}

// Repeated takes note of an event, and reports whether it came before.
func (w *Window) Repeated(e *event.Event) bool {
	if e.Sequence == 0 || len(e.BootID) == 0 {
		return w.repeatedID(string(e.ID))
	}
	s := w.boots[string(e.BootID)]
	if s == nil {
		if len(w.order) == maxBoots {
			delete(w.boots, w.order[0])
			w.order = slices.Delete(w.order, 0, 1)
		}
		s = &seen{}
		w.boots[string(e.BootID)], w.order = s, append(w.order, string(e.BootID))
	}
	return s.take(e.Sequence)
}

func (s *seen) take(n uint64) bool {
	if n > s.top {
		if n-s.top >= WindowSize {
			s.bits = [WindowSize / 64]uint64{}
		} else {
			for i := s.top + 1; i < n; i++ {
				s.bits[i/64%(WindowSize/64)] &^= 1 << (i % 64)
			}
		}
		s.top = n
		s.bits[n/64%(WindowSize/64)] |= 1 << (n % 64)
		return false
	}
	if s.top-n >= WindowSize {
		return false
	}
	word, bit := &s.bits[n/64%(WindowSize/64)], uint64(1)<<(n%64)
	was := *word&bit != 0
	*word |= bit
	return was
}

func (w *Window) repeatedID(id string) bool {
	if _, ok := w.ids[id]; ok {
		return true
	}
	if _, ok := w.before[id]; ok {
		return true
	}
	if len(w.ids) == maxIDs {
		w.before, w.ids = w.ids, map[string]struct{}{}
	}
	w.ids[id] = struct{}{}
	return false
}
