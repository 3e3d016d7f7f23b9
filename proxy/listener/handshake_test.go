// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// secure makes a chain one that speaks TLS as name.
func secure(t *testing.T, ca *testcert.Authority, name string, fc *mesh.FilterChain) *mesh.FilterChain {
	p := ca.Issue(t, name)
	fc.TLS = &mesh.TLSContext{
		Certificates: []*mesh.TLSCertificate{{Chain: []*x509.Certificate{p.Leaf}, Key: p.PrivateKey.(crypto.Signer)}}, ALPN: []string{"h2", "http/1.1"},
	}
	return fc
}

// dialTLS connects and makes the handshake.
func (r *rig) dialTLS(l string, ca *testcert.Authority, name string) *client {
	r.t.Helper()
	c := r.dial(l)
	s := tls.Client(c.Conn, &tls.Config{RootCAs: ca.Pool(), ServerName: name, NextProtos: []string{"http/1.1"}})
	if err := s.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return &client{Conn: s, t: r.t, r: bufio.NewReader(s)}
}

// The name that the client asks for chooses the chain, the chain makes the handshake, and its handler sees what it settled.
func TestHandshakeOfTheChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := testcert.New(t)
	byName := func(name string) func(*mesh.ChainMatch) {
		return func(m *mesh.ChainMatch) { m.ServerNames = []string{name} }
	}
	l := plain("l", chainOf("plain", toyKind{}))
	l.Filters = []mesh.ListenerFilter{tlsInspector()}
	l.Chains = []*mesh.FilterChain{
		secure(t, ca, "a.test", chainOf("a", toyKind{}, byName("a.test"))),
		secure(t, ca, "b.test", chainOf("b", toyKind{banner: "220 hello"}, byName("b.test"))),
	}
	without := plain("without", secure(t, ca, "a.test", chainOf("without", toyKind{})))
	r.apply(l, without)
	for _, tc := range []struct{ listener, name, chain string }{{"l", "a.test", "a"}, {"l", "b.test", "b"}, {"without", "a.test", "without"}} {
		c := r.dialTLS(tc.listener, ca, tc.name)
		if tc.chain == "b" {
			c.want("220 hello") // the server speaks first
		}
		c.send("hello")
		c.want(tc.chain + ":5")
		info := <-r.handlers[tc.chain].infos
		if info.TLS() == nil || info.ALPN() != "http/1.1" || info.ServerName() != tc.name || info.TLS().Version != "TLSv1.3" || info.Transport != inspect.TLS {
			t.Errorf("%s: %+v", tc.chain, info)
		}
		c.Close()
		r.waitClosed()
	}
	c := r.dial("l")
	c.send("GET / HTTP/1.1\r\n")
	c.want("plain:16")
	if info := <-r.handlers["plain"].infos; info.TLS() != nil {
		t.Error("a plain connection has TLS")
	}
	c.Close()
	r.waitClosed()
	r.set.Drain(t.Context(), All)
	for _, x := range []*mesh.Listener{l, without} {
		if total, active := r.stat(x, "downstream_cx_total"), r.stat(x, "downstream_cx_active"); active != 0 || total == 0 {
			t.Errorf("%s: total %d, active %d", x.Name, total, active)
		}
	}
	if n := r.stat(l, "ssl.handshake") + r.stat(without, "ssl.handshake"); n < 2 {
		t.Errorf("%d handshakes were counted", n)
	}
	if len(r.outcomes) != 0 {
		t.Errorf("outcomes of connections that chains took: %+v", r.outcomes)
	}
}

