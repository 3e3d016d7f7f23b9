// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/socket"
)

func TestStraightToTheChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := plain("l", chainOf("echo", toyKind{}))
	r.apply(l)
	c := r.dial("l")
	c.send("hello")
	c.want("echo:5")
	info := <-r.handlers["echo"].infos
	local, remote := c.RemoteAddr().String(), c.LocalAddr().String()
	if info.Local.String() != local || info.Remote.String() != remote || info.DirectLocal() != info.Local || info.DirectRemote() != info.Remote ||
		info.Redirected() || info.Transport != inspect.RawBuffer || info.ID == 0 || info.Accepted == 0 {
		t.Errorf("got %+v; want %s <- %s", info, local, remote)
	}
	if total, active := r.stat(l, "downstream_cx_total"), r.stat(l, "downstream_cx_active"); total != 1 || active != 1 {
		t.Errorf("total %d, active %d", total, active)
	}
	c.Close()
	r.set.Drain(t.Context(), All) // returns when the last connection was counted out
	if active, destroyed := r.stat(l, "downstream_cx_active"), r.stat(l, "downstream_cx_destroy"); active != 0 || destroyed != 1 {
		t.Errorf("active %d, destroyed %d after the end", active, destroyed)
	}
	if n := len(r.outcomes); n != 0 {
		t.Errorf("%d outcomes of a connection that a chain took", n)
	}
}

// A server that speaks first is not kept waiting for bytes of the client, neither without listener filters nor where the
// one that wants bytes is off for the port.
func TestServerSpeaksFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	without := plain("without", chainOf("greeter", toyKind{banner: "220 hello"}))
	off := plain("off", chainOf("greeter2", toyKind{banner: "220 hello"}))
	off.Filters = []mesh.ListenerFilter{httpInspector(), tlsInspector()}
	for i := range off.Filters {
		off.Filters[i].DisabledOn = &mesh.ListenerPredicate{PortStart: 1, PortEnd: 1 << 16}
	}
	r.apply(without, off)
	r.dial("without").want("220 hello")
	r.dial("off").want("220 hello")
}

func TestAcceptedSocketsHaveNoDelay(t *testing.T) {
	t.Parallel()
	l, err := socket.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), socket.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd, _, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if v, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY); v == 0 || err != nil {
		t.Fatalf("TCP_NODELAY is %d, %v", v, err)
	}
}

func sniChains() []*mesh.FilterChain {
	sni := func(name string) func(*mesh.ChainMatch) {
		return func(m *mesh.ChainMatch) { m.ServerNames = []string{name} }
	}
	return []*mesh.FilterChain{
		chainOf("a", toyKind{}, sni("a.example")),
		chainOf("b", toyKind{}, sni("*.b.example")),
		chainOf("raw", toyKind{}, func(m *mesh.ChainMatch) { m.TransportProtocol = inspect.RawBuffer.String() }),
	}
}

// hello returns the ClientHello that crypto/tls writes.
func hello(t *testing.T, name string) string {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(near, &tls.Config{ServerName: name}).Handshake() // ends when far is closed
	}()
	buf := make([]byte, 16<<10)
	n, err := far.Read(buf) // crypto/tls writes it in one piece
	if err != nil || n < 100 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	far.Close()
	<-done
	return string(buf[:n])
}

func TestChainByServerName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := plain("l", nil)
	l.Chains, l.Filters, l.FiltersTimeout = sniChains(), []mesh.ListenerFilter{tlsInspector()}, time.Hour
	r.apply(l)
	for _, tc := range []struct{ name, send, want string }{
		{"exact", hello(t, "a.example"), "a"},
		{"wildcard", hello(t, "x.b.example"), "b"},
		{"plain text", "GET / HTTP/1.1\r\n", "raw"},
		{"one byte that is no TLS", "x", "raw"},
	} {
		c := r.dial("l")
		c.send(tc.send)
		if got, err := c.r.ReadString(':'); err != nil || got != tc.want+":" {
			t.Errorf("%s: chain %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}

// The hello comes byte by byte. Nothing of it is consumed: the chain reads all of it.
func TestSlowClientHello(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := plain("l", nil)
	l.Chains, l.Filters, l.FiltersTimeout = sniChains(), []mesh.ListenerFilter{tlsInspector(), httpInspector()}, time.Hour
	r.apply(l)
	c := r.dial("l")
	h := hello(t, "a.example")
	for i := range len(h) {
		c.send(h[i : i+1])
	}
	got := 0
	for got < len(h) {
		line, err := c.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "a:") {
			t.Fatalf("read %q, %v", line, err)
		}
		n := 0
		for _, d := range strings.TrimSpace(line[2:]) {
			n = n*10 + int(d-'0')
		}
		got += n
	}
	if got != len(h) {
		t.Fatalf("the chain read %d bytes, want %d", got, len(h))
	}
	if n := r.stat(l, "downstream_pre_cx_active"); n != 0 {
		t.Errorf("%d connections are still looked at", n)
	}
}

func TestFilterTimeout(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		goOn bool
		send string
	}{
		{name: "closes the silent"},
		{name: "closes the slow", send: "\x16\x03\x01"},
		{name: "goes on with the silent", goOn: true},
		{name: "goes on with the slow", goOn: true, send: "GET /"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l := plain("l", chainOf("raw", toyKind{banner: "hi"}))
			l.Filters = []mesh.ListenerFilter{httpInspector(), tlsInspector()}
			l.FiltersTimeout, l.ContinueOnTimeout = time.Millisecond, tc.goOn
			r.apply(l)
			c := r.dial("l")
			if tc.send != "" {
				// The listener may have closed already.
				io.WriteString(c.Conn, tc.send)
			}
			if tc.goOn {
				c.want("hi")
			} else {
				c.wantEnd()
				o := r.waitOutcomes(1)[0]
				if o.Kind != mesh.OutcomeTCP || o.Failure != mesh.RequestReadTimeout || o.Details != "listener_filters_timeout" ||
					o.Listener != "l" || o.Remote.String() != c.LocalAddr().String() || o.Duration <= 0 || o.Versions.Listeners != "v1" {
					t.Errorf("outcome %+v", o)
				}
			}
			if n := r.stat(l, "downstream_pre_cx_timeout"); n != 1 {
				t.Errorf("%d timeouts counted", n)
			}
		})
	}
}

