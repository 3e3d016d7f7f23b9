// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// pattern is a body that differs at each place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// streamEcho sends back each piece as it comes, and the trailers.
func streamEcho(w *socket.Worker, st *ServerStream, _ *codec.Request) {
	if st.Head(w, &codec.Response{Status: 200, Length: codec.Unknown}, bytebuf.Piece{}, false) != nil {
		return
	}
	for {
		p, end, err := st.Next(w)
		if err != nil || st.Data(w, p, end) != nil || end {
			return
		}
	}
}

// settled waits until nothing is under way between two ends, and checks that both have the same idea of the windows.
func settled(t *testing.T, c *testClient, s *testServer) {
	t.Helper()
	type view struct{ send, recv int64 }
	look := func(c *conn) (v view, quiet bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		quiet = c.active == 0 && len(c.streams) == 0 && c.held == 0 && c.over == 0 && c.stalls == 0 && c.out.empty() && !c.out.flushing &&
			c.forRoom.head == nil && c.forWindow.head == nil
		return view{c.sendWindow, c.recvWindow}, quiet
	}
	for until := time.Now().Add(hang); ; runtime.Gosched() {
		cv, cq := look(&c.conn)
		sv, sq := look(&s.conn)
		if cq && sq && cv.send == sv.recv && cv.recv == sv.send {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("client %+v, %v; server %+v, %v", cv, cq, sv, sq)
		}
	}
}

// TestFlowRandom: many streams of random sizes both ways at once on one connection, sockets that hold almost nothing, users
// that are interrupted, give up, or read nothing for a while: every body is what it was, nobody hangs, nothing is lost
// of the windows.
func TestFlowRandom(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	x.small = true
	cfg := Defaults()
	cfg.StreamWindow, cfg.ConnWindow = 70000, 100000
	cfg.PrematureStreams, cfg.Resets, cfg.ResetBurst = 0, 1<<20, 1<<20
	addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		switch string(q.Path) {
		case "/drop":
			return
		case "/early":
			_ = answer(w, st, 200, "early")
		default:
			streamEcho(w, st, q)
		}
	})
	c := x.dial(addr, &cfg)
	s := <-servers
	rounds := 40
	var wg sync.WaitGroup
	var whole atomic.Int64
	for user := range 24 {
		wg.Add(1)
		x.e.Go(runFunc(func(w *socket.Worker) {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(user), 42))
			for range rounds {
				if randomExchange(t, w, c, r) {
					whole.Add(1)
				}
			}
		}))
	}
	waitFor(t, &wg)
	settled(t, c, s)
	if n := whole.Load(); n < int64(rounds) {
		t.Errorf("only %d exchanges were whole", n)
	}
}

var errStop = errors.New("stop")

// randomExchange makes one exchange of a random kind, and reports whether it was whole.
func randomExchange(t *testing.T, w *socket.Worker, c *testClient, r *rand.Rand) (whole bool) {
	st, ok := c.Reserve()
	if !ok {
		return false
	}
	path := []string{"/", "/", "/", "/", "/drop", "/early"}[r.IntN(6)]
	body := pattern(r.IntN(1 << (4 + r.IntN(15))))
	stop := r.IntN(4) == 0
	w.Own(ownerFunc(func() error {
		if stop {
			return errStop
		}
		return nil
	}))
	// Interrupts come at any time, also for nothing.
	timer := time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, w.Interrupt)
	defer timer.Stop()
	defer w.Own(nil)
	q := request("POST", path)
	var resp codec.Response
	var got []byte
	err := st.Call(w, q, body, &resp)
	for end := false; err == nil && !end; {
		var p bytebuf.Piece
		p, end, err = st.Next(w)
		got = append(got, p.Bytes()...)
		for range r.IntN(4) {
			runtime.Gosched()
		}
	}
	defer func() {
		if r.IntN(2) == 0 && err == nil {
			st.Release()
		} else {
			st.Abort()
		}
	}()
	var reset *codec.ResetError
	switch {
	case err == nil && path == "/" && !bytes.Equal(got, body):
		t.Errorf("%d bytes came of %d, or others", len(got), len(body))
	case err == nil:
		return path == "/"
	case errors.As(err, &reset) && path != "/", err == errStop && stop:
	default:
		t.Errorf("%s, %d bytes: %v", path, len(body), err)
	}
	return false
}

