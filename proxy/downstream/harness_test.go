// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// hang is how long a test waits for what must come.
const hang = 20 * time.Second

// rig is a connection manager on a real socket, with an upstream that a function plays.
type rig struct {
	*Manager
	t        testing.TB
	engine   *socket.Engine
	dials    *pool.Dials
	addr     string
	draining atomic.Bool
	now      atomic.Pointer[pin] // the state that requests see; the rig itself at first

	clusters map[string]*upstream.Cluster
	tables   map[string]*Table
	scopes   *Scopes

	mu       sync.Mutex
	outcomes []mesh.Outcome // guarded by mu
	more     chan struct{}  // one place

}

// setup is what a rig is made of; the zero value is a manager as it is by default, without routes.
type setup struct {
	manager mesh.HTTPManager
	routes  []*mesh.Route
	table   mesh.RouteTable
	cluster mesh.Cluster
	// backend plays each connection of the upstream "c"; nil where there is none.
	backend func(c *peer)
	filters map[string]filter.Builder
	// policy is the load balancing policy; nil is round robin.
	policy lb.Builder
	// logs are the access logs; nil for none.
	logs Logs
	// remote stands for the client's address where it is valid.
	remote netip.AddrPort
	// demands hold requests for virtual hosts; nil holds none.
	demands *Demands
	// sendBuffer bounds the kernel's memory for what goes to clients; 0 leaves it.
	sendBuffer int
}

func (r *rig) Cluster(name string) *upstream.Cluster { return r.clusters[name] }
func (r *rig) Table(name string) *Table              { return r.tables[name] }
func (r *rig) Scopes(string) *Scopes                 { return r.scopes }
func (r *rig) Versions() mesh.Versions               { return mesh.Versions{} }
func (r *rig) Draining() bool                        { return r.draining.Load() }
func (r *rig) Notify(*mesh.Notice)                   {}
func (r *rig) Close()                                {}

// Observe keeps a copy of each outcome.
func (r *rig) Observe(o *mesh.Outcome) {
	c := *o
	c.Method, c.Path, c.Authority, c.RequestID = bytes.Clone(o.Method), bytes.Clone(o.Path), bytes.Clone(o.Authority), bytes.Clone(o.RequestID)
	c.Scheme, c.UpstreamPath, c.Tries, c.Headers = bytes.Clone(o.Scheme), bytes.Clone(o.UpstreamPath), append([]mesh.Try(nil), o.Tries...), nil
	r.mu.Lock()
	r.outcomes = append(r.outcomes, c)
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func start(t testing.TB, s setup) *rig {
	t.Helper()
	engine, err := socket.NewEngine(socket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: engine, dials: pool.NewDials(), clusters: map[string]*upstream.Cluster{}, tables: map[string]*Table{}, more: make(chan struct{}, 1)}
	r.now.Store(&pin{r})
	reg := stats.NewRegistry(stats.Options{})
	if s.backend != nil {
		r.addCluster(reg, s)
	}
	s.table.Name = "routes"
	s.table.Hosts = append(s.table.Hosts, &mesh.VirtualHost{Name: "all", Domains: []string{"*"}, Routes: s.routes})
	routes, err := route.Compile(&s.table)
	if err != nil {
		t.Fatal(err)
	}
	r.tables["routes"] = &Table{&s.table, routes}
	cfg := &s.manager
	if cfg.DelayedCloseTimeout == 0 {
		cfg.DelayedCloseTimeout = time.Second
	}
	cfg.StatPrefix, cfg.RouteTable, cfg.ServerName = "in", "routes", "envoy"
	if s.logs == nil {
		s.logs = nopLogs{}
	}
	deps := &Deps{
		Log: zap.NewNop(), Stats: reg, Live: func() Live { return r.now.Load().live }, Filters: s.filters, Observers: []mesh.Observer{r},
		Logs: func([]mesh.AccessLog) (Logs, error) { return s.logs, nil }, Env: &format.Env{},
		Busy: new(sync.WaitGroup), Demands: s.demands,
	}
	r.Manager, err = New(&mesh.Listener{Name: "l"}, &mesh.FilterChain{Name: "fc", HTTP: cfg}, deps)
	if err != nil {
		t.Fatal(err)
	}
	r.listen(s)
	return r
}

type nopLogs struct{}

func (nopLogs) Observe(*mesh.Outcome) {}
func (nopLogs) Close()                {}

func (r *rig) addCluster(reg *stats.Registry, s setup) {
	c := s.cluster
	c.Name, c.Discovery, c.ConnectTimeout = "c", mesh.Static, 5*time.Second
	c.Endpoints = &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{Endpoints: []mesh.Endpoint{{
		Address: mesh.Address{IP: netip.MustParseAddrPort(play(r.t, s.backend))}, Weight: 1,
	}}}}}
	c.Policy = mesh.Extension{TypeURL: lb.RoundRobinType, Config: lb.DefaultRoundRobin()}
	policies := registry.Builders(lb.Rows())
	if s.policy != nil {
		policies[lb.RoundRobinType] = s.policy
	}
	if c.Limits == ([2]mesh.Limits{}) {
		lim := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
		c.Limits = [2]mesh.Limits{lim, lim}
	}
	r.clusters["c"] = upstream.New(&c, &upstream.Deps{
		Log: zap.NewNop(), Engine: r.engine, Stats: reg, Notifier: r, Policies: policies, Dials: r.dials,
	}, nil)
}

