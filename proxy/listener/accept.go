// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// acceptPause is how long accepting rests when there are no descriptors or no memory. Connections wait in the queue.
const acceptPause = 100 * time.Millisecond

var errReserve = fmt.Errorf("only the last %d descriptors are left, which are kept for the admin interface", reservedFiles)

// socketKey says which sockets are the same.
type socketKey struct {
	addr      mesh.Address
	reusePort bool
	// name is the listener's where the system chooses the port, since such addresses are never the same.
	name string
}

func keyOf(l *mesh.Listener) socketKey {
	k := socketKey{addr: l.Address, reusePort: l.ReusePort}
	if l.Address.Pipe == "" && l.Address.IP.Port() == 0 {
		k.name = l.Name
	}
	return k
}

// boundSocket is a listening socket and the goroutine that accepts from it.
type boundSocket struct {
	set   *Set
	key   socketKey
	sock  *socket.Listener
	shard uint32
	owner atomic.Pointer[listener] // who gets the connections

	backlog  int           // guarded by set.mu
	stopping chan struct{} // closed to end the goroutine
	done     chan struct{} // closed when it has ended: its queue was empty, the socket is closed
}

// bind opens the socket of a listener. Nothing is accepted before run.
func (s *Set) bind(m *mesh.Listener) (*boundSocket, error) {
	var sock *socket.Listener
	var err error
	o := socket.ListenOptions{Backlog: m.Backlog, ReusePort: m.ReusePort}
	if m.Address.Pipe != "" {
		sock, err = socket.ListenUnix(m.Address.Pipe, o)
	} else {
		sock, err = socket.ListenTCP(m.Address.IP, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", m.Address, err, hint(m, err))
	}
	return &boundSocket{set: s, key: keyOf(m), sock: sock, shard: uint32(len(s.sockets)),
		backlog: m.Backlog, stopping: make(chan struct{}), done: make(chan struct{})}, nil
}

// hint says what a person can do about a socket that could not be bound.
func hint(m *mesh.Listener, err error) string {
	switch {
	case m.Address.Pipe != "":
		return ""
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return " (ports below net.ipv4.ip_unprivileged_port_start, 1024 by default, need CAP_NET_BIND_SERVICE)"
	case errors.Is(err, syscall.EADDRINUSE):
		return " (another process, or another listener of this one, holds the address; enable_reuse_port on both lets them share it)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return " (no interface of this host has the address)"
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return " (this host does not speak IPv6)"
	}
	return ""
}

// address returns where it listens, with the port that the system chose.
func (b *boundSocket) address() mesh.Address {
	if b.key.addr.Pipe != "" {
		return b.key.addr
	}
	return mesh.Address{IP: b.sock.Addr()}
}

// tcp returns the address of a TCP socket; ok is false for others.
func (b *boundSocket) tcp() (at netip.AddrPort, ok bool) { return b.sock.Addr(), b.key.addr.Pipe == "" }

// run accepts until stop, and then takes what is still in the queue.
func (b *boundSocket) run() {
	defer close(b.done)
	defer b.sock.Close()
	paused := false
	for {
		fd, from, err := b.sock.Accept()
		l := b.owner.Load()
		switch {
		case err == nil && fd >= b.set.ceiling:
			// One of the last descriptors. It was the queue's turn, so this connection is lost; the others wait.
			syscall.Close(fd)
			err = errReserve
			l.cfg.Load().metrics.Inc(b.shard, metrics.ListenerDownstreamGlobalCxOverflow)
		case err == nil:
			if paused {
				paused = false
				b.set.cfg.Log.Info("accepting again", zap.String("listener", l.name))
			}
			b.set.accept(l, fd, from, b.shard)
			continue
		case errors.Is(err, socket.ErrStopped), errors.Is(err, net.ErrClosed):
			return
		}
		b.set.numbers.Inc(b.shard, metrics.ListenerAcceptPauses)
		if !paused {
			paused = true
			b.set.cfg.Log.Warn("accepting pauses", zap.String("listener", l.name), zap.Error(err))
		}
		if !b.rest() {
			return
		}
	}
}

// rest waits a while. It reports false where there is no use in going on: the socket is stopped and still nothing can be
// accepted.
func (b *boundSocket) rest() bool {
	select {
	case <-b.stopping:
		return false
	default:
	}
	t := time.NewTimer(acceptPause)
	defer t.Stop()
	select {
	case <-b.stopping:
	case <-t.C:
	}
	return true
}

// stop ends run. It is called once.
func (b *boundSocket) stop() {
	close(b.stopping)
	b.sock.Stop()
}
