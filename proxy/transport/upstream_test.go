// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/socket"
)

// readAll reads a peer to its end.
func (r *rig) readAll(w *socket.Worker, p *socket.Peer) (got []byte, err error) {
	for {
		var b *bytebuf.Buf
		if b, err = p.Recv(w, nil); err != nil {
			return got, err
		}
		got = append(got, b.Bytes()...)
		r.engine.Bufs.Put(b)
	}
}

// TestUpstreamEnds: an answer that ends with the connection is whole only where the upstream says so.
func TestUpstreamEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(*tls.Conn)
		want error
	}{
		{"close_notify", func(c *tls.Conn) { c.CloseWrite() }, io.EOF},
		{"no close_notify", func(c *tls.Conn) { c.NetConn().Close() }, ErrTruncated},
		{"half a record", func(c *tls.Conn) { c.NetConn().Write([]byte{23, 3, 3, 0, 100, 1, 2, 3}); c.NetConn().Close() }, ErrTruncated},
		{"a forged alert", func(c *tls.Conn) { c.NetConn().Write([]byte{21, 3, 3, 0, 2, 1, 0}); c.NetConn().Close() }, nil},
	} {
		for version, v := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
			t.Run(tc.name+" "+version, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				addr := r.upstream(&tls.Config{MaxVersion: v}, func(c *tls.Conn) {
					c.Write([]byte(secret))
					tc.end(c)
				})
				p, err := r.dial(r.client(nil), addr)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				r.onWorker(func(w *socket.Worker) {
					got, err := r.readAll(w, p)
					if string(got) != secret || tc.want != nil && err != tc.want || tc.want == nil && (err == io.EOF || err == nil) {
						t.Errorf("got %q, %v", got, err)
					}
				})
			})
		}
	}
}

// TestUpstreamHalfClose: what the upstream says after our end still comes, and it sees that end as one in order.
func TestUpstreamHalfClose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := r.upstream(&tls.Config{}, func(c *tls.Conn) {
		got, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		c.Write(append([]byte("you said "), got...))
	})
	p, err := r.dial(r.client(nil), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r.onWorker(func(w *socket.Worker) {
		if err := p.Write(w, []byte(secret)); err != nil {
			t.Error(err)
		}
		if err := p.CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := r.readAll(w, p); string(got) != "you said "+secret || err != io.EOF {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestUpstreamStale: an idle connection on which the upstream has said goodbye, or something that nobody asked for, is of no
// use.
func TestUpstreamStale(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(*tls.Conn){
		"close_notify": func(c *tls.Conn) { c.CloseWrite() },
		"unasked":      func(c *tls.Conn) { io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n") },
		"not sealed":   func(c *tls.Conn) { io.WriteString(c.NetConn(), "HTTP/1.1 408 Request Timeout\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			go1, said, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
			addr := r.upstream(&tls.Config{}, func(c *tls.Conn) {
				if c.Handshake() != nil {
					return
				}
				<-go1
				say(c)
				close(said)
				<-over
			})
			p, err := r.dial(r.client(nil), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			defer close(over)
			if p.Stale() {
				t.Error("it is stale at once")
			}
			close(go1)
			r.wait("what it says", said)
			for !p.Stale() { // loopback may take a moment
			}
		})
	}
}

// TestUpstreamReset: a reset tells the upstream that not all was said.
func TestUpstreamReset(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ended := make(chan error, 1)
	addr := r.upstream(&tls.Config{}, func(c *tls.Conn) {
		_, err := io.ReadAll(c)
		ended <- err
	})
	p, err := r.dial(r.client(nil), addr)
	if err != nil {
		t.Fatal(err)
	}
	r.onWorker(func(w *socket.Worker) {
		if err := p.Write(w, []byte(secret)); err != nil {
			t.Error(err)
		}
	})
	p.Reset()
	p.Close()
	var op *net.OpError
	if err := <-ended; !errors.As(err, &op) {
		t.Errorf("the upstream saw %v", err)
	}
}

// TestBothOurs: our two sides speak to each other over sockets that take little at a time, so that both hold ciphertext and
// wait in the middle of records, in both directions at once.
func TestBothOurs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s, cl := r.server(nil), r.client(nil)
	l, err := socket.ListenTCP(loopback, socket.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const n = 12
	wg.Go(func() {
		defer l.Close()
		for range n {
			fd, _, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4<<10)
			h := &shaker{server: s, deadline: hang, serve: echo, done: make(chan struct{}), shaken: make(chan struct{})}
			if err := r.engine.Adopt(fd, h).Start(false); err != nil {
				t.Error(err)
			}
			wg.Go(func() { r.wait("the end", h.done) })
		}
	})
	for i := range n {
		wg.Go(func() {
			p, err := r.dial(cl, l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			syscall.SetsockoptInt(p.FD(), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4<<10)
			r.onWorker(func(w *socket.Worker) {
				for k, size := range []int{1, 1000, 20_000, 300_000, 17} {
					msg := make([]byte, size+i)
					for j := range msg {
						msg[j] = byte(j*i + k)
					}
					if err := r.exchange(w, p, msg); err != nil {
						t.Errorf("connection %d, message %d: %v", i, k, err)
						return
					}
				}
			})
		})
	}
	wg.Wait()
	if r.count("handshake") != 2*n {
		t.Errorf("%d handshakes, want %d", r.count("handshake"), 2*n)
	}
}
