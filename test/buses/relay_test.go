// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"net"
	"sync"
	"testing"
	"time"
)

// relay is the network between a sink and its broker, which can fail: it refuses, carries nothing, or is slow.
type relay struct {
	ln    net.Listener
	to    string
	pipes sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	conns map[net.Conn]bool
	cut   bool          // connections are closed as soon as they come
	stall chan struct{} // closed when bytes are carried again; nil while they are
	rate  int           // bytes a second of each connection to the broker; 0 is no limit
}

// startRelay carries connections from a port of the loopback to an address, until the test ends.
func startRelay(t *testing.T, port, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to, conns: map[net.Conn]bool{}}
	r.pipes.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.refuse()
		r.carry()
		r.pipes.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

// refuse closes all connections, and those that come.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		c.Close()
	}
}

// partition carries nothing more, and closes nothing.
func (r *relay) partition() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stall = make(chan struct{})
}

// carry ends a partition.
func (r *relay) carry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stall != nil {
		close(r.stall)
		r.stall = nil
	}
}

// slow has each connection carry so many bytes a second to the broker; 0 is as fast as it goes.
func (r *relay) slow(rate int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = rate
}

// heal ends everything that is wrong.
func (r *relay) heal() {
	r.carry()
	r.slow(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

func (r *relay) accept() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.pipes.Go(func() { r.connect(c) })
	}
}

func (r *relay) connect(c net.Conn) {
	defer c.Close()
	b, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer b.Close()
	r.mu.Lock()
	if r.cut {
		r.mu.Unlock()
		return
	}
	r.conns[c], r.conns[b] = true, true
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pipe(b, c, true) })
	both.Go(func() { r.pipe(c, b, false) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	delete(r.conns, b)
}

// pipe carries bytes in one direction, and ends both when one ends.
func (r *relay) pipe(to, from net.Conn, inwards bool) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 4<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		stall, rate := r.stall, r.rate
		r.mu.Unlock()
		if stall != nil {
			<-stall
		}
		if inwards && rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate)) // it is what is slow, and waits for nothing
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
