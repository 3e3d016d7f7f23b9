// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meshtap/meshtap/internal/sys"
)

// ErrStopped is returned by Accept once the listener was stopped and its queue is empty.
var ErrStopped = errors.New("socket: the listener has stopped")

// Listener is a listening socket. Its goroutine sleeps in the runtime's poller, one call of Accept at a time; only Stop
// and the address may be called from elsewhere.
type Listener struct {
	file    *os.File
	rc      syscall.RawConn
	fd      int
	addr    netip.AddrPort // of TCP
	path    string         // of a unix socket in the file system, to be removed again
	inode   uint64
	stopped atomic.Bool

	// What the last step of Accept took. They belong to its goroutine.
	try   func(uintptr) bool // step
	got   int
	from  netip.AddrPort
	errno syscall.Errno
}

// ListenOptions are the options of a listening socket.
type ListenOptions struct {
	// Backlog bounds the queue of connections that were not accepted yet; 0 means as many as the system allows.
	Backlog int
	// ReusePort lets other sockets of the same user listen on the same address.
	ReusePort bool
}

// systemBacklog is more than the system allows (net.core.somaxconn), which then decides.
const systemBacklog = 1<<16 - 1

func (o ListenOptions) backlog() int {
	if o.Backlog == 0 {
		return systemBacklog
	}
	return o.Backlog
}

// ListenTCP listens on addr. An IPv6 socket takes no IPv4 connections, as Envoy's ipv4_compat is off by default.
// Accepted connections inherit TCP_NODELAY from the listening socket.
func ListenTCP(addr netip.AddrPort, o ListenOptions) (*Listener, error) {
	sa, family, err := sockaddrOf(addr)
	if err != nil {
		return nil, err
	}
	return listen(family, sa, o, func(fd int) error {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if o.ReusePort {
			if err := sys.SetReusePort(fd); err != nil {
				return err
			}
		}
		if family == syscall.AF_INET6 {
			if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1); err != nil {
				return err
			}
		}
		return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	})
}

// ListenUnix listens on a unix socket; a path that begins with '@' is in the abstract namespace. A socket that a process
// left behind is replaced; one on which somebody still answers, and any other kind of file, is an error.
func ListenUnix(path string, o ListenOptions) (*Listener, error) {
	if path[0] != '@' {
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	l, err := listen(syscall.AF_UNIX, &syscall.SockaddrUnix{Name: path}, o, func(int) error { return nil })
	if err != nil || path[0] == '@' {
		return l, err
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err == nil {
		l.path, l.inode = path, st.Ino
	}
	return l, nil
}

func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return syscall.EADDRINUSE
	}
	return os.Remove(path)
}

func sockaddrOf(addr netip.AddrPort) (sa syscall.Sockaddr, family int, err error) {
	ip := addr.Addr()
	if ip.Is4() {
		return &syscall.SockaddrInet4{Addr: ip.As4(), Port: int(addr.Port())}, syscall.AF_INET, nil
	}
	if !ip.Is6() || ip.Is4In6() {
		return nil, 0, fmt.Errorf("%v is no address to listen on", addr)
	}
	v6 := &syscall.SockaddrInet6{Addr: ip.As16(), Port: int(addr.Port())}
	if z := ip.Zone(); z != "" {
		if n, err := strconv.ParseUint(z, 10, 32); err == nil {
			v6.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(z); err == nil {
			v6.ZoneId = uint32(i.Index)
		} else {
			return nil, 0, fmt.Errorf("the zone of %v: %w", addr, err)
		}
	}
	return v6, syscall.AF_INET6, nil
}

func listen(family int, sa syscall.Sockaddr, o ListenOptions, prepare func(fd int) error) (*Listener, error) {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = prepare(fd); err == nil {
		err = syscall.Bind(fd, sa)
	}
	if err == nil {
		err = syscall.Listen(fd, o.backlog())
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "listener"), fd: fd}
	l.try = l.step
	if l.rc, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	l.addr, _ = sys.LocalAddr(fd) // a unix socket has none
	return l, nil
}

// Addr returns the address of a TCP listener, with the port that the system chose where none was given.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// SetBacklog changes the bound of the queue; 0 means as many as the system allows.
func (l *Listener) SetBacklog(n int) error {
	return syscall.Listen(l.fd, ListenOptions{Backlog: n}.backlog())
}

// Accept waits for a connection and returns its descriptor, which does not block, and of TCP where it comes from. After Stop
// it returns what is in the queue, then ErrStopped. Other errors are the system's: out of descriptors or memory, or the next
// connection's own.
func (l *Listener) Accept() (fd int, from netip.AddrPort, err error) {
	if !l.stopped.Load() {
		if err := l.rc.Read(l.try); err == nil {
			return l.result()
		}
		if !l.stopped.Load() {
			return -1, from, net.ErrClosed
		}
	}
	if !l.step(0) {
		return -1, from, ErrStopped
	}
	return l.result()
}

// step runs inside RawConn.Read, which forgets earlier edges when it begins; that is why it tries before it waits.
func (l *Listener) step(uintptr) bool {
	l.got, l.from, l.errno = sys.Accept(l.fd)
	return l.errno != syscall.EAGAIN
}

func (l *Listener) result() (int, netip.AddrPort, error) {
	if l.errno != 0 {
		return -1, l.from, l.errno
	}
	return l.got, l.from, nil
}

// Stop makes Accept return what is in the queue and then ErrStopped. It may be called more than once.
func (l *Listener) Stop() {
	l.stopped.Store(true)
	l.file.SetReadDeadline(past)
}

// Close closes the socket. Only the goroutine that accepts may call it, or the owner where there is none.
func (l *Listener) Close() {
	l.file.Close()
	var st syscall.Stat_t
	if l.path != "" && syscall.Lstat(l.path, &st) == nil && st.Ino == l.inode {
		os.Remove(l.path)
	}
}

// Handler returns the handler that serves the connection now. Only the handler itself may ask, from Ready; a handler
// that stands for another one finds in this way that it was replaced by Handle.
func (c *Conn) Handler() Handler { return c.h }

// Look makes Ready run once more even though there may be nothing to read: at once where the connection is idle, and
// where it is busy as soon as it would become idle. So a drain is not missed. It may be called from any goroutine, after
// Start has returned.
func (c *Conn) Look() {
	for {
		switch c.state.Load() {
		case idle:
			if c.state.CompareAndSwap(idle, busy) {
				c.set.e.Go(c)
				return
			}
		case busy:
			if c.state.CompareAndSwap(busy, again) {
				return
			}
		default:
			return
		}
	}
}
