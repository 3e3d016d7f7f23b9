// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// hang is how long a test waits for what must come. It is no bound on speed.
const hang = 20 * time.Second

// rig is an engine, an authority and numbers.
type rig struct {
	testing.TB
	engine *socket.Engine
	ca     *testcert.Authority
	stats  *metrics.TLS
	reg    *stats.Registry
}

func newRig(t testing.TB) *rig {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{Sets: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		if n := e.Bufs.InUse(); n != 0 {
			t.Errorf("%d buffers were not given back", n)
		}
	})
	reg := stats.NewRegistry(stats.Options{})
	return &rig{TB: t, engine: e, ca: testcert.New(t), stats: metrics.NewListenerTLS(reg, "l"), reg: reg}
}

func meshCert(p *testcert.Pair) *mesh.TLSCertificate {
	return &mesh.TLSCertificate{Chain: []*x509.Certificate{p.Leaf}, Key: p.PrivateKey.(crypto.Signer)}
}

// server returns a Server for server.test.
func (r *rig) server(change func(*mesh.TLSContext)) *Server {
	r.Helper()
	m := &mesh.TLSContext{Certificates: []*mesh.TLSCertificate{meshCert(r.ca.Issue(r, "server.test"))}}
	if change != nil {
		change(m)
	}
	s, err := NewServer(m, nil, r.stats)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// trust is the configuration of a client that knows the authority.
func (r *rig) trust() *tls.Config {
	return &tls.Config{RootCAs: r.ca.Pool(), ServerName: "server.test"}
}

func (r *rig) roots() *mesh.TLSValidation {
	return &mesh.TLSValidation{Roots: []*x509.Certificate{r.ca.Certificate}}
}

// shaker makes the handshake and then hands the connection to what serves it.
type shaker struct {
	server   *Server
	deadline time.Duration
	serve    func(w *socket.Worker, c *socket.Conn) bool
	info     *mesh.TLSInfo
	err      *Error
	done     chan struct{} // closed at the end
	shaken   chan struct{} // closed after the handshake
}

func (h *shaker) Ready(w *socket.Worker, c *socket.Conn) bool {
	if h.info == nil {
		h.info, h.err = h.server.Handshake(w, c, mono.Now()+int64(h.deadline))
		close(h.shaken)
		if h.err != nil {
			return false
		}
	}
	return h.serve(w, c)
}

func (h *shaker) Closed(*socket.Conn) { close(h.done) }

// echo writes back what comes until the end.
func echo(w *socket.Worker, c *socket.Conn) bool {
	b := c.Bufs().Get()
	defer c.Bufs().Put(b)
	for {
		n, err := c.TryRead(b.Free())
		if err == socket.ErrWouldBlock {
			return true
		}
		if err != nil || c.Write(w, b.Free()[:n]) != nil {
			return false
		}
	}
}

// accept makes one connection: the far end, and the handler that serves the near one.
func (r *rig) accept(s *Server, serve func(*socket.Worker, *socket.Conn) bool) (net.Conn, *shaker) {
	r.Helper()
	far, fd := r.pair()
	h := &shaker{server: s, deadline: hang, serve: serve, done: make(chan struct{}), shaken: make(chan struct{})}
	r.Cleanup(func() { far.Close(); r.wait("the end", h.done) })
	if err := r.engine.Adopt(fd, h).Start(false); err != nil {
		r.Fatal(err)
	}
	return far, h
}

// pair makes a TCP connection: one end for package net, and the descriptor of the other.
func (r *rig) pair() (net.Conn, int) {
	r.Helper()
	l, err := socket.ListenTCP(loopback, socket.ListenOptions{})
	if err != nil {
		r.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	far.SetDeadline(time.Now().Add(hang))
	fd, _, err := l.Accept()
	if err != nil {
		r.Fatal(err)
	}
	return far, fd
}

func (r *rig) wait(what string, ch <-chan struct{}) {
	r.Helper()
	select {
	case <-ch:
	case <-time.After(hang):
		r.Fatalf("%s did not come", what)
	}
}

// count returns a number by its name without the prefix.
func (r *rig) count(name string) int64 {
	r.Helper()
	var n int64
	r.reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == "listener.l.ssl."+name {
			n = m.Value
		}
		return true
	})
	return n
}

// say sends a message and wants it back.
func say(t testing.TB, c io.ReadWriter, msg []byte) {
	t.Helper()
	go c.Write(msg)
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
		t.Fatalf("of %d bytes came back others, or %v", len(msg), err)
	}
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")
