// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// client returns a Client that trusts the authority, changed.
func (r *rig) client(change func(*mesh.TLSContext)) *Client {
	r.Helper()
	m := &mesh.TLSContext{SNI: "server.test", Validation: r.roots()}
	if change != nil {
		change(m)
	}
	c, err := NewClient(m, nil, r.stats)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

// upstream runs a TLS server that sends back what it gets, and returns its address.
func (r *rig) upstream(cfg *tls.Config, serve func(*tls.Conn)) string {
	r.Helper()
	if cfg.Certificates == nil {
		cfg.Certificates = []tls.Certificate{r.ca.Issue(r, "server.test").Certificate}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(hang))
			t := tls.Server(c, cfg)
			serve(t)
			t.Close()
		}
	}()
	r.Cleanup(func() { l.Close(); r.wait("the server's end", done) })
	return l.Addr().String()
}

func echoBack(c *tls.Conn) {
	io.Copy(c, c)
}

// job runs f on a worker and waits for its end.
type job struct {
	f    func(*socket.Worker)
	done chan struct{}
}

func (j *job) Run(w *socket.Worker) {
	defer close(j.done)
	j.f(w)
}

func (r *rig) onWorker(f func(*socket.Worker)) {
	r.Helper()
	j := &job{f, make(chan struct{})}
	r.engine.Go(j)
	r.wait("the worker", j.done)
}

func (r *rig) dial(cl *Client, addr string) (*socket.Peer, error) {
	d := &socket.Dialer{Timeout: hang, Secure: cl}
	return r.engine.Dial(context.Background(), d, "tcp", addr, nil)
}

// exchange sends a message on the peer while it reads it back.
func (r *rig) exchange(w *socket.Worker, p *socket.Peer, msg []byte) error {
	sent := make(chan error, 1)
	w.Go(&job{func(w *socket.Worker) { sent <- p.Write(w, msg) }, make(chan struct{})})
	for rest := msg; len(rest) > 0; {
		b, err := p.Recv(w, nil)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(rest, b.Bytes()) {
			return errors.New("other bytes came back")
		}
		rest = rest[b.Len():]
		r.engine.Bufs.Put(b)
	}
	return <-sent
}

func TestClientEcho(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			addr := r.upstream(&tls.Config{MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}}, echoBack)
			p, err := r.dial(r.client(func(m *mesh.TLSContext) { m.ALPN = []string{"http/1.1"} }), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.Protocol() != "http/1.1" {
				t.Errorf("negotiated %q", p.Protocol())
			}
			for _, n := range []int{1, 100, 16 << 10, 16<<10 + 1, 8 << 20} {
				r.onWorker(func(w *socket.Worker) {
					if err := r.exchange(w, p, bytes.Repeat([]byte{byte(n)}, n)); err != nil {
						t.Errorf("%d bytes: %v", n, err)
					}
				})
			}
			// Tickets that came behind the handshake do not make it stale, nor does what was read.
			if p.Stale() {
				t.Error("the idle connection is stale")
			}
			if r.count("handshake") != 1 || r.count("versions."+name) != 1 {
				t.Error("not counted")
			}
		})
	}
}

// TestClientVerifies: what is not verified gets no connection, and nothing in plain text.
func TestClientVerifies(t *testing.T) {
	t.Parallel()
	base := newRig(t)
	other := testcert.New(t)
	dns := func(name string) func(*mesh.TLSContext) {
		return func(m *mesh.TLSContext) {
			m.Validation.SANs = []mesh.SANMatch{{Type: mesh.SANDNS, Match: mesh.StringMatch{Value: name}}}
		}
	}
	for _, tc := range []struct {
		name    string
		shown   *testcert.Pair
		change  func(*mesh.TLSContext)
		want    string
		counter string
	}{
		{name: "good", shown: base.ca.Issue(t, "server.test"), change: dns("server.test")},
		{name: "the server name is no test", shown: base.ca.Issue(t, "elsewhere.test")},
		{name: "a wildcard", shown: base.ca.Issue(t, "*.test"), change: dns("server.test")},
		{name: "nothing to verify with", shown: other.Issue(t, "server.test"), change: func(m *mesh.TLSContext) { m.Validation = nil }},
		{name: "another authority", shown: other.Issue(t, "server.test"), want: "unknown authority", counter: "fail_verify_error"},
		{name: "expired", shown: base.ca.Issue(t, "server.test", testcert.Expired), want: "expired", counter: "fail_verify_error"},
		{name: "another name", shown: base.ca.Issue(t, "server.test"), change: dns("else.test"), want: "SAN matcher", counter: "fail_verify_san"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.ca = base.ca
			addr := r.upstream(&tls.Config{Certificates: []tls.Certificate{tc.shown.Certificate}}, echoBack)
			p, err := r.dial(r.client(tc.change), addr)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.Close()
				return
			}
			var failed *Error
			if !errors.As(err, &failed) || !strings.Contains(failed.Reason, tc.want) || r.count(tc.counter) != 1 {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if strings.Contains(failed.Reason, "127.0.0.1") || strings.Contains(failed.Reason, "server.test") {
				t.Errorf("%s tells of the host", failed.Reason)
			}
		})
	}
}

