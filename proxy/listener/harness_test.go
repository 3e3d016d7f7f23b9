// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// hang is how long a test waits for what must happen; it is never a measurement.
const hang = 20 * time.Second

// rig is a Set with chains that answer with their name, and what it told its observers.
type rig struct {
	t      *testing.T
	set    *Set
	engine *socket.Engine
	reg    *stats.Registry

	mu       sync.Mutex
	outcomes []mesh.Outcome
	told     chan struct{} // one place
	handlers map[string]*toyChain
	closed   chan string // names of chains, one for each handler closed
	seen     map[socketKey]*boundSocket
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, reg: stats.NewRegistry(stats.Options{}), told: make(chan struct{}, 1), handlers: map[string]*toyChain{},
		closed: make(chan string, 1<<16), seen: map[socketKey]*boundSocket{}}
	var err error
	if r.engine, err = socket.NewEngine(socket.Options{Sets: 2}); err != nil {
		t.Fatal(err)
	}
	c := Config{
		Engine:   r.engine,
		Build:    r.build,
		Filters:  registry.Builders(inspect.Rows()),
		Observer: func(*mesh.Listener) (mesh.Observer, error) { return r, nil },
		Stats:    r.reg,
		Log:      zap.NewNop(),
	}
	c.Filters["test.redirect"] = func(to any) inspect.Filter { return inspect.Filter{Opener: fakeRedirect{to.(netip.AddrPort)}} }
	for _, f := range change {
		f(&c)
	}
	if r.set, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.set.Close()
		r.engine.Close()
		if n := r.set.Connections(); n != 0 {
			t.Errorf("%d connections are still counted after Close", n)
		}
	})
	return r
}

// fakeRedirect stands for netfilter.
type fakeRedirect struct{ to netip.AddrPort }

func (f fakeRedirect) Open(_ int, info *inspect.ConnInfo) { info.Redirect(f.to) }

// Observe implements mesh.Observer.
func (r *rig) Observe(o *mesh.Outcome) {
	r.mu.Lock()
	r.outcomes = append(r.outcomes, *o)
	r.mu.Unlock()
	select {
	case r.told <- struct{}{}:
	default:
	}
}

// waitOutcomes waits until there are n outcomes and returns them.
func (r *rig) waitOutcomes(n int) []mesh.Outcome {
	r.t.Helper()
	limit := time.After(hang)
	for {
		r.mu.Lock()
		got := slices.Clone(r.outcomes)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-r.told:
		case <-limit:
			r.t.Fatalf("%d outcomes, want %d", len(got), n)
		}
	}
}

// waitClosed waits for the end of a handler.
func (r *rig) waitClosed() string {
	r.t.Helper()
	select {
	case name := <-r.closed:
		return name
	case <-time.After(hang):
		r.t.Fatal("no handler was closed")
		return ""
	}
}

// toyChain answers what it reads with its name in front.
type toyChain struct {
	rig  *rig
	name string
	// kind is the value of the chain's first filter's Config: how it behaves.
	kind  toyKind
	infos chan *inspect.ConnInfo
}

type toyKind struct {
	banner     string // sent at once
	toOriginal bool
	panics     string // "accept", "ready" or "closed"
	replaces   bool   // hands over to another handler with Conn.Handle
	refuses    bool
	keeps      bool // stays open while it drains
	// gate holds up Accept, and with it the goroutine that accepts, until it is closed.
	gate chan struct{}
}

func (r *rig) build(_ *mesh.Listener, fc *mesh.FilterChain) (ChainHandler, error) {
	if strings.HasPrefix(fc.Name, "bad") {
		return nil, errors.New("filters[0]: this filter is not known")
	}
	c := &toyChain{rig: r, name: fc.Name, infos: make(chan *inspect.ConnInfo, 1<<12)}
	if len(fc.Filters) > 0 {
		c.kind = fc.Filters[0].Config.(toyKind)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers[fc.Name] = c
	return c, nil
}

func (c *toyChain) ToOriginalDst() bool { return c.kind.toOriginal }

func (c *toyChain) Accept(_ *socket.Conn, info *inspect.ConnInfo) (socket.Handler, bool) {
	if c.kind.panics == "accept" {
		panic("in Accept")
	}
	if c.kind.gate != nil {
		<-c.kind.gate
	}
	select {
	case c.infos <- info:
	default:
	}
	if c.kind.refuses {
		return nil, false
	}
	return &toyConn{chain: c, info: info, greet: c.kind.banner, replace: c.kind.replaces}, c.kind.banner != ""
}

type toyConn struct {
	chain   *toyChain
	info    *inspect.ConnInfo
	greet   string
	replace bool
}

func (h *toyConn) Ready(w *socket.Worker, c *socket.Conn) bool {
	if h.replace {
		next := &toyConn{chain: h.chain, info: h.info, greet: h.greet}
		c.Handle(next)
		return next.Ready(w, c)
	}
	if h.greet != "" {
		if c.Write(w, []byte(h.greet+"\n")) != nil {
			return false
		}
		h.greet = ""
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := c.TryRead(buf)
		if err == socket.ErrWouldBlock {
			if h.info.Owner.Draining() && !h.chain.kind.keeps {
				c.Write(w, []byte("bye\n"))
				return false
			}
			return true
		}
		if err != nil {
			return false
		}
		if h.chain.kind.panics == "ready" {
			panic("in Ready")
		}
		if err := c.Write(w, fmt.Appendf(nil, "%s:%d\n", h.chain.name, n)); err != nil {
			return false
		}
	}
}

func (h *toyConn) Closed(*socket.Conn) {
	h.chain.rig.closed <- h.chain.name
	if h.chain.kind.panics == "closed" {
		panic("in Closed")
	}
}

// client is a connection from the outside.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (r *rig) dial(l string) *client {
	r.t.Helper()
	for _, st := range r.set.Status() {
		if st.Listener.Name == l {
			return r.dialTo(st.Bound)
		}
	}
	r.t.Fatalf("no listener %q", l)
	return nil
}

