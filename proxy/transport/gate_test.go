// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"testing"

	"github.com/meshtap/meshtap/proxy/socket"
)

// queued counts how often it is called.
type queued struct{ ready, closed chan struct{} }

func (q *queued) Ready(*socket.Worker, *socket.Conn) bool {
	q.ready <- struct{}{}
	return true
}

func (q *queued) Closed(*socket.Conn) { close(q.closed) }

// TestGate lets as many through as it may, the others in order, and forgets those that leave.
func TestGate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := NewGate(1)
	var places [4]Place
	var handlers [4]*queued
	var conns [4]*socket.Conn
	for i := range conns {
		far, fd := r.pair()
		defer far.Close()
		handlers[i] = &queued{make(chan struct{}, 10), make(chan struct{})}
		conns[i] = r.engine.Adopt(fd, handlers[i])
		if err := conns[i].Start(false); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for i := range conns {
		if got := g.Enter(&places[i], conns[i]); got != (i == 0) {
			t.Fatalf("place %d: entered %v", i, got)
		}
	}
	if !g.Enter(&places[0], conns[0]) || g.Enter(&places[1], conns[1]) {
		t.Error("asking again changes the answer")
	}
	g.Leave(&places[1]) // it hung up while it waited
	g.Leave(&places[0])
	r.wait("the news", handlers[2].ready)
	if !g.Enter(&places[2], conns[2]) || g.Enter(&places[3], conns[3]) {
		t.Error("the wrong one may enter")
	}
	g.Leave(&places[2])
	g.Leave(&places[2])
	r.wait("the news", handlers[3].ready)
	g.Leave(&places[3])
	if g.free != 1 || len(g.queue) != 0 || len(handlers[1].ready) != 0 {
		t.Errorf("%d places are free, %d wait", g.free, len(g.queue))
	}
}
