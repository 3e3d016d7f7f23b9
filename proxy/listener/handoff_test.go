// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// target is a listener that others hand connections to.
func target(name, addr string, fc *mesh.FilterChain) *mesh.Listener {
	return &mesh.Listener{Name: name, Address: mesh.Address{IP: netip.MustParseAddrPort(addr)}, DefaultChain: fc}
}

// capture is the listener on which redirected connections come in; all of its connections were going to dst.
func (r *rig) capture(dst string) *mesh.Listener {
	l := r.fixed("capture", chainOf("own", toyKind{}))
	l.UseOriginalDst = true
	l.Filters = []mesh.ListenerFilter{redirectTo(dst)}
	return l
}

func TestHandOff(t *testing.T) {
	t.Parallel()
	targets := func() []*mesh.Listener {
		return []*mesh.Listener{
			target("exact", "10.0.0.1:80", chainOf("exact", toyKind{})),
			target("wild", "0.0.0.0:80", chainOf("wild", toyKind{})),
			target("wild6", "[::]:80", chainOf("wild6", toyKind{})),
			target("exact6", "[2001:db8::1]:80", chainOf("exact6", toyKind{})),
		}
	}
	for _, tc := range []struct{ name, dst, want string }{
		{"exact", "10.0.0.1:80", "exact"},
		{"other address, same port", "10.0.0.2:80", "wild"},
		{"other port", "10.0.0.1:81", "own"},
		{"ipv6", "[2001:db8::1]:80", "exact6"},
		{"ipv6, other address", "[2001:db8::2]:80", "wild6"},
		{"ipv6, other port", "[2001:db8::2]:81", "own"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.apply(append(targets(), r.capture(tc.dst))...)
			c := r.dial("capture")
			c.send("x")
			c.want(tc.want + ":1")
			info := <-r.handlers[tc.want].infos
			if info.Local.String() != tc.dst || !info.Redirected() || info.DirectLocal().String() != c.RemoteAddr().String() {
				t.Errorf("got %+v", info)
			}
			for _, st := range r.set.Status() {
				if (st.Connections == 1) != (st.Listener.DefaultChain.Name == tc.want) {
					t.Errorf("%s counts %d connections", st.Listener.Name, st.Connections)
				}
			}
		})
	}
}

// The listener that is handed to looks with its own filters, and applies its own limit.
func TestHandOffToFiltersAndLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	to := target("to", "10.0.0.1:443", nil)
	to.Chains, to.Filters, to.FiltersTimeout, to.MaxConnections = sniChains(), []mesh.ListenerFilter{tlsInspector()}, time.Hour, 1
	r.apply(to, r.capture("10.0.0.1:443"))
	c := r.dial("capture")
	h := hello(t, "a.example")
	c.send(h[:10])
	c.send(h[10:])
	if got, err := c.r.ReadString(':'); err != nil || got != "a:" {
		t.Fatalf("chain %q, %v", got, err)
	}
	d := r.dial("capture")
	d.wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Listener != "to" || o.Details != "listener_connection_limit" {
		t.Errorf("outcome %+v", o)
	}
	if n := r.stat(to, "downstream_cx_overflow"); n != 1 {
		t.Errorf("overflow is %d", n)
	}
}

// A time-out that lets connections go on does so into a hand-off, with time of its own for the next listener.
func TestTimeoutGoesOnIntoHandOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	to := target("to", "10.0.0.1:443", chainOf("to", toyKind{}))
	to.Filters, to.FiltersTimeout = []mesh.ListenerFilter{httpInspector()}, time.Hour
	from := r.capture("10.0.0.1:443")
	from.Filters = append(from.Filters, tlsInspector())
	from.FiltersTimeout, from.ContinueOnTimeout = time.Millisecond, true
	r.apply(to, from)
	c := r.dial("capture")
	c.send("\x16\x03") // the first inspector waits for more; the next one knows at once that this is no HTTP
	c.want("to:2")
	info := <-r.handlers["to"].infos
	if info.Transport != inspect.RawBuffer || info.ApplicationProtocols() != nil {
		t.Errorf("got %+v", info)
	}
}

// Without use_original_dst the destination chooses a chain, not a listener.
func TestNoHandOffUnlessAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.capture("10.0.0.1:80")
	l.UseOriginalDst = false
	l.Chains = []*mesh.FilterChain{chainOf("by port", toyKind{}, toPort(80))}
	r.apply(l, target("to", "10.0.0.1:80", chainOf("to", toyKind{})))
	c := r.dial("capture")
	c.send("x")
	c.want("by port:1")
}

