// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"
)

// Socket options that package syscall does not name on all architectures.
const (
	soReusePort = 0xf
	// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST of netfilter have the same value, at different levels.
	soOriginalDst = 80
)

// SetReusePort lets several sockets of the same user bind the same address (socket(7), SO_REUSEPORT).
func SetReusePort(fd int) error {
	return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1)
}

// OriginalDst returns where a TCP connection was going before netfilter's REDIRECT sent it here. v6 says whether the
// socket speaks IPv6. The error is ENOENT where the connection is not tracked, and ENOPROTOOPT where nothing tracks
// connections; a tracked connection that was not redirected gives its local address.
func OriginalDst(fd int, v6 bool) (netip.AddrPort, error) {
	var b [syscall.SizeofSockaddrInet6]byte
	level := syscall.IPPROTO_IP
	if v6 {
		level = syscall.IPPROTO_IPV6
	}
	n := uint32(len(b))
	_, _, e := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst,
		uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return sockaddr(b[:n])
}

// sockaddr reads a sockaddr_in or sockaddr_in6: family and scope in the host's byte order, the rest in the network's.
func sockaddr(b []byte) (netip.AddrPort, error) {
	if len(b) < 2 {
		return netip.AddrPort{}, syscall.EINVAL
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == syscall.AF_INET && len(b) >= syscall.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), nil
	case family == syscall.AF_INET6 && len(b) >= syscall.SizeofSockaddrInet6:
		ip := zoned(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), binary.NativeEndian.Uint32(b[24:]))
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:])), nil
	}
	return netip.AddrPort{}, syscall.EAFNOSUPPORT
}

// zoned adds the zone of a link-local IPv6 address: the name of the interface with this index. The system gives 0 for other
// addresses; an interface that has just gone leaves the address without a zone.
func zoned(ip netip.Addr, scope uint32) netip.Addr {
	if scope == 0 || ip.Is4() {
		return ip
	}
	i, err := net.InterfaceByIndex(int(scope))
	if err != nil {
		return ip
	}
	return ip.WithZone(i.Name)
}

// MaxFiles returns how many descriptors this process may hold (the soft limit of RLIMIT_NOFILE).
func MaxFiles() (int, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	return int(min(r.Cur, 1<<30)), nil
}
