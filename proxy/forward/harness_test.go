// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// hang is how long a test waits for what must come.
const hang = 20 * time.Second

// rig is a router over clusters whose hosts are played by scripts. The downstream side of its exchanges is in memory.
type rig struct {
	t        testing.TB
	engine   *socket.Engine
	dials    *pool.Dials
	reg      *stats.Registry
	router   *Router
	clusters map[string]*upstream.Cluster
	numbers  *metrics.HTTP
	runtime  mesh.RuntimeValues // of the clusters that are added
}

func (r *rig) Cluster(name string) *upstream.Cluster { return r.clusters[name] }
func (r *rig) Notify(*mesh.Notice)                   {}

func newRig(t testing.TB, opts mesh.Router) *rig {
	engine, err := socket.NewEngine(socket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: engine, dials: pool.NewDials(), reg: stats.NewRegistry(stats.Options{}), clusters: map[string]*upstream.Cluster{}}
	r.numbers = metrics.NewHTTP(r.reg, "in", "l")
	r.router = New(opts, r.numbers, &format.Env{})
	t.Cleanup(func() {
		for _, c := range r.clusters {
			c.Close()
		}
		r.dials.Close()
		engine.Close()
		if n := engine.Bufs.InUse(); n != 0 {
			t.Errorf("%d buffers are left in use", n)
		}
	})
	return r
}

// add makes a cluster over these addresses; change may be nil.
func (r *rig) add(name string, change func(*mesh.Cluster), addrs ...string) *upstream.Cluster {
	lim := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	set := &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{}}}
	for _, a := range addrs {
		set.Localities[0].Endpoints = append(set.Localities[0].Endpoints, mesh.Endpoint{
			Address: mesh.Address{IP: netip.MustParseAddrPort(a)}, Hostname: "host-" + a, Weight: 1,
		})
	}
	cfg := &mesh.Cluster{
		Name: name, Discovery: mesh.Static, Endpoints: set, ConnectTimeout: 5 * time.Second,
		Policy: mesh.Extension{TypeURL: lb.RoundRobinType, Config: lb.DefaultRoundRobin()}, Limits: [2]mesh.Limits{lim, lim},
	}
	if change != nil {
		change(cfg)
	}
	c := upstream.New(cfg, &upstream.Deps{
		Log: zap.NewNop(), Engine: r.engine, Stats: r.reg, Notifier: r, Policies: registry.Builders(lb.Rows()), Dials: r.dials, Runtime: r.runtime,
	}, nil)
	r.clusters[name] = c
	return c
}

// dead is an address where nobody listens.
const dead = "127.0.0.1:1"

// script plays an upstream: one step for each request, the last for all that follow. A step is what is answered, or one
// of the words below; behind it, " close" closes the connection.
type script struct {
	t    testing.TB
	addr string

	mu    sync.Mutex
	steps []string      // guarded by mu
	heads []string      // guarded by mu: what was asked, as it came
	body  []string      // guarded by mu
	conns atomic.Int64  // that were accepted
	asked chan struct{} // for each request, once its head is in
}

// The steps that are no answers.
const (
	closing   = "closes" // at once, without reading the body
	resetting = "resets"
	hanging   = "hangs"
)

func status(n int) string { return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", n) }

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func play(t testing.TB, steps ...string) *script {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, addr: l.Addr().String(), steps: steps, asked: make(chan struct{}, 1000)}
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			open.Store(c, nil)
			wg.Go(func() {
				defer c.Close()
				s.serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return s
}

func (s *script) serve(c *net.TCPConn) {
	var raw bytes.Buffer
	br := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		raw.Reset()
		held, _ := br.Peek(br.Buffered())
		before := string(held)
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		head, _, _ := strings.Cut(before+raw.String(), "\r\n\r\n")
		step := s.next(head + "\r\n\r\n")
		s.asked <- struct{}{}
		switch step {
		case closing:
			return
		case resetting:
			c.SetLinger(0)
			return
		case hanging:
			io.Copy(io.Discard, c)
			return
		}
		step, early := strings.CutPrefix(step, "early ")
		if early {
			io.WriteString(c, step)
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			body = append(body, " broken off"...)
		}
		s.mu.Lock()
		s.body = append(s.body, string(body))
		s.mu.Unlock()
		step, last := strings.CutSuffix(step, " close")
		if !early {
			io.WriteString(c, step)
		}
		if last || err != nil {
			return
		}
	}
}

func (s *script) next(head string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads = append(s.heads, head)
	step := s.steps[0]
	if len(s.steps) > 1 {
		s.steps = s.steps[1:]
	}
	return step
}

// got returns what the upstream was asked so far.
func (s *script) got() (heads, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.heads...), append([]string(nil), s.body...)
}

// client is the downstream connection.
type client struct {
	gone    atomic.Bool
	watcher atomic.Pointer[socket.Worker]
}

func (c *client) HungUp() bool { return c.gone.Load() }

func (c *client) WatchHangUp(w *socket.Worker) {
	c.watcher.Store(w)
	if w != nil && c.gone.Load() {
		w.Interrupt()
	}
}

func (c *client) leave() {
	c.gone.Store(true)
	if w := c.watcher.Load(); w != nil {
		w.Interrupt()
	}
}

// request is what a client asks, and what it gets.
type request struct {
	method, path, host string
	fields             [][2]string
	// body is in pieces: here of them came with the head. length is codec.Unknown for chunks.
	body    []string
	here    int
	slow    time.Duration // how long each piece that did not come with the head takes
	length  int64
	upgrade string
	match   route.Match
	table   *mesh.RouteTable
	manager mesh.HTTPManager
	client  *client
	prepare func(*exchange.Exchange) // sees the exchange before the router; may be nil
}

