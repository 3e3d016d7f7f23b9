// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// keyed gives a chain the key of its content.
func keyed(fc *mesh.FilterChain, key string) *mesh.FilterChain {
	fc.Key = key
	return fc
}

func toPort(p uint16) func(*mesh.ChainMatch) {
	return func(m *mesh.ChainMatch) { m.DestinationPort = p }
}

// Only what changed drains: the connections of a chain of equal content go on, with the same handler.
func TestChangeInPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.fixed("l", nil)
	at := before.Address.IP
	before.DefaultChain = keyed(chainOf("stays", toyKind{}), "same")
	before.Chains = []*mesh.FilterChain{keyed(chainOf("goes", toyKind{}, toPort(1)), "old")}
	r.apply(before)
	onStays := r.dial("l")
	onStays.send("1")
	onStays.want("stays:1")

	// The listener now sends everything to another chain.
	after := r.fixed("l", nil)
	after.Address.IP = at
	after.DefaultChain = keyed(chainOf("new", toyKind{}), "new")
	stays := keyed(chainOf("stays under another name", toyKind{}, toPort(1)), "same")
	after.Chains = []*mesh.FilterChain{stays}
	r.apply(after)
	if r.handlers["stays under another name"] != nil {
		t.Error("a chain of equal content was built again")
	}
	onStays.send("22")
	onStays.want("stays:2")
	onNew := r.dial("l")
	onNew.send("1")
	onNew.want("new:1")

	// Now the chain is gone.
	last := r.fixed("l", keyed(chainOf("new again", toyKind{}), "new"))
	last.Address.IP = at
	r.apply(last)
	onStays.want("bye")
	onStays.wantEnd()
	if got := r.waitClosed(); got != "stays" {
		t.Errorf("the handler of %q was closed", got)
	}
	onNew.send("22")
	onNew.want("new:2")
	if n := r.number("listener_manager.listener_in_place_updated"); n != 2 {
		t.Errorf("%d changes in place, want 2", n)
	}
}

// What handlers take from their listener decides too.
func TestListenerFieldsRebuildChains(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.fixed("l", keyed(chainOf("one", toyKind{}), "same"))
	r.apply(l)
	c := r.dial("l")
	c.send("1")
	c.want("one:1")
	next := *l
	next.BufferLimit, next.DefaultChain = 1000, keyed(chainOf("two", toyKind{}), "same")
	r.apply(&next)
	c.want("bye")
	d := r.dial("l")
	d.send("1")
	d.want("two:1")
}

// A chain that does not end its connections when it drains loses them when the time is over.
func TestDrainTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.DrainTime = time.Millisecond })
	l := r.fixed("l", keyed(chainOf("stubborn", toyKind{keeps: true}), "1"))
	r.apply(l)
	c := r.dial("l")
	c.send("1")
	c.want("stubborn:1")
	next := *l
	next.DefaultChain = keyed(chainOf("next", toyKind{}), "2")
	r.apply(&next)
	c.wantEnd()
	r.waitClosed()
}

// A listener that is removed ends its connections, and its address is free at once; it comes back with a new one.
func TestRemoveAndAddAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.fixed("l", chainOf("one", toyKind{keeps: true}))
	r.apply(l)
	c := r.dial("l")
	c.send("1")
	c.want("one:1")
	r.apply()
	if c, err := net.Dial("tcp", l.Address.String()); err == nil {
		c.Close()
		t.Error("a removed listener still listens")
	}
	again := *l
	again.DefaultChain = chainOf("two", toyKind{})
	r.apply(&again)
	d := r.dial("l")
	d.send("1")
	d.want("two:1")
	c.send("22") // it is draining, and has time
	c.want("one:2")
	if n := r.number("listener_manager.total_listeners_draining"); n != 1 {
		t.Errorf("%d listeners drain, want 1", n)
	}
}

// Nothing in the queue of a removed listener is lost, and what comes from there is told to end.
func TestRemoveServesTheQueue(t *testing.T) {
	t.Parallel()
	for _, stop := range []func(*rig){
		func(r *rig) { r.apply() },
		func(r *rig) { r.set.StopAccepting(All) },
	} {
		r := newRig(t)
		gate := make(chan struct{})
		l := r.fixed("l", chainOf("one", toyKind{gate: gate}))
		r.apply(l)
		b := r.socketOf(l)
		const n = 100
		var cs []*client
		for range n {
			c := r.dial("l")
			c.send("x")
			cs = append(cs, c)
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop(r)
		}()
		<-b.stopping
		close(gate)
		<-stopped
		for _, c := range cs {
			c.want("one:1")
		}
		r.set.Drain(t.Context(), All)
		for _, c := range cs {
			c.want("bye")
			c.wantEnd()
		}
	}
}