func waitFor(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * hang):
		buf := make([]byte, 1<<20)
		t.Fatalf("somebody hangs\n%s", buf[:runtime.Stack(buf, true)])
	}
}

// TestWakeUps: many workers on a few connections, small messages, so that they sleep and wake all the time. None sleeps
// for ever.
func TestWakeUps(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	x.small = true
	cfg := Defaults()
	addr, _ := x.listen(&cfg, streamEcho)
	var wg sync.WaitGroup
	for range 4 {
		c := x.dial(addr, &cfg)
		for user := range 32 {
			wg.Add(1)
			x.e.Go(runFunc(func(w *socket.Worker) {
				defer wg.Done()
				body := pattern(user * 100)
				for range 60 {
					st, ok := c.Reserve()
					if !ok {
						t.Error("no place")
						return
					}
					var r codec.Response
					err := st.Call(w, request("POST", "/"), body, &r)
					var got []byte
					if err == nil {
						got, err = readBody(w, st)
					}
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
					}
					st.Release()
				}
			}))
		}
	}
	waitFor(t, &wg)
}

// TestFullHouse: a client that has as many streams as it may all the time is never refused one.
func TestFullHouse(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
		_ = answer(w, st, 200, "x")
		for range 3 {
			runtime.Gosched() // there is something to do behind the answer
		}
	})
	c := x.dial(addr, &cfg)
	var wg sync.WaitGroup
	for range cfg.Streams {
		wg.Add(1)
		x.e.Go(runFunc(func(w *socket.Worker) {
			defer wg.Done()
			for range 50 {
				st, ok := c.Reserve()
				if !ok {
					t.Error("no place")
					return
				}
				var r codec.Response
				err := st.Call(w, request("GET", "/"), nil, &r)
				if err == nil {
					_, err = readBody(w, st)
				}
				if err != nil {
					t.Error(err)
				}
				st.Release()
			}
		}))
	}
	waitFor(t, &wg)
	settled(t, c, <-servers)
}

// TestStalledStreams: streams that nobody reads hold what their windows allow, and the others go on; where there are so
// many of them that they hold too much, the oldest are reset, and the others go on still.
func TestStalledStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ stalled, reset int }{{10, 0}, {40, 10}} {
		t.Run(fmt.Sprint(c.stalled), func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			cfg.StallGrace = 0
			release := make(chan struct{})
			var most atomic.Int64
			addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
				if string(q.Path) == "/stall" {
					<-release
					return
				}
				streamEcho(w, st, q)
			})
			cl := x.dial(addr, &cfg)
			s := <-servers
			var wg sync.WaitGroup
			var resets atomic.Int64
			for range c.stalled {
				st, _ := cl.Reserve()
				wg.Add(1)
				x.e.Go(runFunc(func(w *socket.Worker) {
					defer wg.Done()
					var r codec.Response
					err := st.Call(w, request("POST", "/stall"), pattern(1<<20), &r)
					var reset *codec.ResetError
					if errors.As(err, &reset) && Code(reset.Code) == EnhanceYourCalm && reset.Remote {
						resets.Add(1)
					}
					st.Abort()
				}))
			}
			for range 8 {
				x.do(func(w *socket.Worker) {
					st, _ := cl.Reserve()
					var r codec.Response
					if err := st.Call(w, request("POST", "/"), pattern(1<<20), &r); err != nil {
						t.Error(err)
					}
					if b, err := readBody(w, st); err != nil || len(b) != 1<<20 {
						t.Errorf("%d, %v", len(b), err)
					}
					st.Release()
					s.conn.mu.Lock()
					most.Store(max(most.Load(), int64(s.conn.held)))
					s.conn.mu.Unlock()
				})
			}
			close(release)
			waitFor(t, &wg)
			if n := resets.Load(); n < int64(c.reset) || c.reset == 0 && n != 0 {
				t.Errorf("%d streams were reset", n)
			}
			if n := most.Load(); n > int64(cfg.HeldBytes+cfg.ConnWindow) {
				t.Errorf("%d bytes were held", n)
			}
			settled(t, cl, s)
		})
	}
}

