// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"slices"
	"sync"

	"github.com/meshtap/meshtap/proxy/socket"
)

// DefaultHandshakes bounds the handshakes with clients that are under way in a process: each holds a goroutine.
const DefaultHandshakes = 1000

// Gate bounds the handshakes under way. Who does not get in waits without a goroutine, in order.
type Gate struct {
	mu    sync.Mutex
	free  int
	queue []*Place // as long as there are connections, which the listener bounds
}

// NewGate returns a gate that lets n through at a time.
func NewGate(n int) *Gate { return &Gate{free: n} }

// Place is a connection's place at the gate. The zero value has none.
type Place struct {
	c            *socket.Conn
	held, queued bool // guarded by Gate.mu
}

// Enter takes a place for a connection, and reports whether it may go through. If not, the connection's handler is called
// once it may, and asks again.
func (g *Gate) Enter(p *Place, c *socket.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.held:
	case p.queued:
		return false
	case g.free == 0:
		p.c, p.queued = c, true
		g.queue = append(g.queue, p)
		return false
	default:
		g.free--
		p.held = true
	}
	return true
}

// Leave gives the place up, in whatever state it is.
func (g *Gate) Leave(p *Place) {
	g.mu.Lock()
	var next *Place
	switch {
	case p.held:
		g.free++
		if len(g.queue) > 0 {
			next = g.queue[0]
			g.queue = slices.Delete(g.queue, 0, 1)
			g.free--
			next.queued, next.held = false, true
		}
	case p.queued:
		g.queue = slices.DeleteFunc(g.queue, func(o *Place) bool { return o == p })
	}
	p.held, p.queued = false, false
	g.mu.Unlock()
	if next != nil {
		next.c.Look()
	}
}
