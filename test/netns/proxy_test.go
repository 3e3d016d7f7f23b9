// SPDX-License-Identifier: Apache-2.0

//go:build netns

package netns_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/listener"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/test/netns"
)

// hang is how long a test waits for what must happen.
const hang = 20 * time.Second

// toyProxy is the listeners of a proxy in a namespace, with chains that answer, or pass connections on to where they were
// going.
type toyProxy struct {
	t    *testing.T
	ns   *netns.Namespace
	set  *listener.Set
	reg  *stats.Registry
	mark int // of its own connections; 0 for none
	// guarded tells the guard of its own connections.
	guarded bool

	hops atomic.Int64 // connections that were passed on, or were about to be
	wg   sync.WaitGroup

	mu       sync.Mutex
	outcomes []mesh.Outcome
	told     chan struct{} // one place
}

func startProxy(t *testing.T, ns *netns.Namespace) *toyProxy {
	t.Helper()
	p := &toyProxy{t: t, ns: ns, reg: stats.NewRegistry(stats.Options{}), told: make(chan struct{}, 1)}
	engine, err := socket.NewEngine(socket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.set, err = listener.New(listener.Config{
		Engine:   engine,
		Build:    p.build,
		Filters:  registry.Builders(inspect.Rows()),
		Observer: func(*mesh.Listener) (mesh.Observer, error) { return p, nil },
		Stats:    p.reg,
		Log:      zap.NewNop(),
		// The proxy's goroutines run outside of the namespace.
		LocalAddrs: p.localAddrs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.set.Close()
		engine.Close()
		p.wg.Wait()
	})
	return p
}

func (p *toyProxy) localAddrs() (out []netip.Addr, err error) {
	err = p.ns.Do(func() error {
		as, err := net.InterfaceAddrs()
		for _, a := range as {
			if ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP); ok {
				out = append(out, ip.Unmap())
			}
		}
		return err
	})
	return out, err
}

// apply binds the listeners in the namespace.
func (p *toyProxy) apply(ls ...*mesh.Listener) {
	p.t.Helper()
	err := p.ns.Do(func() error {
		if rej := p.set.Apply(ls, mesh.Versions{}); len(rej) > 0 {
			return fmt.Errorf("rejected: %+v", rej)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// Observe implements mesh.Observer.
func (p *toyProxy) Observe(o *mesh.Outcome) {
	p.mu.Lock()
	p.outcomes = append(p.outcomes, *o)
	p.mu.Unlock()
	select {
	case p.told <- struct{}{}:
	default:
	}
}

// waitOutcome waits for the first outcome.
func (p *toyProxy) waitOutcome() mesh.Outcome {
	p.t.Helper()
	limit := time.After(hang)
	for {
		p.mu.Lock()
		n := len(p.outcomes)
		p.mu.Unlock()
		if n > 0 {
			return p.outcomes[0]
		}
		select {
		case <-p.told:
		case <-limit:
			p.t.Fatal("there is no outcome")
		}
	}
}

// loops returns how many connections were closed because they went in a circle.
func (p *toyProxy) loops() (n int64) {
	p.reg.Each(func(k stats.Kind) bool { return k == stats.Counter }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == "meshtap_listener_loops_total" {
			n = m.Value
		}
		return true
	})
	return n
}

// passOn is the name of chains that pass connections on; others answer.
const passOn = "pass on"

func (p *toyProxy) build(_ *mesh.Listener, fc *mesh.FilterChain) (listener.ChainHandler, error) {
	return &toyChain{p, fc.Name}, nil
}

type toyChain struct {
	p    *toyProxy
	name string
}

func (c *toyChain) ToOriginalDst() bool { return c.name == passOn }

func (c *toyChain) Accept(_ *socket.Conn, info *inspect.ConnInfo) (socket.Handler, bool) {
	return &toyConn{toyChain: c, info: info}, c.name == passOn
}

// toyConn is one connection.
type toyConn struct {
	*toyChain
	info *inspect.ConnInfo
	up   net.Conn
}

func (h *toyConn) Ready(w *socket.Worker, c *socket.Conn) bool {
	if h.name == passOn {
		return h.pass(w, c)
	}
	buf := make([]byte, 4096)
	n, err := c.TryRead(buf)
	if err == socket.ErrWouldBlock {
		return true
	}
	if err != nil {
		return false
	}
	return c.Write(w, fmt.Appendf(nil, "%s %s %d\n", h.name, h.info.Local, n)) == nil
}

// pass copies in both directions until one side ends.
func (h *toyConn) pass(w *socket.Worker, c *socket.Conn) bool {
	if !h.dial() {
		return false
	}
	done := make(chan struct{})
	h.p.wg.Go(func() {
		defer close(done)
		h.answer(c)
	})
	defer func() {
		h.up.Close()
		<-done // until then it may write to c
	}()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(w, buf)
		if err != nil {
			return false
		}
		if _, err := h.up.Write(buf[:n]); err != nil {
			return false
		}
	}
}

func (h *toyConn) dial() bool {
	h.p.hops.Add(1)
	to := h.info.Local
	err := h.p.ns.Do(func() (err error) {
		d := net.Dialer{Timeout: hang, Control: h.setMark}
		h.up, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return false
	}
	if h.p.guarded && !h.p.set.Guard().Dialed(addrOf(h.up.LocalAddr()), to) {
		h.up.Close()
		h.up = nil
	}
	return h.up != nil
}

// answer copies what comes from upstream. It is little: the socket takes it at once.
func (h *toyConn) answer(c *socket.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := h.up.Read(buf)
		for sent := 0; sent < n; {
			m, e := syscall.Write(c.FD(), buf[sent:n])
			if e != nil {
				return
			}
			sent += m
		}
		if err != nil {
			syscall.Shutdown(c.FD(), syscall.SHUT_RDWR)
			return
		}
	}
}

func (h *toyConn) setMark(_, _ string, rc syscall.RawConn) error {
	if h.p.mark == 0 {
		return nil
	}
	var err error
	rc.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, h.p.mark)
	})
	return err
}

func (h *toyConn) Closed(*socket.Conn) {
	if h.up != nil && h.p.guarded {
		h.p.set.Guard().Gone(addrOf(h.up.LocalAddr()), h.info.Local)
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serve accepts on an address of a namespace until the test ends.
func serve(t *testing.T, ns *netns.Namespace, addr string, handle func(net.Conn)) {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(hang))
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
}

// dial connects from a namespace as a user.
func dial(t *testing.T, ns *netns.Namespace, uid int, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	err := ns.DoAs(uid, func() (err error) {
		c, err = net.DialTimeout("tcp", addr, hang)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { c.Close() })
	return c
}

func wantLine(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want)+1)
	n, err := io.ReadFull(c, got)
	if string(got[:n]) != want+"\n" {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); len(rest) > 0 || ok && ne.Timeout() {
		t.Fatalf("read %q, %v; want the end", rest, err)
	}
}
