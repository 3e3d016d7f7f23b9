// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// client is a downstream connection that a test plays.
type client struct {
	gone    atomic.Bool
	watched *socket.Worker
}

func (c *client) HungUp() bool                 { return c.gone.Load() }
func (c *client) WatchHangUp(w *socket.Worker) { c.watched = w }

// stream is a codec's stream of which only the head is looked at.
type stream struct {
	codec.ServerStream
	heads int
}

func (s *stream) Head(*socket.Worker, *codec.Response, bytebuf.Piece, bool) error {
	s.heads++
	return nil
}

func (s *stream) BeforeAnswer(x *Exchange) { x.Response.Header.AddString("x-before", "1") }

type job func(w *socket.Worker)

func (f job) Run(w *socket.Worker) { f(w) }

// on runs f with a new exchange on a worker, as its owner, and waits for it.
func on(t *testing.T, f func(x *Exchange, c *client)) {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	done := make(chan struct{})
	e.Go(job(func(w *socket.Worker) {
		defer close(done)
		x, c, s := &Exchange{}, &client{}, &stream{}
		x.Begin(w, mono.Now(), 1)
		x.Client, x.Stream, x.Downstream = c, s, s
		w.Own(x)
		f(x, c)
		w.SetDeadline(0)
		w.Own(nil)
	}))
	<-done
}

// why returns the reason to stop as text, "" for none.
func why(err error) string {
	var f *mesh.Failure
	if !errors.As(err, &f) {
		return ""
	}
	return fmt.Sprint(f.Kind, " ", f.Side)
}

// TestDeadlines: each deadline names its own failure when its time is over, and none before.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	for d, want := range []string{
		RequestDeadline: "request_timeout 2", TryDeadline: "per_try_timeout 2", TryIdleDeadline: "per_try_timeout 2", TryMaxDeadline: "max_duration 2",
		MaxDeadline: "max_duration 1", ReadDeadline: "request_read_timeout 1",
	} {
		if want == "" {
			continue // IdleDeadline moves: see TestIdle
		}
		on(t, func(x *Exchange, _ *client) {
			d := Deadline(d)
			x.After(d, time.Hour)
			if err := x.Interrupted(); err != nil {
				t.Errorf("deadline %d came at once: %v", d, err)
			}
			x.SetDeadline(d, mono.Now()-1)
			if got := why(x.Interrupted()); got != want {
				t.Errorf("deadline %d: %s, not %s", d, got, want)
			}
			x.ClearDeadline(d)
			if err := x.Interrupted(); err != nil {
				t.Errorf("deadline %d came although it was cleared: %v", d, err)
			}
			x.After(d, 0)
			if x.limits[d] != 0 {
				t.Errorf("deadline %d is set by no time", d)
			}
		})
	}
}

// TestIdle: the idle deadline moves with what flows, and blames whom it waits for.
func TestIdle(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, _ *client) {
		x.SetIdle(time.Hour)
		x.limits[IdleDeadline] = mono.Now() - 1 // the hour is over, but bytes moved just now
		if err := x.Interrupted(); err != nil || x.limits[IdleDeadline] <= mono.Now() {
			t.Errorf("%v, next at %d", err, x.limits[IdleDeadline])
		}
		x.active.Store(mono.Now() - int64(2*time.Hour))
		x.limits[IdleDeadline] = mono.Now() - 1
		if got := why(x.Interrupted()); got != "stream_idle_timeout 1" {
			t.Errorf("while the request comes: %s", got)
		}
		x.RequestRead()
		x.limits[IdleDeadline] = mono.Now() - 1
		if got := why(x.Interrupted()); got != "stream_idle_timeout 2" {
			t.Errorf("while the answer is waited for: %s", got)
		}
		if expired[IdleDeadline].Side != mesh.SideUpstream {
			t.Error("the table was changed")
		}
	})
}

