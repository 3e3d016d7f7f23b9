// SPDX-License-Identifier: Apache-2.0

package source

import "sync"

// lowWater turns messages that are handled in any order into marks below which everything is handled, for buses that know
// no others.
type lowWater[T any] struct {
	done func(T) // called with the last of those below the mark

	mu   sync.Mutex
	open []*handled[T] // in order
}

type handled[T any] struct {
	v    T
	done bool
}

// add takes the next message, and returns what says that it was handled.
func (l *lowWater[T]) add(v T) func() {
	h := &handled[T]{v: v}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, h)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		h.done = true
		n := 0
		for n < len(l.open) && l.open[n].done {
			n++
		}
		if n > 0 {
			last := l.open[n-1].v
			l.open = append(l.open[:0], l.open[n:]...)
			l.done(last)
		}
	}
}
