// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// hang is how long anything may take before a test calls it a hang.
const hang = 20 * time.Second

// world is an engine and what runs on it. Its end checks that nothing is left.
type world struct {
	t testing.TB
	e *socket.Engine

	small bool // sockets hold almost nothing

	mu    sync.Mutex
	conns sync.WaitGroup
	ln    net.Listener
	all   []*end
}

func newWorld(t testing.TB) *world {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, e: e}
	t.Cleanup(w.close)
	return w
}

func (x *world) close() {
	if x.ln != nil {
		x.ln.Close()
	}
	x.mu.Lock()
	for _, e := range x.all {
		e.quit()
	}
	x.mu.Unlock()
	x.conns.Wait()
	x.e.Close()
	if n := x.e.Bufs.InUse(); n != 0 && invariant.On {
		x.t.Errorf("%d buffers are left", n)
	}
}

// turner is either role.
type turner interface {
	Turn(w *socket.Worker, now int64) error
	Close(w *socket.Worker, code Code)
	SetExpire(t int64)
	Streams() int
}

// end is one end of a connection: what the proxy's own handlers do.
type end struct {
	x    *world
	r    turner
	skew int64 // what is added to the time
	stop bool
	why  error
	gone chan struct{}
	mu   sync.Mutex
}

func (e *end) Ready(w *socket.Worker, c *socket.Conn) bool {
	c.Expired()
	e.mu.Lock()
	stop, skew := e.stop, e.skew
	e.mu.Unlock()
	if stop {
		e.r.Close(w, NoError)
		return false
	}
	if err := e.r.Turn(w, mono.Now()+skew); err != nil {
		e.mu.Lock()
		e.why = err
		e.mu.Unlock()
		return false
	}
	return true
}

func (e *end) Closed(*socket.Conn) {
	close(e.gone)
	e.x.conns.Done()
}

// quit makes the end close its connection.
func (e *end) quit() {
	e.mu.Lock()
	e.stop = true
	e.mu.Unlock()
	e.r.SetExpire(1)
}

// later makes a turn come that believes it is so much later.
func (e *end) later(d time.Duration) {
	e.mu.Lock()
	e.skew += int64(d)
	e.mu.Unlock()
	e.r.SetExpire(1)
}

// ended waits for the connection's end and returns why it came.
func (e *end) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-e.gone:
	case <-time.After(hang):
		t.Fatal("the connection does not end")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.why
}

// testServer accepts streams and runs serve for each on a worker.
type testServer struct {
	Server
	end
	serve   func(w *socket.Worker, st *ServerStream, q *codec.Request)
	taken   []*ServerStream // the turn's
	mu2     sync.Mutex
	places  map[*ServerStream]*place
	free    []*place
	dropped []string
}

// place is what a proxy keeps for a stream.
type place struct {
	ServerStream
	q codec.Request
	s *testServer
}

var errGone = errors.New("the stream's client has gone")

// Interrupted implements socket.Owner.
func (p *place) Interrupted() error {
	if p.HungUp() {
		return errGone
	}
	return nil
}

func (s *testServer) Open() (*ServerStream, *codec.Request) {
	s.mu2.Lock()
	defer s.mu2.Unlock()
	var p *place
	if n := len(s.free); n > 0 {
		p, s.free = s.free[n-1], s.free[:n-1]
	} else {
		p = &place{s: s}
		if s.places == nil {
			s.places = map[*ServerStream]*place{}
		}
		s.places[&p.ServerStream] = p
	}
	return &p.ServerStream, &p.q
}

func (s *testServer) place(st *ServerStream) *place {
	s.mu2.Lock()
	defer s.mu2.Unlock()
	return s.places[st]
}

func (s *testServer) put(p *place) {
	s.mu2.Lock()
	s.free = append(s.free, p)
	s.mu2.Unlock()
}

func (s *testServer) Serve(st *ServerStream) { s.taken = append(s.taken, st) }

func (s *testServer) HandOut(w *socket.Worker) {
	for _, st := range s.taken {
		w.Go(s.place(st))
	}
	s.taken = s.taken[:0]
}

// Run implements socket.Runner.
func (p *place) Run(w *socket.Worker) {
	w.Own(p)
	p.WatchHangUp(w)
	p.s.serve(w, &p.ServerStream, &p.q)
	p.WatchHangUp(nil)
	p.Finish()
	p.s.put(p)
}

