// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func TestSockaddr(t *testing.T) {
	t.Parallel()
	v4 := make([]byte, syscall.SizeofSockaddrInet4)
	binary.NativeEndian.PutUint16(v4, syscall.AF_INET)
	binary.BigEndian.PutUint16(v4[2:], 8080)
	copy(v4[4:], []byte{10, 1, 2, 3})
	v6 := make([]byte, syscall.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(v6, syscall.AF_INET6)
	binary.BigEndian.PutUint16(v6[2:], 443)
	ip := netip.MustParseAddr("2001:db8::7").As16()
	copy(v6[8:], ip[:])
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	linkLocal := netip.MustParseAddr("fe80::7").As16()
	scoped := append([]byte(nil), v6...)
	copy(scoped[8:], linkLocal[:])
	binary.NativeEndian.PutUint32(scoped[24:], uint32(loopback.Index))
	unscoped := append([]byte(nil), scoped...)
	binary.NativeEndian.PutUint32(unscoped[24:], 1<<30)
	unknown := make([]byte, syscall.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(unknown, syscall.AF_UNIX)
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"ipv4", v4, "10.1.2.3:8080"},
		{"ipv6", v6, "[2001:db8::7]:443"},
		{"ipv6 link-local", scoped, "[fe80::7%lo]:443"},
		{"ipv6 link-local of an interface that has gone", unscoped, "[fe80::7]:443"},
		{"other family", unknown, ""},
		{"ipv4 cut short", v4[:8], ""},
		{"ipv6 cut short", v6[:20], ""},
		{"empty", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := sockaddr(tc.b)
			if tc.want == "" {
				if err == nil {
					t.Fatalf("got %v, want an error", got)
				}
				return
			}
			if err != nil || got.String() != tc.want {
				t.Fatalf("got %v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// A connection that nobody redirected has no original destination, or its own local address. test/netns has the rest.
func TestOriginalDstOfAPlainConnection(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rc, err := a.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		if got, err := OriginalDst(int(fd), false); err == nil && got.String() != ln.Addr().String() {
			t.Errorf("original destination %v, want none or %v", got, ln.Addr())
		}
	})
}

func TestMaxFiles(t *testing.T) {
	t.Parallel()
	n, err := MaxFiles()
	if err != nil || n < 16 {
		t.Fatalf("got %d, %v", n, err)
	}
}