// TestClientFailures: a host that does not speak TLS, says nothing, or hangs up.
func TestClientFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		serve   func(net.Conn)
		timeout time.Duration
		want    string
		slow    bool
	}{
		{name: "plain text", serve: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }, want: "does not speak TLS"},
		{name: "hangs up", serve: func(net.Conn) {}, want: "was closed during the handshake"},
		{name: "says nothing", serve: func(c net.Conn) { io.Copy(io.Discard, c) }, timeout: 50 * time.Millisecond, want: "took too long", slow: true},
		{name: "says too much", serve: func(c net.Conn) {
			// Handshake records without end: a message of 64 KiB after the other, none of them known.
			record := append([]byte{22, 3, 3, 0x40, 0}, make([]byte, 16<<10)...)
			for {
				if _, err := c.Write(record); err != nil {
					return
				}
			}
		}, want: "TLS_error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err == nil {
					tc.serve(c)
					c.Close()
				}
			}()
			d := &socket.Dialer{Timeout: max(tc.timeout, 0), Secure: r.client(nil)}
			if d.Timeout == 0 {
				d.Timeout = hang
			}
			_, err = r.engine.Dial(context.Background(), d, "tcp", l.Addr().String(), nil)
			var failed *Error
			if !errors.As(err, &failed) || !strings.Contains(failed.Reason, tc.want) || os.IsTimeout(err) != tc.slow {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if r.count("connection_error") != 1 {
				t.Error("not counted")
			}
			l.Close()
			r.wait("the server's end", done)
		})
	}
}

// TestClientCancelled: a dial that is not wanted any more does not go on.
func TestClientCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 1)) // the hello has come
		cancel()
		io.Copy(io.Discard, c)
	}()
	if _, err := r.engine.Dial(ctx, &socket.Dialer{Timeout: hang, Secure: r.client(nil)}, "tcp", l.Addr().String(), nil); err == nil {
		t.Error("no error")
	}
}

// TestClientResumes: sessions are kept where the configuration says so, and the certificate counts all the same.
func TestClientResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := r.upstream(&tls.Config{}, echoBack)
	cl := r.client(func(m *mesh.TLSContext) { m.SessionKeys = 1 })
	for range 2 {
		p, err := r.dial(cl, addr)
		if err != nil {
			t.Fatal(err)
		}
		r.onWorker(func(w *socket.Worker) {
			if err := r.exchange(w, p, []byte("x")); err != nil {
				t.Error(err)
			}
		})
		p.Close()
	}
	if r.count("session_reused") != 1 {
		t.Errorf("%d sessions went on, want 1", r.count("session_reused"))
	}
}

// TestClientShowsItsCertificate to a server that asks.
func TestClientShowsItsCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := r.upstream(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: r.ca.Pool()}, echoBack)
	own := meshCert(r.ca.Issue(t, "client.test"))
	p, err := r.dial(r.client(func(m *mesh.TLSContext) { m.Certificates = []*mesh.TLSCertificate{own} }), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r.onWorker(func(w *socket.Worker) {
		if err := r.exchange(w, p, []byte("it is me")); err != nil {
			t.Error(err)
		}
	})
}
