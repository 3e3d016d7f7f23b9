// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// hang is how long a test waits for what must happen; it is never a measurement.
const hang = 20 * time.Second

// rig is one TCP proxy behind a listening socket. Its end checks that each connection had one outcome.
type rig struct {
	t        testing.TB
	engine   *socket.Engine
	deps     Deps
	ups      upstream.Deps
	clusters map[string]*upstream.Cluster
	proxy    *Proxy
	listener net.Listener
	outcomes chan mesh.Outcome

	wg       sync.WaitGroup // the accepting goroutine and the connections
	accepted int            // read after wg
	told     int            // by the test's goroutine
}

// Cluster implements Live.
func (r *rig) Cluster(name string) *upstream.Cluster { return r.clusters[name] }

// Versions implements Live.
func (r *rig) Versions() mesh.Versions { return mesh.Versions{} }

// Observe implements mesh.Observer.
func (r *rig) Observe(o *mesh.Outcome) { r.outcomes <- *o }

// Notify implements mesh.Notifier.
func (r *rig) Notify(*mesh.Notice) {}

type noLogs struct{}

func (noLogs) Observe(*mesh.Outcome) {}
func (noLogs) Close()                {}

// start begins to accept for a proxy over these clusters.
func start(t testing.TB, cfg mesh.TCPProxy, clusters ...*mesh.Cluster) *rig {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{Sets: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: e, clusters: map[string]*upstream.Cluster{}, outcomes: make(chan mesh.Outcome, 1024)}
	reg := stats.NewRegistry(stats.Options{})
	r.ups = upstream.Deps{Log: zap.NewNop(), Engine: e, Stats: reg, Notifier: r, Policies: registry.Builders(lb.Rows()), Dials: pool.NewDials()}
	for _, c := range clusters {
		r.clusters[c.Name] = upstream.New(c, &r.ups, nil)
	}
	r.deps = Deps{
		Log: zap.NewNop(), Stats: reg, Live: func() Live { return r }, Observers: []mesh.Observer{r},
		Logs: func([]mesh.AccessLog) (Logs, error) { return noLogs{}, nil },
	}
	cfg.StatPrefix = "t"
	if r.proxy, err = New(&mesh.Listener{Name: "l"}, &mesh.FilterChain{Name: "f", TCP: &cfg}, &r.deps); err != nil {
		t.Fatal(err)
	}
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(r.accept)
	t.Cleanup(r.end)
	return r
}

func (r *rig) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		fd := dup(r.t, c)
		c.Close()
		r.accepted++
		r.wg.Add(1)
		info := &inspect.ConnInfo{Accepted: mono.Now()}
		info.Local, info.Remote = socket.Addrs(fd)
		conn := r.engine.Adopt(fd, nil)
		h, _ := r.proxy.Accept(conn, info)
		conn.Handle(&closing{h, &r.wg})
		if err := conn.Start(true); err != nil {
			r.t.Error(err)
		}
	}
}

// closing tells of the end of a connection.
type closing struct {
	socket.Handler
	wg *sync.WaitGroup
}

// Closed implements socket.Handler.
func (c *closing) Closed(*socket.Conn) { c.wg.Done() }

// dup returns a non-blocking copy of a connection's descriptor.
func dup(t testing.TB, c net.Conn) int {
	t.Helper()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// end waits for all connections, and checks that what was counted was given back.
func (r *rig) end() {
	r.listener.Close()
	r.wg.Wait()
	if n := r.told + len(r.outcomes); n != r.accepted {
		r.t.Errorf("%d connections had %d outcomes", r.accepted, n)
	}
	for name, c := range r.clusters {
		for _, i := range []int{metrics.UpstreamCxActive, metrics.UpstreamRqActive, metrics.UpstreamRqPendingActive} {
			if n := c.Stats.Value(i); n != 0 {
				r.t.Errorf("cluster %s: active number %d is %d at the end", name, i, n)
			}
		}
		for _, k := range []circuit.Resource{circuit.Connections, circuit.Pending, circuit.Requests} {
			if n := c.Resources(0).InUse(k); n != 0 {
				r.t.Errorf("cluster %s: %d of %s are in use", name, n, k)
			}
		}
		for _, h := range c.Hosts() {
			if h.Active() != 0 || h.TCP().Open() != 0 {
				r.t.Errorf("cluster %s: %d in flight, %d open", name, h.Active(), h.TCP().Open())
			}
		}
		c.Close()
	}
	r.proxy.Release()
	r.ups.Dials.Close()
	r.engine.Close()
}

// outcome waits for one.
func (r *rig) outcome() mesh.Outcome {
	r.t.Helper()
	select {
	case o := <-r.outcomes:
		r.told++
		return o
	case <-time.After(hang):
		r.t.Fatal("no outcome")
		return mesh.Outcome{}
	}
}

// dial connects to the proxy.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// serve runs a server whose connections come out of a channel.
func serve(t testing.TB) (addr string, conns chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = make(chan *net.TCPConn, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(hang))
			conns <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for len(conns) > 0 {
			(<-conns).Close()
		}
	})
	return l.Addr().String(), conns
}

// accepted takes the next connection of a server.
func accepted(t testing.TB, conns chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	select {
	case c := <-conns:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(hang):
		t.Fatal("the upstream was not connected to")
		return nil
	}
}

// cluster returns a static cluster over these addresses.
func cluster(name string, addrs ...string) *mesh.Cluster {
	set := &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{}}}
	for _, a := range addrs {
		set.Localities[0].Endpoints = append(set.Localities[0].Endpoints, mesh.Endpoint{
			Address: mesh.Address{IP: netip.MustParseAddrPort(a)}, Weight: 1,
		})
	}
	lim := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	return &mesh.Cluster{
		Name: name, Discovery: mesh.Static, Endpoints: set, ConnectTimeout: hang, Limits: [2]mesh.Limits{lim, lim},
		Policy: mesh.Extension{TypeURL: lb.RoundRobinType, Config: lb.DefaultRoundRobin()},
	}
}

func to(names ...string) (cfg mesh.TCPProxy) {
	for _, n := range names {
		cfg.Clusters = append(cfg.Clusters, mesh.WeightedCluster{Name: n, Weight: 1})
	}
	cfg.IdleTimeout = time.Hour
	return cfg
}

// dead returns an address that refuses connections.
func dead(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

// deaf returns an address that does not answer to connections: its queue is full.
func deaf(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port)).String()
	for {
		c, err := net.DialTimeout("tcp", at, 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
}
