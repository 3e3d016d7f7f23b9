// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/proc"
)

// script answers requests on loopback as a proxy would, one at a time over all connections. It moves the generator's clock.
type script struct {
	net.Listener
	clock  atomic.Int64
	answer func(n int, c net.Conn) (keep bool) // n counts requests from 0
	n      atomic.Int64
}

func (s *script) serve(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.connection(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

// connection answers until its peer goes.
func (s *script) connection(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		length := 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				length, _ = strconv.Atoi(strings.TrimSpace(v))
			}
			if line == "\r\n" {
				break
			}
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return
		}
		if !s.answer(int(s.n.Add(1)-1), c) {
			return
		}
	}
}

const ok = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"

func say(c net.Conn, text string) bool {
	_, err := c.Write([]byte(text))
	return err == nil
}

func (s *script) job(t *testing.T) Job {
	return Job{Target: s.serve(t), Host: "svc-a.mesh.local", Path: "/", Conns: 1, Body: 5, Measure: 10 * time.Second}
}

func run(t *testing.T, s *script, j Job) (Result, *hdrhistogram.Histogram) {
	t.Helper()
	r, err := Run(t.Context(), j, Deps{Now: s.clock.Load})
	if err != nil {
		t.Fatal(err)
	}
	h, err := hdrhistogram.Decode(r.Latency)
	if err != nil {
		t.Fatal(err)
	}
	return r, h
}

func above(h *hdrhistogram.Histogram, d time.Duration) (n int64) {
	for _, b := range h.Distribution() {
		if b.From > int64(d) {
			n += b.Count
		}
	}
	return n
}

// A proxy that stops for 4 s at 10 requests a second delays 40 requests, not one.
func TestOpenLoopCountsFromTheDueTime(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.answer = func(n int, c net.Conn) bool {
		now := s.clock.Load() + int64(time.Millisecond)
		if n == 20 {
			now += int64(4 * time.Second)
		}
		// Nothing else happens until the next slot.
		s.clock.Store(max(now, int64(n+1)*int64(100*time.Millisecond)))
		return say(c, ok)
	}
	j := s.job(t)
	j.Rate = 10
	r, h := run(t, s, j)
	if r.Errors+r.Bad != 0 {
		t.Fatalf("%d errors, %d bad: %s", r.Errors, r.Bad, r.First)
	}
	if n := above(h, 500*time.Millisecond); n < 30 || n > 40 {
		t.Errorf("%d requests waited for more than half a second; about 36 were due while the proxy stopped", n)
	}
	if r.Requests < 95 || r.Requests > 101 {
		t.Errorf("%d requests in 10 s at 10 a second", r.Requests)
	}
}

// Without a rate there is one request at a time on each connection, and the stop is seen once.
func TestClosedLoopSendsWhenTheAnswerCame(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.answer = func(n int, c net.Conn) bool {
		s.clock.Add(int64(100 * time.Millisecond))
		if n == 20 {
			s.clock.Add(int64(4 * time.Second))
		}
		return say(c, ok)
	}
	r, h := run(t, s, s.job(t))
	if n := above(h, time.Second); n != 1 {
		t.Errorf("%d requests took more than a second, want 1", n)
	}
	if r.Requests < 50 || r.Requests > 61 || r.Errors+r.Bad != 0 {
		t.Errorf("%+v", r)
	}
}

func TestWarmUpDoesNotCount(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.answer = func(n int, c net.Conn) bool {
		s.clock.Add(int64(100 * time.Millisecond))
		return say(c, ok)
	}
	j := s.job(t)
	j.Warm, j.Measure = 5*time.Second, 2*time.Second
	r, _ := run(t, s, j)
	if r.Requests < 18 || r.Requests > 21 {
		t.Errorf("%d requests in 2 s at 100 ms each", r.Requests)
	}
	if r.Seconds < 2 || r.Seconds > 2.2 {
		t.Errorf("a window of %v s by the clock of the test", r.Seconds)
	}
}

func TestAnswersThatDoNotCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		answer     string
		keep       bool
		bad, error bool
	}{
		{"another status", "HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\nhello", true, true, false},
		{"a short body", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhell", true, true, false},
		{"two answers", ok + ok, true, true, false},
		{"no HTTP", "hello\r\n\r\n", true, true, false},
		{"nothing", "", false, false, true},
		{"half", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", false, false, true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\na: b\r\n\r\n", true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &script{}
			s.answer = func(n int, c net.Conn) bool {
				s.clock.Add(int64(time.Second))
				return say(c, tt.answer) && tt.keep
			}
			r, _ := run(t, s, s.job(t))
			if (r.Bad > 0) != tt.bad || (r.Errors > 0) != tt.error {
				t.Errorf("%+v", r)
			}
			if good := r.Requests > 0; good == (tt.bad || tt.error) {
				t.Errorf("%d requests counted", r.Requests)
			}
			if (r.First != "") != (tt.bad || tt.error) {
				t.Errorf("the account is %q", r.First)
			}
		})
	}
}

func TestChurnOpensAConnectionForEachRequest(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.answer = func(n int, c net.Conn) bool {
		s.clock.Add(int64(100 * time.Millisecond))
		say(c, ok)
		return false
	}
	j := s.job(t)
	j.Churn, j.Conns = true, 4
	r, _ := run(t, s, j)
	if r.Requests < 80 || r.Errors+r.Bad != 0 {
		t.Errorf("%+v", r)
	}
}