func (r *rig) dialTo(a mesh.Address) *client {
	r.t.Helper()
	c, err := net.DialTimeout(a.Network(), a.String(), hang)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	r.t.Cleanup(func() { c.Close() })
	return &client{Conn: c, t: r.t, r: bufio.NewReader(c)}
}

// dialFrom is dialTo from a given address.
func (r *rig) dialFrom(src netip.AddrPort, a mesh.Address) *client {
	r.t.Helper()
	d := net.Dialer{Timeout: hang, LocalAddr: net.TCPAddrFromAddrPort(src)}
	c, err := d.Dial(a.Network(), a.String())
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	r.t.Cleanup(func() { c.Close() })
	return &client{Conn: c, t: r.t, r: bufio.NewReader(c)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(line string) {
	c.t.Helper()
	got, err := c.r.ReadString('\n')
	if err != nil || strings.TrimSuffix(got, "\n") != line {
		c.t.Fatalf("read %q, %v; want %q", got, err, line)
	}
}

// wantEnd waits until the other side has closed, in order or not.
func (c *client) wantEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 {
		c.t.Fatalf("read %q, want the end", rest)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

// chainOf is a chain by name; match is changed by f.
func chainOf(name string, kind toyKind, f ...func(*mesh.ChainMatch)) *mesh.FilterChain {
	fc := &mesh.FilterChain{Name: name, Filters: []mesh.Extension{{Config: kind}}}
	for _, g := range f {
		g(&fc.Match)
	}
	return fc
}

// plain is a listener on a loopback port that the system chooses, with this chain as default.
func plain(name string, fc *mesh.FilterChain) *mesh.Listener {
	return &mesh.Listener{Name: name, Address: mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:0")}, BindToPort: true, DefaultChain: fc}
}

// fixed is plain on an address of its own, which it keeps from listener to listener.
func (r *rig) fixed(name string, fc *mesh.FilterChain) *mesh.Listener {
	l := plain(name, fc)
	l.Address.IP = netip.AddrPortFrom(r.ownIP(), 8080)
	return l
}

// lastIP numbers the addresses that tests were given.
var lastIP atomic.Uint32

// ownIP returns a loopback address that no other test uses.
func (r *rig) ownIP() netip.Addr {
	n := lastIP.Add(1)
	return netip.AddrFrom4([4]byte{127, 77, byte(n >> 8), byte(n)})
}

func filter(typeURL string, config any) mesh.ListenerFilter {
	return mesh.ListenerFilter{Extension: mesh.Extension{TypeURL: typeURL, Config: config}}
}

func tlsInspector() mesh.ListenerFilter {
	return filter("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", inspect.TLSConfig{MaxBytes: inspect.MaxClientHello})
}

func httpInspector() mesh.ListenerFilter {
	return filter("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", nil)
}

func redirectTo(addr string) mesh.ListenerFilter {
	return filter("test.redirect", netip.MustParseAddrPort(addr))
}

// apply applies and wants no rejections.
func (r *rig) apply(ls ...*mesh.Listener) {
	r.t.Helper()
	if rej := r.set.Apply(ls, mesh.Versions{Listeners: "v1"}); len(rej) > 0 {
		r.t.Fatalf("rejected: %+v", rej)
	}
}

// stat reads a number of a listener.
func (r *rig) stat(l *mesh.Listener, name string) int64 {
	return r.number("listener." + metrics.StatName(metrics.ListenerName(l)) + "." + name)
}

func (r *rig) number(name string) int64 {
	r.t.Helper()
	value, found := int64(0), false
	r.reg.Each(func(k stats.Kind) bool { return k != stats.Histogram }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == name {
			value, found = m.Value, true
		}
		return !found
	})
	if !found {
		r.t.Fatalf("no number %q", name)
	}
	return value
}

// socketOf returns the socket of a listener's address, which may be closing.
func (r *rig) socketOf(l *mesh.Listener) *boundSocket {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set.mu.Lock()
	defer r.set.mu.Unlock()
	if b := r.set.sockets[keyOf(l)]; b != nil {
		r.seen[keyOf(l)] = b
	}
	if r.seen[keyOf(l)] == nil {
		r.t.Fatalf("no socket for %v", l.Address)
	}
	return r.seen[keyOf(l)]
}
