// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"sync"
	"syscall"

	"github.com/meshtap/meshtap/proxy/socket"
)

// group is connections that are drained and ended together. The zero value is ready.
type group struct {
	mu sync.Mutex
	// Guarded by mu.
	first   *conn
	n       int
	retired bool
}

// add reports false where the group takes no more.
func (g *group) add(x *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return false
	}
	x.group, x.prev, x.next = g, nil, g.first
	if g.first != nil {
		g.first.prev = x
	}
	g.first = x
	g.n++
	return true
}

// remove takes x out; it does nothing where x is in no group.
func (g *group) remove(x *conn) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		g.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	x.group, x.prev, x.next = nil, nil, nil
	g.n--
}

// end marks a connection whose descriptor is about to be closed; it does nothing where x is in no group.
func (g *group) end(x *conn) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	x.ended = true
}

func (g *group) isEmpty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n == 0
}

// retire lets no more connections in.
func (g *group) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retired = true
}

// kick makes the handlers look at Draining. One that does not know the engine yet will be looked after by who starts it.
func (g *group) kick() {
	g.mu.Lock()
	var all []*socket.Conn
	for x := g.first; x != nil; x = x.next {
		if x.started.Load() {
			all = append(all, x.c)
		}
	}
	g.mu.Unlock()
	for _, c := range all {
		c.Look()
	}
}

// hangUp shuts the connections down, so that their handlers find them closed by the client. Descriptors are valid while
// the lock is held: who closes one calls end before.
func (g *group) hangUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := g.first; x != nil; x = x.next {
		if !x.ended {
			syscall.Shutdown(x.c.FD(), syscall.SHUT_RDWR)
		}
	}
}
