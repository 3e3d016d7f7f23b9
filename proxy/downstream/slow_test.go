// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// stall calls more until it reports nothing new often enough: what flows has come to a stop then. It returns the amount.
func stall(t *testing.T, moved *atomic.Int64) int64 {
	t.Helper()
	last, same := int64(-1), 0
	for deadline := time.Now().Add(hang); same < 20; time.Sleep(10 * time.Millisecond) {
		if n := moved.Load(); n != last {
			last, same = n, 0
		} else {
			same++
		}
		if time.Now().After(deadline) {
			t.Fatal("the flow does not come to a stop")
		}
	}
	return last
}

// TestSlowReader: a client that does not read stops the upstream, with no more in between than the kernel's buffers and
// one of ours; and gets everything when it does read (F39).
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	var moved atomic.Int64
	block := strings.Repeat("0123456789abcdef", 1<<12)
	r := start(t, setup{
		routes: []*mesh.Route{forwarded()}, sendBuffer: 64 << 10,
		backend: func(p *peer) {
			p.head()
			p.SetWriteBuffer(64 << 10)
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
			for left := size; left > 0; left -= len(block) {
				if _, err := io.WriteString(p.TCPConn, block); err != nil {
					t.Error(err)
					return
				}
				moved.Add(int64(len(block)))
			}
			p.rest()
		},
	})
	c := r.dial()
	c.SetReadBuffer(64 << 10)
	c.send(last)
	if h := c.head(); statusOf(h) != "200" {
		t.Fatalf("got %q", h)
	}
	if n := stall(t, &moved); n > 32<<20 {
		t.Errorf("%d bytes left the upstream for a client that does not read", n)
	}
	if n := r.engine.Bufs.InUse(); invariant.On && n > 4 {
		t.Errorf("%d buffers are in use for one exchange", n)
	}
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if o := r.wait(1)[0]; o.BytesSent != size || o.Flags != 0 {
		t.Errorf("%d bytes, %s", o.BytesSent, o.Flags)
	}
}

// TestSlowUpstream: the same for an upload that the upstream does not read.
func TestSlowUpstream(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	read := make(chan struct{})
	r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: func(p *peer) {
		p.SetReadBuffer(64 << 10)
		p.head()
		<-read
		n, err := io.CopyN(io.Discard, p, size)
		if err != nil {
			t.Errorf("after %d bytes: %v", n, err)
		}
		p.send(ok)
	}})
	c := r.dial()
	c.SetWriteBuffer(64 << 10)
	var moved atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", size))
		block := strings.Repeat("0123456789abcdef", 1<<12)
		for left := size; left > 0; left -= len(block) {
			if _, err := io.WriteString(c.TCPConn, block); err != nil {
				t.Error(err)
				return
			}
			moved.Add(int64(len(block)))
		}
	}()
	if n := stall(t, &moved); n > 32<<20 {
		t.Errorf("%d bytes left the client for an upstream that does not read", n)
	}
	if n := r.engine.Bufs.InUse(); invariant.On && n > 4 {
		t.Errorf("%d buffers are in use for one exchange", n)
	}
	close(read)
	if got := c.rest(); !strings.HasSuffix(got, "\r\n\r\nok") {
		t.Errorf("got %q", got)
	}
	<-done
	if o := r.wait(1)[0]; o.BytesReceived != size || o.Flags != 0 {
		t.Errorf("%d bytes, %s", o.BytesReceived, o.Flags)
	}
}

// TestSlowReaderTimesOut: a client that never reads does not hold the exchange longer than the idle timeout.
func TestSlowReaderTimesOut(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{StreamIdleTimeout: 500 * time.Millisecond},
		routes:  []*mesh.Route{forwarded()}, sendBuffer: 16 << 10, backend: endless,
	})
	c := r.dial()
	c.SetReadBuffer(16 << 10)
	c.send(get)
	if o := r.wait(1)[0]; o.Failure != mesh.StreamIdleTimeout || o.Status != 200 {
		t.Errorf("%d %s %s", o.Status, o.Failure, o.Details)
	}
	r.waitConns(0)
}

// TestSlowloris: many connections that drip a head hold no buffer and no goroutine, do not keep others from being served,
// and are closed at their deadline, which dripping does not move (F47).
func TestSlowloris(t *testing.T) {
	t.Parallel()
	const n = 200
	r := start(t, setup{manager: mesh.HTTPManager{RequestHeadersTimeout: 500 * time.Millisecond}, routes: []*mesh.Route{direct("/", 200, "ok")}})
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range n {
		c := r.dial()
		c.send("GET / HTTP/1.1\r\nHo")
		conns = append(conns, c)
	}
	r.waitConns(n)
	if got := r.ask(last); !strings.HasSuffix(got, "ok") {
		t.Errorf("got %q", got)
	}
	if g := runtime.NumGoroutine() - before; g > n {
		t.Errorf("%d goroutines more for %d connections", g, n)
	}
	for i := 0; r.conns() > 0 && i < 1000; i++ {
		for _, c := range conns {
			io.WriteString(c, "s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	o := r.wait(n + 1)
	if len(o) != n+1 {
		t.Errorf("%d outcomes", len(o))
	}
	for _, o := range o {
		if o.Status != 200 && o.Status != 408 && o.Status != 431 {
			t.Errorf("%d %s", o.Status, o.Details)
		}
	}
	if r.conns() > 0 {
		t.Error("dripping keeps connections open")
	}
}