func TestLoops(t *testing.T) {
	t.Parallel()
	never := func() ([]netip.Addr, error) { return nil, errors.New("asked") }
	for _, tc := range []struct {
		name  string
		dst   string // "" is not redirected, "self" the listener itself
		wild  bool   // the listener is bound to all addresses
		to    bool   // its chain passes connections on to their destination
		local func() ([]netip.Addr, error)
		loop  bool
	}{
		{name: "our own address", dst: "self", loop: true, local: never},
		{name: "another address, other port", dst: "10.0.0.1:80", to: true, local: never},
		{name: "our port on this host", dst: "10.0.0.1:port", wild: true, local: addrs("127.0.0.1", "10.0.0.1"), loop: true},
		{name: "our port on loopback", dst: "127.0.0.9:port", wild: true, local: never, loop: true},
		{name: "our port elsewhere", dst: "10.0.0.1:port", wild: true, local: addrs("127.0.0.1", "10.0.0.2")},
		{name: "our port, addresses not known", dst: "10.0.0.1:port", wild: true, local: never, loop: true},
		{name: "not redirected, passed on", to: true, loop: true},
		{name: "not redirected, served"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *Config) {
				if tc.local != nil {
					c.LocalAddrs = tc.local
				}
			})
			l := r.fixed("l", chainOf("own", toyKind{toOriginal: tc.to}))
			l.UseOriginalDst = true
			if tc.wild {
				l.Address.IP = netip.MustParseAddrPort("0.0.0.0:0")
			}
			r.apply(l)
			at := r.set.Status()[0].Bound
			if tc.wild {
				at.IP = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.IP.Port())
			}
			next := *l
			next.Address = r.set.Status()[0].Bound // the port is known now
			switch host, port, _ := strings.Cut(tc.dst, ":"); {
			case tc.dst == "self":
				next.Filters = []mesh.ListenerFilter{redirectTo(at.String())}
			case port == "port":
				next.Filters = []mesh.ListenerFilter{redirectTo(netip.AddrPortFrom(netip.MustParseAddr(host), at.IP.Port()).String())}
			case tc.dst != "":
				next.Filters = []mesh.ListenerFilter{redirectTo(tc.dst)}
			}
			r.set.StopAccepting(func(m *mesh.Listener) bool { return m == l })
			r.apply(&next)
			c := r.dialTo(at)
			if tc.loop {
				c.wantEnd()
				if o := r.waitOutcomes(1)[0]; o.Details != "redirect_loop" || o.Flags != mesh.FlagNR {
					t.Errorf("outcome %+v", o)
				}
			} else {
				c.send("x")
				c.want("own:1")
			}
			if n := r.number("meshtap_listener_loops_total"); n != 0 != tc.loop {
				t.Errorf("%d loops counted", n)
			}
		})
	}
}

func addrs(as ...string) func() ([]netip.Addr, error) {
	return func() ([]netip.Addr, error) {
		var out []netip.Addr
		for _, a := range as {
			out = append(out, netip.MustParseAddr(a))
		}
		return out, nil
	}
}

// A connection of our own that comes back is found by whichever side looks second.
func TestGuard(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dst := netip.MustParseAddrPort("10.0.0.1:80")
	r.apply(r.capture(dst.String()))

	// It was accepted first: who dialed it hears of it.
	c := r.dial("capture")
	c.send("x")
	c.want("own:1")
	from := netip.MustParseAddrPort(c.LocalAddr().String())
	g := r.set.Guard()
	if g.Dialed(from, dst) {
		t.Error("the guard takes a connection that came back")
	}
	// The same port towards another destination is somebody else's.
	other := netip.MustParseAddrPort("10.0.0.2:80")
	if !g.Dialed(from, other) {
		t.Error("the guard refuses an innocent connection")
	}
	g.Gone(from, other)
	c.Close()
	r.set.Drain(t.Context(), All)
	if !g.Dialed(from, dst) {
		t.Error("the guard remembers a connection that is closed")
	}
	g.Gone(from, dst)

	// It was dialed first: the listener closes it.
	again := newRig(t)
	l := again.capture(dst.String())
	again.apply(l)
	src := netip.AddrPortFrom(again.ownIP(), 7777)
	again.set.Guard().Dialed(src, dst)
	d := again.dialFrom(src, l.Address)
	d.wantEnd()
	if o := again.waitOutcomes(1)[0]; o.Details != "redirect_loop" || again.number("meshtap_listener_loops_total") != 1 {
		t.Errorf("outcome %+v, %d loops", o, again.number("meshtap_listener_loops_total"))
	}
}