// TestHeldAndNobodyStalls: where too much is held and every stream is young, the peer waits; it goes on when somebody reads.
func TestHeldAndNobodyStalls(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.StallGrace, cfg.HeldBytes = time.Hour, 300<<10
	release := make(chan struct{})
	addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		<-release
		streamEcho(w, st, q)
	})
	cl := x.dial(addr, &cfg)
	s := <-servers
	var wg sync.WaitGroup
	for range 10 {
		st, _ := cl.Reserve()
		wg.Add(1)
		x.e.Go(runFunc(func(w *socket.Worker) {
			defer wg.Done()
			var r codec.Response
			err := st.Call(w, request("POST", "/"), pattern(1<<20), &r)
			b := []byte(nil)
			if err == nil {
				b, err = readBody(w, st)
			}
			if err != nil || len(b) != 1<<20 {
				t.Errorf("%d, %v", len(b), err)
			}
			st.Release()
		}))
	}
	held := func() int {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		if !s.conn.withheld {
			return 0
		}
		return s.conn.held
	}
	for held() == 0 {
		runtime.Gosched()
	}
	close(release)
	waitFor(t, &wg)
	settled(t, cl, s)
}

// TestSlowReader: a body of 32 MiB to a client that does not read is held back where it comes from (F39), whichever of
// the two does not read.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	const size = 32 << 20
	var sent atomic.Int64
	addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
		if st.Head(w, &codec.Response{Status: 200, Length: size}, bytebuf.Piece{}, false) != nil {
			return
		}
		piece := pattern(32 << 10)
		for n := 0; n < size; n += len(piece) {
			if st.Data(w, bytebuf.Of(piece), n+len(piece) == size) != nil {
				return
			}
			sent.Add(int64(len(piece)))
		}
	})
	cl := x.dial(addr, &cfg)
	s := <-servers
	x.do(func(w *socket.Worker) {
		st, _ := cl.Reserve()
		var r codec.Response
		if err := st.Call(w, request("GET", "/"), nil, &r); err != nil {
			t.Error(err)
		}
		stuck := func() bool {
			s.conn.mu.Lock()
			defer s.conn.mu.Unlock()
			return s.conn.stalls > 0 && s.conn.out.empty()
		}
		for !stuck() {
			runtime.Gosched()
		}
		if n := sent.Load(); n > int64(cfg.StreamWindow) {
			t.Errorf("%d bytes were taken", n)
		}
		n := 0
		for end := false; !end; {
			p, e, err := st.Next(w)
			if err != nil {
				t.Error(err)
				return
			}
			for i, c := range p.Bytes() {
				if at := (n + i) % (32 << 10); c != byte(at*7+at>>8) {
					t.Errorf("byte %d is another", n+i)
					return
				}
			}
			n += p.Len()
			end = e
		}
		if n != size {
			t.Errorf("%d bytes", n)
		}
		st.Release()
	})
	settled(t, cl, s)
}

// TestConnectionsDie: connections that end at any time, on either side, while many streams are busy on them: everyone is
// told, nobody hangs, nothing is written to a descriptor that is somebody else's by then.
func TestConnectionsDie(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	addr, servers := x.listen(&cfg, streamEcho)
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 30 {
		c := x.dial(addr, &cfg)
		s := <-servers
		var wg sync.WaitGroup
		for range 16 {
			wg.Add(1)
			x.e.Go(runFunc(func(w *socket.Worker) {
				defer wg.Done()
				for {
					st, ok := c.Reserve()
					if !ok {
						return
					}
					var resp codec.Response
					err := st.Call(w, request("POST", "/"), pattern(5000), &resp)
					if err == nil {
						_, err = readBody(w, st)
					}
					st.Release()
					if err != nil {
						return
					}
				}
			}))
		}
		until := mono.Now() + int64(r.IntN(20))*int64(time.Millisecond)
		for mono.Now() < until {
			runtime.Gosched()
		}
		switch round % 3 {
		case 0:
			s.quit()
		case 1:
			c.quit()
		default:
			s.Drain()
		}
		waitFor(t, &wg)
		c.quit()
		c.ended(t)
		s.ended(t)
	}
}