// TestTimeoutsBeginWithTheEnd: the timeouts of the route and of the attempt run from the end of the request on, whichever
// worker reads it, and whichever comes first, the end or the timeout's being set.
func TestTimeoutsBeginWithTheEnd(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		on(t, func(x *Exchange, _ *client) {
			x.SetTimeout(time.Hour)
			x.SetTryTimeout(time.Minute)
			x.After(ReadDeadline, time.Hour)
			if x.limits[RequestDeadline] != 0 || x.limits[TryDeadline] != 0 {
				t.Error("a timeout runs while the request still comes")
			}
			if elsewhere {
				x.ReadElsewhere()
				if x.Outcome.RequestEnd >= 0 {
					t.Error("another worker wrote to the exchange")
				}
				if err := x.Interrupted(); err != nil {
					t.Error(err)
				}
			} else {
				x.RequestRead()
			}
			end := x.Start + x.Outcome.RequestEnd
			if x.limits[RequestDeadline] != end+int64(time.Hour) || x.limits[TryDeadline] != end+int64(time.Minute) || x.limits[ReadDeadline] != 0 {
				t.Errorf("elsewhere %v: %v from %d", elsewhere, x.limits, end)
			}
			x.SetTimeout(time.Second)
			if x.limits[RequestDeadline] != end+int64(time.Second) {
				t.Error("a timeout that is set later does not run from the end of the request")
			}
			x.SetTryTimeout(0)
			if x.limits[TryDeadline] != 0 {
				t.Error("the attempt's timeout is not turned off")
			}
			x.Settle()
			if got := x.Start + x.Outcome.RequestEnd; got != end {
				t.Error("the end was taken twice")
			}
		})
	}
}

// TestPrecedence: what another worker met comes first, then the client's going, then deadlines.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, c *client) {
		x.SetDeadline(RequestDeadline, mono.Now()-1)
		x.WatchClient()
		if c.watched != x.Worker {
			t.Error("the client is not watched")
		}
		c.gone.Store(true)
		if got := why(x.Interrupted()); got != "downstream_closed 1" {
			t.Errorf("got %s", got)
		}
		x.FailElsewhere(&mesh.Failure{Kind: mesh.DownstreamProtocolError})
		x.FailElsewhere(&mesh.Failure{Kind: mesh.InternalError})
		if got := why(x.Interrupted()); got != "downstream_protocol_error 0" {
			t.Errorf("got %s", got)
		}
		x.failed.Store(nil)
		x.IgnoreClient()
		if got := why(x.Interrupted()); got != "request_timeout 2" || c.watched != nil {
			t.Errorf("got %s", got)
		}
	})
	on(t, func(x *Exchange, c *client) {
		c.gone.Store(true) // it had closed its side with its request: it waits for the answer
		x.WatchClient()
		if err := x.Interrupted(); err != nil || c.watched != nil {
			t.Error(err)
		}
	})
}

// TestPause: a pause ends with its time, and at once where there is a reason to stop.
func TestPause(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, _ *client) {
		from := mono.Now()
		if err := x.Pause(2 * time.Millisecond); err != nil || mono.Now()-from < int64(2*time.Millisecond) {
			t.Errorf("%v after %d", err, mono.Now()-from)
		}
		x.After(MaxDeadline, time.Millisecond)
		if got := why(x.Pause(time.Hour)); got != "max_duration 1" {
			t.Errorf("got %s", got)
		}
	})
}