// listen hands the connections of a loopback socket to the manager.
func (r *rig) listen(s setup) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r.adopt(nc.(*net.TCPConn), s)
		}
	})
	r.t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for deadline := time.Now().Add(hang); r.conns() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				r.t.Errorf("%d connections are left open", r.conns())
				return
			}
		}
		for _, c := range r.clusters {
			c.Close()
		}
		r.dials.Close()
		r.engine.Close()
		if n := r.engine.Bufs.InUse(); n != 0 {
			r.t.Errorf("%d buffers are left in use", n)
		}
	})
}

// adopt takes a connection over from package net.
func (r *rig) adopt(nc *net.TCPConn, s setup) {
	f, err := nc.File() // another descriptor of the same socket
	nc.Close()
	if err != nil {
		r.t.Error(err)
		return
	}
	fd, err := syscall.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		r.t.Error(err)
		return
	}
	syscall.SetNonblock(fd, true)
	if s.sendBuffer > 0 {
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, s.sendBuffer)
	}
	info := &inspect.ConnInfo{ID: 7, Accepted: mono.Now(), Owner: r}
	info.Local, info.Remote = socket.Addrs(fd)
	if s.remote.IsValid() {
		info.Remote = s.remote
	}
	c := r.engine.Adopt(fd, nil)
	h, now := r.Accept(c, info)
	c.Handle(h)
	if err := c.Start(now); err != nil {
		r.t.Error(err)
	}
}

// conns returns how many connections are open.
func (r *rig) conns() int64 { return r.count(metrics.DownstreamCxActive) }

// wait waits for n outcomes, and returns them all.
func (r *rig) wait(n int) []mesh.Outcome {
	r.t.Helper()
	timeout := time.After(hang)
	for {
		r.mu.Lock()
		got := append([]mesh.Outcome(nil), r.outcomes...)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-r.more:
		case <-timeout:
			r.t.Fatalf("%d of %d outcomes", len(got), n)
		}
	}
}

// waitConns waits until so many connections are open.
func (r *rig) waitConns(n int64) {
	r.t.Helper()
	for deadline := time.Now().Add(hang); r.conns() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d connections are open, not %d", r.conns(), n)
		}
	}
}

func (r *rig) count(i int) int64 { return r.numbers.Value(i) }

// dial opens a client connection.
func (r *rig) dial() *peer {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	p := newPeer(c)
	r.t.Cleanup(func() { c.Close() })
	return p
}

// ask sends bytes on a fresh connection and returns all that comes until the other side closes.
func (r *rig) ask(in string) string {
	r.t.Helper()
	c := r.dial()
	defer c.Close()
	c.send(in)
	return c.rest()
}

// peer is one end of a connection that a test plays.
type peer struct {
	*net.TCPConn
	*bufio.Reader
	// nth counts the connections of an upstream, from 1.
	nth int
}

func newPeer(c net.Conn) *peer {
	c.SetDeadline(time.Now().Add(hang))
	return &peer{TCPConn: c.(*net.TCPConn), Reader: bufio.NewReader(c)}
}

// Read is the buffered one's.
func (p *peer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

// WriteTo is the buffered one's.
func (p *peer) WriteTo(w io.Writer) (int64, error) { return p.Reader.WriteTo(w) }

func (p *peer) send(s string) { io.WriteString(p.TCPConn, s) }

// rest reads to the end. A reset ends with "<reset>".
func (p *peer) rest() string {
	b, err := io.ReadAll(p.Reader)
	if err != nil {
		return string(b) + "<reset>"
	}
	return string(b)
}

// head reads to an empty line; "" at the end of the connection.
func (p *peer) head() string {
	var b strings.Builder
	for {
		l, err := p.ReadString('\n')
		if err != nil {
			return ""
		}
		b.WriteString(l)
		if l == "\r\n" {
			return b.String()
		}
	}
}

// take reads n bytes.
func (p *peer) take(n int) string {
	b := make([]byte, n)
	k, _ := io.ReadFull(p.Reader, b)
	return string(b[:k])
}

// play serves connections with f until the test is over, and returns the address.
func play(t testing.TB, f func(*peer)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open, over := map[*peer]bool{}, false
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p := newPeer(c)
			p.nth = n
			mu.Lock()
			open[p] = true
			late := over
			mu.Unlock()
			if late {
				p.Close()
			}
			wg.Go(func() {
				defer p.Close()
				f(p)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		over = true
		for p := range open {
			p.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// always answers each request, whose body is not read, with the same bytes.
func always(answer string) func(*peer) {
	return func(p *peer) {
		for p.head() != "" {
			p.send(answer)
		}
	}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func to(cluster string) *mesh.RouteAction {
	return &mesh.RouteAction{Clusters: []mesh.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1, NotFoundStatus: 503}
}

func forwarded() *mesh.Route { return &mesh.Route{Forward: to("c"), Match: mesh.RouteMatch{Path: "/"}} }

func direct(path string, status int, body string) *mesh.Route {
	return &mesh.Route{Match: mesh.RouteMatch{Path: path}, Direct: &mesh.DirectResponse{Status: status, Body: []byte(body)}}
}

// statusOf returns the status of an answer, "" where there is none.
func statusOf(answer string) string {
	if !strings.HasPrefix(answer, "HTTP/1.1 ") {
		return ""
	}
	return answer[9:12]
}

// clean removes what differs from run to run.
func clean(answer string) string {
	var out []string
	for l := range strings.SplitSeq(answer, "\r\n") {
		if strings.HasPrefix(l, "date: ") || strings.HasPrefix(l, "x-envoy-upstream-service-time: ") {
			continue
		}
		out = append(out, l)
	}
	return strings.Join(out, "\r\n")
}
