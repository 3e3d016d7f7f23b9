// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"net"
	"runtime"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// maxIdleBytes is the most that an idle TLS connection may cost, in bytes of heap: the floor of the performance goals.
const maxIdleBytes = 20 << 10

// TestIdleMemory measures what an idle connection holds after its handshake and requests of some sizes.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has a memory of its own")
	}
	for _, tc := range []struct {
		name    string
		request int
		version uint16
		change  func(*rig, *mesh.TLSContext)
	}{
		{"TLSv1.3, requests of 300 bytes", 300, tls.VersionTLS13, nil},
		{"TLSv1.3, requests of 64 KiB", 64 << 10, tls.VersionTLS13, nil},
		{"TLSv1.2, requests of 300 bytes", 300, tls.VersionTLS12, nil},
		{"TLSv1.3, with client certificates", 300, tls.VersionTLS13, func(r *rig, m *mesh.TLSContext) {
			m.Validation, m.RequireClientCertificate = r.roots(), true
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const n = 400
			r := newRig(t)
			s := r.server(func(m *mesh.TLSContext) {
				if tc.change != nil {
					tc.change(r, m)
				}
			})
			cfg := r.trust()
			cfg.MaxVersion = tc.version
			cfg.Certificates = []tls.Certificate{r.ca.Issue(t, "client.test").Certificate}
			fds := make([]int, 0, n)
			hs := make([]*bare, 0, n)
			defer func() {
				for i := range fds {
					syscall.Close(fds[i])
				}
				for i := range hs {
					r.wait("the end", hs[i].done)
				}
			}()
			one := func() {
				far, fd := r.pair()
				h := &bare{server: s, done: make(chan struct{})}
				if err := r.engine.Adopt(fd, h).Start(false); err != nil {
					t.Fatal(err)
				}
				c := tls.Client(far, cfg)
				for range 3 {
					say(t, c, bytes.Repeat([]byte("x"), tc.request))
				}
				fds, hs = append(fds, keepOpen(t, far)), append(hs, h)
			}
			one()
			before := heap()
			for range n - 1 {
				one()
			}
			each := (heap() - before) / (n - 1)
			t.Logf("%d bytes each", each)
			if each > maxIdleBytes {
				t.Errorf("an idle connection holds %d bytes, of which %d are allowed", each, maxIdleBytes)
			}
		})
	}
}

// bare is a handler that keeps nothing.
type bare struct {
	server *Server
	shaken bool
	done   chan struct{}
}

func (h *bare) Ready(w *socket.Worker, c *socket.Conn) bool {
	if !h.shaken {
		s := shaker{server: h.server, deadline: hang, serve: echo, shaken: make(chan struct{})}
		h.shaken = true
		return s.Ready(w, c)
	}
	return echo(w, c)
}

func (h *bare) Closed(*socket.Conn) { close(h.done) }

// keepOpen returns a descriptor of the connection, of which nothing else is left.
func keepOpen(t *testing.T, c net.Conn) int {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	rc.Control(func(old uintptr) { fd, err = syscall.Dup(int(old)) })
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return fd
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