func TestEndsBeforeAChain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		send    string
		close   bool // the client's sending side
		counter string
		failure mesh.FailureKind
		flags   mesh.Flags
		details string
	}{
		{"no chain", "GET / HTTP/1.1\r\n", false, "no_filter_chain_match", mesh.NoRoute, mesh.FlagNR, "filter_chain_not_found"},
		{"malformed hello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", false, "downstream_listener_filter_error",
			mesh.DownstreamProtocolError, mesh.FlagDPE, "listener_filter_rejected"},
		{"hello cut short by the end", "\x16\x03\x01\x00\x50\x01\x00", true, "downstream_listener_filter_error",
			mesh.DownstreamProtocolError, mesh.FlagDPE, "listener_filter_rejected"},
		{"hang-up without a byte", "", true, "downstream_listener_filter_remote_close",
			mesh.DownstreamClosed, mesh.FlagDC, "closed_during_listener_filters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l := plain("l", nil)
			l.Chains, l.Filters, l.FiltersTimeout = sniChains()[:1], []mesh.ListenerFilter{tlsInspector()}, time.Hour
			r.apply(l)
			c := r.dial("l")
			c.send(tc.send)
			if tc.close {
				c.Conn.(*net.TCPConn).CloseWrite()
			}
			c.wantEnd()
			o := r.waitOutcomes(1)[0]
			if o.Failure != tc.failure || o.Details != tc.details || o.Flags != tc.flags {
				t.Errorf("outcome %+v", o)
			}
			if n := r.stat(l, tc.counter); n != 1 {
				t.Errorf("%s is %d", tc.counter, n)
			}
		})
	}
}

// A client that sends a little, says that this is all, and waits for the answer is served.
func TestHalfClosedClientIsServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := plain("l", chainOf("raw", toyKind{}))
	l.Filters, l.FiltersTimeout = []mesh.ListenerFilter{tlsInspector(), httpInspector()}, time.Hour
	r.apply(l)
	c := r.dial("l")
	c.send("GET /")
	c.Conn.(*net.TCPConn).CloseWrite()
	c.want("raw:5")
}

func TestListenerLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := plain("l", chainOf("greeter", toyKind{banner: "hi"}))
	l.MaxConnections = 2
	r.apply(l)
	first, second := r.dial("l"), r.dial("l")
	first.want("hi")
	second.want("hi")
	third := r.dial("l")
	third.wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Failure != mesh.Overloaded || o.Details != "listener_connection_limit" ||
		o.Remote.String() != third.LocalAddr().String() {
		t.Errorf("outcome %+v", o)
	}
	if n := r.stat(l, "downstream_cx_overflow"); n != 1 {
		t.Errorf("overflow is %d", n)
	}
	// One that leaves makes room, a moment after its handler has heard.
	first.Close()
	r.waitClosed()
	for end := time.Now().Add(hang); ; {
		if got, _ := r.dial("l").r.ReadString('\n'); got == "hi\n" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("there is no room after one has left")
		}
	}
}

func TestGlobalLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	a, b, exempt := plain("a", chainOf("a", toyKind{banner: "a"})), plain("b", chainOf("b", toyKind{banner: "b"})), plain("x", chainOf("x", toyKind{banner: "x"}))
	exempt.IgnoreGlobalLimit = true
	r.apply(a, b, exempt)
	r.dial("x").want("x")
	r.dial("x").want("x")
	r.dial("a").want("a")
	r.dial("b").wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Listener != "b" || o.Details != "global_connection_limit" {
		t.Errorf("outcome %+v", o)
	}
	if n := r.stat(b, "downstream_global_cx_overflow"); n != 1 {
		t.Errorf("overflow is %d", n)
	}
	r.dial("x").want("x")
	if n := r.set.Connections(); n != 1 {
		t.Errorf("%d connections count, want 1", n)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "s")
	file := plain("file", chainOf("file", toyKind{}))
	file.Address = mesh.Address{Pipe: path}
	abstract := plain("abstract", chainOf("abstract", toyKind{}))
	abstract.Address = mesh.Address{Pipe: "@meshtap-test" + strings.ReplaceAll(path, "/", "-")}
	r.apply(file, abstract)
	for _, name := range []string{"file", "abstract"} {
		c := r.dial(name)
		c.send("x")
		c.want(name + ":1")
		if info := <-r.handlers[name].infos; info.Remote.IsValid() || info.Local.IsValid() {
			t.Errorf("%s: addresses %v, %v", name, info.Remote, info.Local)
		}
	}
	// Somebody listens: the path cannot be taken.
	other := newRig(t)
	if rej := other.set.Apply([]*mesh.Listener{file}, mesh.Versions{}); len(rej) != 1 || !strings.Contains(rej[0].Reason, "address already in use") {
		t.Errorf("got %+v", rej)
	}
	// A socket that was left behind can.
	left, err := net.Listen("unix", path+"2")
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	stale := plain("stale", chainOf("stale", toyKind{banner: "hi"}))
	stale.Address = mesh.Address{Pipe: path + "2"}
	other.apply(stale)
	other.dial("stale").want("hi")
	// Another kind of file is left alone.
	dir := plain("dir", chainOf("dir", toyKind{}))
	dir.Address = mesh.Address{Pipe: filepath.Dir(path)}
	if rej := other.set.Apply([]*mesh.Listener{stale, dir}, mesh.Versions{}); len(rej) != 1 || !strings.Contains(rej[0].Reason, "is not a socket") {
		t.Errorf("got %+v", rej)
	}
}

func TestIPv6TakesNoIPv4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 { // another test's socket may have the port in IPv4
		l := plain("l", chainOf("v6", toyKind{banner: "hi"}))
		l.Address.IP = netip.MustParseAddrPort("[::]:0")
		if rej := r.set.Apply([]*mesh.Listener{l}, mesh.Versions{}); len(rej) > 0 {
			if strings.Contains(rej[0].Reason, "does not speak IPv6") {
				t.Skip("this host does not speak IPv6")
			}
			t.Fatal(rej)
		}
		bound := r.set.Status()[0].Bound.IP
		r.dialTo(mesh.Address{IP: netip.AddrPortFrom(netip.IPv6Loopback(), bound.Port())}).want("hi")
		// So 0.0.0.0 is free for another listener.
		l4 := plain("l4", chainOf("v4", toyKind{banner: "four"}))
		l4.Address.IP = netip.AddrPortFrom(netip.IPv4Unspecified(), bound.Port())
		if rej := r.set.Apply([]*mesh.Listener{l, l4}, mesh.Versions{}); len(rej) == 0 {
			r.dialTo(mesh.Address{IP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), bound.Port())}).want("four")
			return
		} else if !strings.Contains(rej[0].Reason, "in use") {
			t.Fatal(rej)
		}
		r.apply()
	}
	t.Error("a listener on [::] takes IPv4: its port is never free there")
}

func TestPanicsCloseTheirConnection(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"accept", "ready", "closed"} {
		for _, looked := range []bool{false, true} {
			t.Run(where, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				l := plain("l", chainOf("bomb", toyKind{panics: where}))
				if looked {
					l.Filters = []mesh.ListenerFilter{tlsInspector()}
				}
				good := plain("good", chainOf("good", toyKind{banner: "hi"}))
				r.apply(l, good)
				c := r.dial("l")
				io.WriteString(c.Conn, "x") // it may be closed already
				if where == "closed" {
					c.want("bomb:1")
					c.Close()
				} else {
					c.wantEnd()
				}
				if where == "accept" {
					if o := r.waitOutcomes(1)[0]; o.Failure != mesh.InternalError || o.Details != "panic" {
						t.Errorf("outcome %+v", o)
					}
				} else {
					r.waitClosed()
				}
				r.dial("good").want("hi")
				r.set.Close() // ends when nothing is counted any more
				if n := r.number("meshtap_listener_panics_total"); n != 1 {
					t.Errorf("%d panics counted", n)
				}
			})
		}
	}
}

// A handler that hands over to another one, and one that refuses, are counted out like any other.
func TestReplacedAndRefusingHandlers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, no := plain("l", chainOf("first", toyKind{replaces: true})), plain("no", chainOf("no", toyKind{refuses: true}))
	r.apply(l, no)
	c := r.dial("l")
	c.send("ab")
	c.want("first:2")
	c.send("cde")
	c.want("first:3")
	r.dial("no").wantEnd()
	c.Close()
	r.waitClosed()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if left := r.set.Drain(ctx, All); left != 0 {
		t.Errorf("%d connections are left", left)
	}
}