// A connection without a handshake has one Outcome, and no handler ever sees it.
func TestHandshakeFails(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	for _, tc := range []struct {
		name    string
		timeout time.Duration
		client  func(c *client)
		kind    mesh.FailureKind
		details string
		reason  string
		timeOut int64
	}{
		{name: "silence", timeout: 20 * time.Millisecond, client: func(*client) {}, kind: mesh.RequestReadTimeout, details: "transport_socket_connect_timeout", timeOut: 1},
		{name: "half a hello", timeout: 20 * time.Millisecond, client: func(c *client) { c.send("\x16\x03\x01\x02\x00\x01\x00") },
			kind: mesh.RequestReadTimeout, details: "transport_socket_connect_timeout", reason: "took too long", timeOut: 1},
		{name: "plain text", client: func(c *client) { c.send("GET / HTTP/1.1\r\n\r\n") }, kind: mesh.DownstreamProtocolError,
			details: "handshake_failed", reason: "does not speak TLS"},
		{name: "hangs up at once", client: func(c *client) { c.Close() }, kind: mesh.DownstreamClosed, details: "closed_before_handshake"},
		{name: "hangs up in the middle", client: func(c *client) { c.send("\x16\x03\x01"); c.Close() }, kind: mesh.DownstreamClosed,
			details: "closed_during_handshake", reason: "was closed"},
		{name: "does not trust it", client: func(c *client) {
			tls.Client(c.Conn, &tls.Config{ServerName: "a.test", RootCAs: x509.NewCertPool()}).Handshake()
		},
			kind: mesh.DownstreamProtocolError, details: "handshake_failed", reason: "alert of the other side"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			fc := secure(t, ca, "a.test", chainOf("a", toyKind{}))
			fc.HandshakeTimeout = tc.timeout
			l := plain("l", fc)
			r.apply(l)
			c := r.dial("l")
			tc.client(c)
			o := r.waitOutcomes(1)[0]
			if o.Failure != tc.kind || o.Details != tc.details || !strings.Contains(o.DownstreamTransportFailure, tc.reason) || o.Side != mesh.SideDownstream {
				t.Errorf("outcome %s %s %q", o.Failure, o.Details, o.DownstreamTransportFailure)
			}
			r.set.Drain(t.Context(), All)
			if n := r.stat(l, "downstream_cx_transport_socket_connect_timeout"); n != tc.timeOut {
				t.Errorf("%d timeouts, want %d", n, tc.timeOut)
			}
			if total, active := r.stat(l, "downstream_cx_total"), r.stat(l, "downstream_cx_active"); total != 1 || active != 0 {
				t.Errorf("total %d, active %d", total, active)
			}
			if len(r.outcomes) != 1 || len(r.handlers["a"].infos) != 0 {
				t.Errorf("%d outcomes, %d connections served", len(r.outcomes), len(r.handlers["a"].infos))
			}
		})
	}
}

// helloOnly keeps the first that a client says.
type helloOnly struct {
	net.Conn
	said []byte
}

func (h *helloOnly) Write(p []byte) (int, error) {
	h.said = append(h.said, p...)
	return len(p), nil
}

func (h *helloOnly) Read([]byte) (int, error) { return 0, io.EOF }
func (h *helloOnly) Close() error             { return nil }

// Above the bound, handshakes wait for others to end.
func TestHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Handshakes = 1 })
	ca := testcert.New(t)
	l := plain("l", secure(t, ca, "a.test", chainOf("a", toyKind{})))
	r.apply(l)
	first := r.dial("l")
	hello := &helloOnly{}
	tls.Client(hello, &tls.Config{ServerName: "a.test"}).Handshake()
	first.send(string(hello.said))
	if _, err := first.r.ReadByte(); err != nil { // it is answered, so it has the place
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := r.dialTLS("l", ca, "a.test")
		c.send("hello")
		c.want("a:5")
	}()
	select {
	case <-done:
		t.Error("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	<-done
}

// A context that cannot be honoured rejects the listener.
func TestBadTLSContext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fc := chainOf("a", toyKind{})
	fc.TLS = &mesh.TLSContext{}
	rej := r.set.Apply([]*mesh.Listener{plain("l", fc)}, mesh.Versions{})
	if len(rej) != 1 || !strings.Contains(rej[0].Reason, "transport_socket: no certificate") {
		t.Errorf("rejections %+v", rej)
	}
}

// A set that closes ends the connections whose handshake is under way, and waits for them.
func TestCloseDuringHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := testcert.New(t)
	r.apply(plain("l", secure(t, ca, "a.test", chainOf("a", toyKind{}))))
	var clients []net.Conn
	for i := range 20 {
		c := r.dial("l")
		if i%2 == 0 {
			c.send("\x16\x03\x01\x02\x00\x01\x00")
		}
		clients = append(clients, c)
	}
	r.set.Close()
	if n := len(r.waitOutcomes(len(clients))); n != len(clients) {
		t.Errorf("%d outcomes, want %d", n, len(clients))
	}
}
