// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestHandOver: a stream's worker does not write for others for ever; what is left after a while another worker writes, and
// the end of the connection waits for that one.
func TestHandOver(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	s := newTarget(x, &cfg)
	frame := aFrame(frameData, 0, 1, string(make([]byte, 16<<10)))
	const many = 60
	x.do(func(w *socket.Worker) {
		if err := s.take(w, s.now); err != nil {
			t.Error(err)
		}
		s.c.out.Reset()
		s.mu.Lock()
		for range many {
			s.out.append(s.bufs, frame, false)
		}
		s.flush(w, false)
		if !s.out.flushing || s.out.empty() {
			t.Error("the worker wrote all of it")
		}
		for !s.out.empty() {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
		s.mu.Unlock()
		s.Close(w, NoError)
		if s.out.frames != 0 || len(s.out.bufs) != 0 {
			t.Errorf("%+v", s.out)
		}
	})
	if !bytes.HasPrefix(s.c.out.Bytes(), bytes.Repeat(frame, many)) {
		t.Errorf("%d bytes, or in another order", s.c.out.Len())
	}
}

// TestBlocked: a socket that is full is gone on with by the next turn, and one that has an edge while somebody writes, at
// once.
func TestBlocked(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	s := newTarget(x, &cfg)
	x.do(func(w *socket.Worker) {
		s.c.full = true
		if err := s.take(w, s.now, aFrame(framePing, 0, 0, "12345678")); err != nil {
			t.Error(err)
		}
		if !s.out.blocked || s.c.out.Len() != 0 || s.c.until == 0 {
			t.Errorf("%+v", s.out)
		}
		if err := s.take(w, s.now); err != nil || !s.out.blocked {
			t.Errorf("%v, %+v", err, s.out)
		}
		s.c.full = false
		if err := s.take(w, s.now); err != nil || s.out.blocked || s.c.out.Len() == 0 || !s.out.empty() {
			t.Errorf("%v, %+v", err, s.out)
		}
		s.mu.Lock()
		s.out.flushing = true // somebody writes
		s.resume()
		if !s.out.again {
			t.Error("an edge was lost")
		}
		s.endFlush()
		s.mu.Unlock()
		s.Close(w, NoError)
	})
}

// TestWords: errors and codes say what they are; what a stream counts is there to be asked.
func TestWords(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		errStalled:                               "h2: connection ended: ENHANCE_YOUR_CALM: the peer takes no bytes",
		&ConnError{Code: Code(99), Remote: true}: "h2: connection ended by the peer: UNKNOWN",
		&codec.ResetError{Code: uint32(Cancel), Remote: true}: "stream reset by the peer, code 8",
		&codec.ResetError{Code: uint32(InternalError)}:        "stream reset by this side, code 2",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	x := newWorld(t)
	cfg := Defaults()
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		if st.ID() != 1 || st.Request() != q || st.Started() || st.Received() == 0 || st.Trailers() != nil {
			t.Error("the stream is another")
		}
		_ = answer(w, st, 200, "x")
		if !st.Started() || st.Sent() == 0 {
			t.Error("the answer is not counted")
		}
	})
	c := x.dial(addr, &cfg)
	x.do(func(w *socket.Worker) {
		st, _ := c.Reserve()
		var r codec.Response
		if err := st.Call(w, request("GET", "/"), nil, &r); err != nil || st.ID() != 1 || c.Opened() != 1 {
			t.Errorf("%v, stream %d of %d", err, st.ID(), c.Opened())
		}
		st.Release()
	})
	c.Drain()
	if err := c.ended(t); err != ErrDrained {
		t.Error(err)
	}
}

// TestPreload: bytes that came before the server was made are those that come first.
func TestPreload(t *testing.T) {
	t.Parallel()
	in := append(append([]byte(Preface), aSettings...), aFrame(frameHeaders, 5, 1, string(aHead))...)
	for cut := range len(in) + 1 {
		x := newWorld(t)
		cfg := Defaults()
		var h hold
		var s Server
		s.Init(&memConn{open: true, in: in[cut:]}, &x.e.Bufs, &cfg, &h)
		b := x.e.Bufs.Get()
		b.Hi += copy(b.Free(), in[:cut])
		s.Preload(b)
		x.do(func(w *socket.Worker) {
			if err := s.Turn(w, 0); err != nil || len(h.held) != 1 {
				t.Errorf("%d bytes before: %v, %d streams", cut, err, len(h.held))
			}
			h.finish()
			s.Close(w, NoError)
		})
	}
}

// busyConn is a connection whose peer never pauses.
type busyConn struct {
	memConn
	reads func()
}

func (c *busyConn) TryRead(p []byte) (int, error) {
	c.reads()
	return c.memConn.TryRead(p)
}

// TestTurnsAreFair: a peer that sends without a pause does not keep the processor from the others.
func TestTurnsAreFair(t *testing.T) { // not parallel: it takes the process's other processors away
	x := newWorld(t)
	cfg := Defaults()
	unknown := aFrame(0x20, 0, 0, strings.Repeat("x", frameBytes))
	c := &busyConn{memConn: memConn{in: append([]byte(Preface), aSettings...), open: true}}
	c.in = append(c.in, bytes.Repeat(unknown, 100)...)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	x.do(func(w *socket.Worker) {
		var s Server
		s.Init(c, &x.e.Bufs, &cfg, &hold{})
		var ran atomic.Bool
		done := make(chan struct{})
		go func() { ran.Store(true); close(done) }()
		waited := 0
		c.reads = func() {
			if !ran.Load() {
				waited++
			}
		}
		if err := s.Turn(w, 0); err != nil {
			t.Error(err)
		}
		<-done
		if waited > 2 {
			t.Errorf("another goroutine waited for %d reads", waited)
		}
		s.Close(w, NoError)
	})
}