// TestBegin: nothing of a request is left for the next on the same exchange.
func TestBegin(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, _ *client) {
		x.After(MaxDeadline, time.Hour)
		x.SetIdle(time.Hour)
		x.SetTimeout(time.Hour)
		x.SetTryTimeout(time.Hour)
		x.RequestRead()
		x.IgnoreClient()
		x.FailElsewhere(&mesh.Failure{Kind: mesh.InternalError})
		x.ReadElsewhere()
		x.Answer(503, "x", []byte("body"))
		x.Request.Header.AddString("a", "b")
		x.Trailers = &header.List{}
		x.RequestBody, x.ResponseBody, x.IsGRPC = &x.own, &x.own, true
		x.Keep(2, "kept")
		for range 20 {
			x.AddTry(mesh.Try{Status: 503})
		}
		if n := len(x.Outcome.Tries); n != 16 {
			t.Errorf("%d tries are kept", n)
		}
		x.Begin(x.Worker, 42, 2)
		if x.limits != [numDeadlines]int64{} || x.Interrupted() != nil || x.Outcome.RequestEnd != -1 || x.IsLocal || x.Trailers != nil || len(x.Outcome.Tries) != 0 ||
			x.Response.Status != 0 || x.Request.Header.Len() != 0 || x.timeout != 0 || x.try != 0 || x.idle != 0 || x.Start != 42 || x.Outcome.Headers != mesh.Headers(x) ||
			x.RequestBody != nil || x.ResponseBody != nil || x.IsGRPC || x.Kept(2) != nil || x.Kept(9) != nil {
			t.Errorf("%+v", x)
		}
	})
}

// TestSend: what is sent of a body is counted, which for HEAD is nothing.
func TestSend(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int64{"GET": 4, "HEAD": 0} {
		on(t, func(x *Exchange, _ *client) {
			x.Request.Method = []byte(method)
			x.Answer(503, "why", []byte("body"))
			if err := x.SendLocal([]byte("body")); err != nil {
				t.Error(err)
			}
			if x.Outcome.BytesSent != want || x.Outcome.Status != 503 || x.Outcome.Details != "why" || !x.IsLocal || x.Stream.(*stream).heads != 1 ||
				string(x.Response.Header.AppendHTTP1(nil)) != "content-length: 4\r\ncontent-type: text/plain\r\nx-before: 1\r\n" {
				t.Errorf("%s: %+v %q", method, x.Outcome, x.Response.Header.AppendHTTP1(nil))
			}
		})
	}
}

// TestHeaders: what loggers look up by name.
func TestHeaders(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, _ *client) {
		q, r := &x.Request, &x.Response
		if x.ResponseHeader(":status") != nil || x.ResponseTrailer("x") != nil {
			t.Error("there is no answer yet")
		}
		q.Method, q.Path, q.Authority, q.Scheme = []byte("GET"), []byte("/p"), []byte("a:1"), []byte("http")
		q.Header.AddString("host", "was")
		q.Header.AddString("x-q", "1")
		r.Status = 207
		r.Header.AddString("x-r", "2")
		x.Trailers = &header.List{}
		x.Trailers.AddString("x-t", "3")
		for name, want := range map[string]string{":method": "GET", ":path": "/p", ":authority": "a:1", "host": "a:1", ":scheme": "http", "x-q": "1", ":other": "", "x-r": "", "": ""} {
			if got := string(x.RequestHeader(name)); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if a, b, c := string(x.ResponseHeader(":status")), string(x.ResponseHeader("x-r")), string(x.ResponseTrailer("x-t")); a != "207" || b != "2" || c != "3" {
			t.Errorf("%q %q %q", a, b, c)
		}
	})
}

// TestRandom: the numbers of a request differ from one another and from those of other requests, and the same seed gives
// the same.
func TestRandom(t *testing.T) {
	t.Parallel()
	on(t, func(x *Exchange, _ *client) {
		seen := map[uint64]bool{}
		var first [100]uint64
		for seed := range uint64(10) {
			x.Begin(x.Worker, 0, seed*1_000_003)
			for i := range first {
				n := x.Random()
				if seen[n] {
					t.Fatal("a number came twice")
				}
				seen[n] = true
				if seed == 0 {
					first[i] = n
				}
			}
		}
		x.Begin(x.Worker, 0, 0)
		for i := range first {
			if x.Random() != first[i] {
				t.Fatal("the same seed gave another number")
			}
		}
	})
}
