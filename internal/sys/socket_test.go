// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fdOf returns a connection's descriptor, which stays the connection's.
func fdOf(t *testing.T, c any) (fd int) {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// connect returns the two ends of a connection.
func connect(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	to := ln.Addr().String()
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok { // which has lost the zone
		host, _, _ := net.SplitHostPort(address)
		to = net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	}
	if client, err = net.Dial(network, to); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// linkLocal returns a link-local address of this host with its zone; none is a reason to skip.
func linkLocal(t *testing.T) string {
	t.Helper()
	is, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range is {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return n.IP.String() + "%" + i.Name
			}
		}
	}
	t.Skip("this host has no link-local IPv6 address")
	return ""
}

func TestAddrs(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(*testing.T) string{
		"ipv4":            func(*testing.T) string { return "127.0.0.1" },
		"ipv6":            func(*testing.T) string { return "::1" },
		"ipv6 link-local": linkLocal,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := connect(t, "tcp", net.JoinHostPort(at(t), "0"))
			for _, end := range []net.Conn{c, s} {
				local, err1 := LocalAddr(fdOf(t, end))
				remote, err2 := RemoteAddr(fdOf(t, end))
				if err := errors.Join(err1, err2); err != nil || local.String() != end.LocalAddr().String() || remote.String() != end.RemoteAddr().String() {
					t.Errorf("%v and %v, %v; want %v and %v", local, remote, err, end.LocalAddr(), end.RemoteAddr())
				}
			}
		})
	}
}

// IPv4 on a socket of IPv6 is IPv4.
func TestAddrsMapped(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ln.Addr().(*net.TCPAddr).AddrPort().Port()).String())
	if err != nil {
		t.Skip(err)
	}
	defer c.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if remote, err := RemoteAddr(fdOf(t, s)); err != nil || remote.String() != c.LocalAddr().String() {
		t.Errorf("%v, %v; want %v", remote, err, c.LocalAddr())
	}
}

// An address that is longer than the room for it is cut by the system, which tells its whole length all the same.
func TestAddrsOfAUnixSocket(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"short": "s", "long": strings.Repeat("s", 40)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, s := connect(t, "unix", filepath.Join(t.TempDir(), path))
			local, err1 := LocalAddr(fdOf(t, s))
			remote, err2 := RemoteAddr(fdOf(t, s))
			if err1 != syscall.EAFNOSUPPORT || err2 != syscall.EAFNOSUPPORT || local.IsValid() || remote.IsValid() {
				t.Errorf("%v, %v; %v, %v", local, err1, remote, err2)
			}
		})
	}
}

func TestAddrsOfNoConnection(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err := RemoteAddr(fdOf(t, ln)); err != syscall.ENOTCONN || a.IsValid() {
		t.Errorf("%v, %v", a, err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	c, s := connect(t, "tcp", "127.0.0.1:0")
	fd, e := Dup(fdOf(t, s))
	if e != 0 {
		t.Fatal(e)
	}
	s.Close()
	Close(fd) // the last descriptor of the connection
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v; want the end", n, err)
	}
}