type reply struct {
	mesh.Outcome
	head     codec.Response
	body     string
	interims []int
	closes   bool // the connection ends with the answer
	aborted  bool
	whole    bool
	trailers string
}

func (p *reply) field(name string) string { return string(p.head.Header.Joined(name)) }

// stream is a downstream stream in memory.
type stream struct {
	p       *reply
	started bool
	pieces  []string
	here    int
	slow    time.Duration
}

func (s *stream) Body() codec.Body                { return s }
func (s *stream) Continue(*socket.Worker) error   { return nil }
func (s *stream) CloseAfter()                     { s.p.closes = true }
func (s *stream) Abort(bool)                      { s.p.aborted = true }
func (s *stream) Started() bool                   { return s.started }
func (s *stream) Sent() int64                     { return 0 }
func (s *stream) Trailers() *header.List          { return nil }
func (s *stream) BeforeAnswer(*exchange.Exchange) {}

func (s *stream) Inform(_ *socket.Worker, status int, _ *header.List) error {
	s.p.interims = append(s.p.interims, status)
	return nil
}

func (s *stream) Head(_ *socket.Worker, r *codec.Response, first bytebuf.Piece, end bool) error {
	s.started = true
	h := &s.p.head
	h.Status, h.Length, h.Switched = r.Status, r.Length, r.Switched
	h.Header.CopyFrom(&r.Header)
	return s.Data(nil, first, end)
}

func (s *stream) Data(_ *socket.Worker, p bytebuf.Piece, end bool) error {
	s.p.body += string(p.Bytes())
	s.p.whole = end
	return nil
}

func (s *stream) SendTrailers(_ *socket.Worker, h *header.List) error {
	s.p.trailers, s.p.whole = string(h.AppendHTTP1(nil)), true
	return nil
}

func (s *stream) Buffered() (bytebuf.Piece, bool, error) {
	if s.here == 0 {
		return bytebuf.Piece{}, len(s.pieces) == 0, nil
	}
	all := strings.Join(s.pieces[:s.here], "")
	s.pieces, s.here = s.pieces[s.here:], 0
	return bytebuf.Of([]byte(all)), len(s.pieces) == 0, nil
}

func (s *stream) Next(*socket.Worker) (bytebuf.Piece, bool, error) {
	if len(s.pieces) == 0 {
		return bytebuf.Piece{}, true, nil
	}
	time.Sleep(s.slow)
	p := s.pieces[0]
	if p == panics {
		panic("a body's own")
	}
	s.pieces = s.pieces[1:]
	if p == brokenBody {
		return bytebuf.Piece{}, false, io.ErrUnexpectedEOF
	}
	return bytebuf.Of([]byte(p)), len(s.pieces) == 0, nil
}

// brokenBody is a piece that cannot be read: the client has gone.
const brokenBody = "\x00broken"

// panics is a piece whose reading breaks an invariant.
const panics = "\x00panics"

// get is a request without a body for a route.
func get(rt *mesh.Route) *request {
	return &request{match: route.Match{Route: rt, Host: &mesh.VirtualHost{}}}
}

// to is a route to a cluster.
func to(cluster string, change ...func(*mesh.RouteAction)) *mesh.Route {
	a := &mesh.RouteAction{Clusters: []mesh.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1, NotFoundStatus: 503}
	for _, f := range change {
		f(a)
	}
	return &mesh.Route{Match: mesh.RouteMatch{Path: "/"}, Forward: a}
}

type job func(*socket.Worker)

func (f job) Run(w *socket.Worker) { f(w) }

// start begins a request; the channel gives what came of it.
func (r *rig) start(q *request) <-chan *reply {
	done := make(chan *reply, 1)
	r.engine.Go(job(func(w *socket.Worker) { done <- r.serve(w, q) }))
	return done
}

// serve serves a request on w.
func (r *rig) serve(w *socket.Worker, q *request) *reply {
	p := &reply{}
	s := &stream{p: p, pieces: q.body, here: q.here, slow: q.slow}
	x := &exchange.Exchange{}
	x.Begin(w, mono.Now(), 1)
	x.Stream, x.Downstream, x.Manager, x.Info = s, s, &q.manager, &inspect.ConnInfo{}
	if q.client == nil {
		q.client = &client{}
	}
	x.Client = q.client
	x.Table, x.Match = q.table, q.match
	fill(&x.Request, q)
	if q.prepare != nil {
		q.prepare(x)
	}
	w.Own(x)
	defer func() {
		w.Own(nil)
		w.SetDeadline(0)
	}()
	r.router.Serve(&Call{}, x, r)
	p.Outcome = x.Outcome
	p.Tries = append([]mesh.Try(nil), x.Outcome.Tries...)
	p.UpstreamPath = bytes.Clone(x.Outcome.UpstreamPath)
	return p
}

func fill(to *codec.Request, q *request) {
	or := func(s, otherwise string) []byte {
		if s == "" {
			s = otherwise
		}
		return []byte(s)
	}
	to.Method, to.Path, to.Authority = or(q.method, "GET"), or(q.path, "/"), or(q.host, "a")
	to.Scheme, to.Protocol, to.Length, to.Upgrade = []byte("http"), mesh.HTTP11, q.length, []byte(q.upgrade)
	to.Header.Add("host", to.Authority)
	for _, f := range q.fields {
		to.Header.AddString(f[0], f[1])
	}
}

// do makes a request and waits for what comes of it.
func (r *rig) do(q *request) *reply {
	r.t.Helper()
	return wait(r.t, r.start(q))
}

func wait(t testing.TB, done <-chan *reply) *reply {
	t.Helper()
	select {
	case p := <-done:
		return p
	case <-time.After(hang):
		t.Fatal("the request does not end")
		return nil
	}
}