func (s *testServer) Refused() {}

func (s *testServer) Drop(st *ServerStream, why string) {
	s.put(s.place(st))
	s.mu2.Lock()
	s.dropped = append(s.dropped, why)
	s.mu2.Unlock()
}

// listen starts to accept; each connection is served by serve. The returned channel gives the servers.
func (x *world) listen(cfg *Config, serve func(w *socket.Worker, st *ServerStream, q *codec.Request)) (addr string, servers chan *testServer) {
	x.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		x.t.Fatal(err)
	}
	x.ln = ln
	servers = make(chan *testServer, 1024)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			servers <- x.adopt(nc, cfg, serve)
		}
	}()
	return ln.Addr().String(), servers
}

func (x *world) adopt(nc net.Conn, cfg *Config, serve func(w *socket.Worker, st *ServerStream, q *codec.Request)) *testServer {
	f, err := nc.(*net.TCPConn).File()
	if err != nil {
		x.t.Error(err)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		x.t.Error(err)
	}
	syscall.SetNonblock(fd, true)
	f.Close()
	nc.Close()
	s := &testServer{serve: serve, end: end{x: x, gone: make(chan struct{})}}
	s.end.r = &s.Server
	c := x.e.Adopt(fd, &s.end)
	s.Init(c, c.Bufs(), cfg, s)
	x.shrink(c)
	x.started(&s.end)
	if err := c.Start(true); err != nil {
		x.t.Error(err)
	}
	return s
}

func (x *world) started(e *end) {
	x.conns.Add(1)
	x.mu.Lock()
	x.all = append(x.all, e)
	x.mu.Unlock()
}

func (x *world) shrink(c *socket.Conn) {
	if x.small {
		syscall.SetsockoptInt(c.FD(), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096)
	}
}

// testClient is a Client on a connection.
type testClient struct {
	Client
	end
	capacity chan struct{} // one place
	draining chan struct{}
}

func (c *testClient) Capacity(*Client) {
	select {
	case c.capacity <- struct{}{}:
	default:
	}
}

func (c *testClient) Draining(*Client) { close(c.draining) }

func (x *world) dial(addr string, cfg *Config) *testClient {
	x.t.Helper()
	c := &testClient{end: end{x: x, gone: make(chan struct{})}, capacity: make(chan struct{}, 1), draining: make(chan struct{})}
	c.end.r = &c.Client
	sc, err := x.e.DialConn(context.Background(), &socket.Dialer{Timeout: hang}, "tcp", addr, &c.end)
	if err != nil {
		x.t.Fatal(err)
	}
	c.Init(sc, sc.Bufs(), cfg, c)
	x.shrink(sc)
	x.started(&c.end)
	if err := sc.Start(true); err != nil {
		x.t.Fatal(err)
	}
	return c
}

// do runs f on a worker and waits for it.
func (x *world) do(f func(w *socket.Worker)) {
	x.t.Helper()
	done := make(chan struct{})
	x.e.Go(runFunc(func(w *socket.Worker) {
		defer close(done)
		f(w)
	}))
	select {
	case <-done:
	case <-time.After(hang):
		x.t.Error("hangs")
		panic("hangs")
	}
}

type runFunc func(w *socket.Worker)

func (f runFunc) Run(w *socket.Worker) { f(w) }

// request makes a request.
func request(method, path string, fields ...string) *codec.Request {
	q := &codec.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("example.com"), Path: []byte(path)}
	for i := 0; i < len(fields); i += 2 {
		q.Header.AddString(fields[i], fields[i+1])
	}
	return q
}

// readBody reads a body to its end.
func readBody(w *socket.Worker, b codec.Body) (out []byte, err error) {
	for {
		p, end, err := b.Next(w)
		out = append(out, p.Bytes()...)
		if end || err != nil {
			return out, err
		}
	}
}

// answer sends an answer with a body.
func answer(w *socket.Worker, st *ServerStream, status int, body string) error {
	r := &codec.Response{Status: status, Length: int64(len(body))}
	r.Header.AddString("content-type", "text/plain")
	return st.Head(w, r, bytebuf.Of([]byte(body)), true)
}