func TestUploadsArriveWhole(t *testing.T) {
	t.Parallel()
	s := &script{}
	s.answer = func(n int, c net.Conn) bool {
		s.clock.Add(int64(100 * time.Millisecond))
		return say(c, ok)
	}
	j := s.job(t)
	j.Upload = 4 << 20 // more than a socket holds
	r, _ := run(t, s, j)
	if r.Requests < 80 || r.Errors+r.Bad != 0 {
		t.Errorf("%+v", r)
	}
}

func TestIdleKeepsConnectionsUntilTold(t *testing.T) {
	t.Parallel()
	s := &script{answer: func(_ int, c net.Conn) bool { return say(c, ok) }}
	j := s.job(t)
	j.Idle, j.Conns = true, 300
	ready := 0
	r, err := Run(t.Context(), j, Deps{Ready: func() { ready++ }})
	if err != nil || ready != 1 || r.Errors+r.Bad != 0 {
		t.Errorf("ready %d times: %v %+v", ready, err, r)
	}
	if n := s.n.Load(); n != 300 {
		t.Errorf("%d requests on 300 connections", n)
	}
}

// The generator's own upstreams answer what the generator's clients ask, each client directly here.
func TestUpstreamsAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	var clock atomic.Int64
	now := func() int64 { return clock.Add(int64(time.Millisecond)) }
	j := Job{
		Target: at, Upstreams: []netip.AddrPort{at}, Host: "h", Path: "/", Conns: 8, Body: 300 << 10, Upload: 100 << 10,
		Measure: 5 * time.Second, Watch: proc.Open("/proc").Self(),
	}
	r, err := Run(t.Context(), j, Deps{Now: now, Proc: proc.Open("/proc")})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests == 0 || r.Errors+r.Bad != 0 || r.Connections[0] != 8 || r.Answers[0] < r.Requests {
		t.Errorf("%+v", r)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := Job{Target: netip.MustParseAddrPort("127.0.0.1:1"), Conns: 1, Measure: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Job){
		"no target":           func(j *Job) { j.Target = netip.AddrPort{} },
		"IPv6":                func(j *Job) { j.Target = netip.MustParseAddrPort("[::1]:1") },
		"no connections":      func(j *Job) { j.Conns = 0 },
		"too many":            func(j *Job) { j.Conns = 10001 },
		"no window":           func(j *Job) { j.Measure = 0 },
		"churn with a rate":   func(j *Job) { j.Churn, j.Rate = true, 1 },
		"an upstream of v6":   func(j *Job) { j.Upstreams = []netip.AddrPort{netip.MustParseAddrPort("[::1]:1")} },
		"streams of HTTP/1.1": func(j *Job) { j.Streams = 2 },
		"too many streams":    func(j *Job) { j.Down, j.Streams = HTTP2, 1001 },
		"churn in HTTP/2":     func(j *Job) { j.Down, j.Churn = HTTP2, true },
		"gRPC over HTTP/1.1":  func(j *Job) { j.Down, j.GRPC = HTTP2, true },
		"TLS with HTTP/1.1":   func(j *Job) { j.TLS = true },
		"streams, no calls":   func(j *Job) { j.Down, j.Up, j.Streaming = HTTP2, HTTP2, true },
		"held, and not idle":  func(j *Job) { j.Up, j.Held = HTTP2, true },
		"held by HTTP/1.1":    func(j *Job) { j.Idle, j.Held = true, true },
		"a negative upload":   func(j *Job) { j.Upload = -1 },
		"a negative request":  func(j *Job) { j.Rate = -1 },
	} {
		j := good
		if spoil(&j); j.Validate() == nil {
			t.Errorf("%s: it was accepted", name)
		}
	}
}

// Messages are the same whatever pieces they come in.
func TestMessageInPieces(t *testing.T) {
	t.Parallel()
	text := []byte("HTTP/1.1 200 OK\r\nConnection: Close\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n" +
		"GET / HTTP/1.1\r\nhost: a\r\n\r\n" + "HTTP/1.1 404 Not Found\r\nCONTENT-LENGTH: 3\r\n\r\nabc")
	type seen struct {
		status int
		body   int64
		close  bool
	}
	want := []seen{{200, 10, true}, {0, 0, false}, {404, 3, false}}
	for size := 1; size <= len(text); size++ {
		var m message
		var got []seen
		for piece := range slices.Chunk(text, size) {
			for len(piece) > 0 {
				n, done, err := m.feed(piece)
				if err != nil {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				if done {
					got = append(got, seen{m.status, m.body, m.close})
				}
				piece = piece[n:]
			}
		}
		if len(got) != len(want) {
			t.Fatalf("pieces of %d: %v", size, got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("pieces of %d: %v", size, got)
			}
		}
	}
}

func TestMessageCostsNothing(t *testing.T) {
	j := Job{Body: 1024, Host: "svc-a.mesh.local", Path: "/api"}
	b := j.response()
	var m message
	if n := testing.AllocsPerRun(100, func() { _, _, _ = m.feed(b) }); n != 0 {
		t.Errorf("%v allocations for an answer", n)
	}
}

func BenchmarkMessage(b *testing.B) {
	j := Job{Body: 1024, Host: "svc-a.mesh.local", Path: "/api"}
	text := j.response()
	var m message
	for b.Loop() {
		_, _, _ = m.feed(text)
	}
}