// An address that goes from one listener to another keeps its socket: what waits in the queue is served by the new one.
func TestAddressChangesHands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.fixed("a", chainOf("a", toyKind{}))
	r.apply(a)
	before := r.socketOf(a)
	b := *a
	b.Name, b.DefaultChain = "b", chainOf("b", toyKind{})
	r.apply(&b)
	if r.socketOf(&b) != before {
		t.Error("the socket was opened again")
	}
	c := r.dial("b")
	c.send("1")
	c.want("b:1")

	// Two listeners change places.
	x, y := r.fixed("x", chainOf("x", toyKind{})), r.fixed("y", chainOf("y", toyKind{}))
	r.apply(x, y)
	x2, y2 := *x, *y
	x2.Address, y2.Address = y.Address, x.Address
	r.apply(&x2, &y2)
	d := r.dialTo(y.Address)
	d.send("1")
	d.want("x:1")
}

func TestRejections(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good := r.fixed("good", chainOf("good", toyKind{banner: "hi"}))
	r.apply(good)

	change := func(f func(*mesh.Listener)) *mesh.Listener {
		l := plain("x", chainOf("x", toyKind{}))
		f(l)
		return l
	}
	for _, tc := range []struct {
		name string
		l    *mesh.Listener
		want string
	}{
		{"in use", change(func(l *mesh.Listener) { l.Address.IP = netip.MustParseAddrPort(taken.Addr().String()) }),
			taken.Addr().String() + ": address already in use (another process"},
		{"no such address", change(func(l *mesh.Listener) { l.Address.IP = netip.MustParseAddrPort("192.0.2.1:80") }),
			`192.0.2.1:80: cannot assign requested address (no interface of this host has the address)`},
		{"no such zone", change(func(l *mesh.Listener) { l.Address.IP = netip.MustParseAddrPort("[fe80::1%nowhere]:80") }),
			`the zone of [fe80::1%nowhere]:80`},
		{"same address", change(func(l *mesh.Listener) { l.Address = good.Address }), `the address is taken by listener "good"`},
		{"same address unbound", change(func(l *mesh.Listener) { l.Address, l.BindToPort = good.Address, false }), `the address is taken by listener "good"`},
		{"unix socket unbound", change(func(l *mesh.Listener) { l.Address, l.BindToPort = mesh.Address{Pipe: "@x"}, false }), `bind_to_port false`},
		{"same name", change(func(l *mesh.Listener) { l.Name = "good" }), "the name is taken by another listener"},
		{"no chain", change(func(l *mesh.Listener) { l.DefaultChain = nil }), `it has no filter chain`},
		{"chain cannot be built", change(func(l *mesh.Listener) { l.Chains = []*mesh.FilterChain{chainOf("bad", toyKind{}, toPort(1))} }),
			`filter chain "bad": filters[0]: this filter is not known`},
		{"default chain cannot be built", change(func(l *mesh.Listener) { l.DefaultChain = chainOf("bad", toyKind{}) }),
			`filter chain default_filter_chain: filters[0]`},
		{"unknown filter", change(func(l *mesh.Listener) { l.Filters = []mesh.ListenerFilter{filter("a.B", nil)} }),
			`listener_filters[0]: there is no listener filter of type "a.B"`},
		{"chains overlap", change(func(l *mesh.Listener) {
			l.Chains = []*mesh.FilterChain{chainOf("p", toyKind{}, toPort(1)), chainOf("q", toyKind{}, toPort(1))}
		}), `filter chains "p" and "q" match the same connections: destination port 1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rej := r.set.Apply([]*mesh.Listener{good, tc.l}, mesh.Versions{})
			if len(rej) != 1 || rej[0].Kind != mesh.KindListener || rej[0].Name != tc.l.Name || !strings.Contains(rej[0].Reason, tc.want) {
				t.Fatalf("got %+v, want %q", rej, tc.want)
			}
			r.dial("good").want("hi")
		})
	}
}

// A listener whose new configuration is refused goes on with the old one, and keeps its address from others.
func TestRejectedChangeKeepsTheOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.fixed("l", chainOf("old", toyKind{}))
	r.apply(l)
	c := r.dial("l")
	c.send("1")
	c.want("old:1")

	broken := *l
	broken.DefaultChain = chainOf("bad", toyKind{})
	moved := *l
	moved.Address.IP = netip.MustParseAddrPort("192.0.2.1:80")
	thief := *l
	thief.Name, thief.DefaultChain = "thief", chainOf("thief", toyKind{})
	for _, bad := range []*mesh.Listener{&broken, &moved} {
		if rej := r.set.Apply([]*mesh.Listener{bad, &thief}, mesh.Versions{}); len(rej) != 2 || rej[0].Name != "l" || rej[1].Name != "thief" {
			t.Fatalf("rejections %+v", rej)
		}
		c.send("22")
		c.want("old:2")
		d := r.dial("l")
		d.send("1")
		d.want("old:1")
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in, out := r.fixed("in", chainOf("in", toyKind{keeps: true})), r.fixed("out", chainOf("out", toyKind{}))
	in.Direction, out.Direction = mesh.Inbound, mesh.Outbound
	r.apply(in, out)
	a, b := r.dial("in"), r.dial("out")
	a.send("1")
	a.want("in:1")
	b.send("1")
	b.want("out:1")

	over, cancel := context.WithCancel(t.Context())
	cancel()
	if left := r.set.Drain(over, InboundOnly); left != 1 {
		t.Fatalf("%d connections are left, want the one that stays", left)
	}
	if info := <-r.handlers["in"].infos; !info.Owner.Draining() {
		t.Error("the handler was not told")
	}
	if info := <-r.handlers["out"].infos; info.Owner.Draining() {
		t.Error("the outbound listener drains")
	}
	// Inbound goes on accepting, until it is told to stop; outbound is not touched.
	c := r.dial("in")
	c.send("1")
	c.want("in:1")
	r.set.StopAccepting(InboundOnly)
	if c, err := net.Dial("tcp", in.Address.String()); err == nil {
		c.Close()
		t.Error("a connection came in after StopAccepting")
	}
	b.send("22")
	b.want("out:2")
	// A listener that must not listen any more does not begin again with a change.
	next := *in
	next.DefaultChain = chainOf("in2", toyKind{})
	r.apply(&next, out)
	if c, err := net.Dial("tcp", in.Address.String()); err == nil {
		c.Close()
		t.Error("a changed listener listens again")
	}
	a.Close()
	c.Close()
	if left := r.set.Drain(t.Context(), All); left != 0 {
		t.Errorf("%d connections are left", left)
	}
	b.want("bye")
	b.wantEnd()
}

// A connection that becomes idle while the drain begins is told, whichever comes first.
func TestDrainMissesNobody(t *testing.T) {
	t.Parallel()
	for range 5 {
		r := newRig(t)
		r.apply(r.fixed("l", chainOf("l", toyKind{})))
		const n = 20
		ended := make(chan struct{}, n)
		for range n {
			c := r.dial("l")
			go func() {
				defer func() { ended <- struct{}{} }()
				for {
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
					if line, err := c.r.ReadString('\n'); err != nil || line == "bye\n" {
						return
					}
				}
			}()
		}
		if left := r.set.Drain(t.Context(), Named("l")); left != 0 {
			t.Fatalf("%d connections are left", left)
		}
		r.set.StopAccepting(All)
		r.set.Close()
		for range n {
			<-ended
		}
	}
}

// Close ends everything that was started, whatever state connections are in.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t)
	idle := r.fixed("idle", chainOf("idle", toyKind{keeps: true}))
	looked := r.fixed("looked", chainOf("looked", toyKind{}))
	looked.Filters, looked.FiltersTimeout = []mesh.ListenerFilter{tlsInspector()}, time.Hour
	r.apply(idle, looked)
	var cs []*client
	for range 50 {
		c, d := r.dial("idle"), r.dial("looked")
		c.send("1")
		c.want("idle:1")
		d.send("\x16\x03\x01\x00\x50\x01") // a hello that is not complete
		cs = append(cs, c, d)
	}
	r.set.Close()
	r.set.Close() // again does nothing
	r.engine.Close()
	for _, c := range cs {
		c.wantEnd()
	}
	if o := r.waitOutcomes(50); len(o) != 50 {
		t.Errorf("%d outcomes of connections that no chain took, want 50", len(o))
	}
	if rej := r.set.Apply([]*mesh.Listener{idle}, mesh.Versions{}); rej != nil || len(r.set.Status()) != 0 {
		t.Error("a closed set takes listeners")
	}
	waitGoroutines(t, before)
}

// waitGoroutines waits until there are no more goroutines than n. Those that were joined may take a moment to be gone.
func waitGoroutines(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(hang); runtime.NumGoroutine() > n; runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), n, buf[:runtime.Stack(buf, true)])
		}
	}
}
