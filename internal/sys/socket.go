// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"net/netip"
	"syscall"
	"unsafe"
)

// Recv reads from a non-blocking socket. n is 0 at the end of the stream.
func Recv(fd int, p []byte) (n int, e syscall.Errno) { return recv(fd, p, 0) }

// Peek is Recv without taking the bytes.
func Peek(fd int, p []byte) (n int, e syscall.Errno) { return recv(fd, p, syscall.MSG_PEEK) }

func recv(fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// Send writes to a non-blocking socket and never raises SIGPIPE.
func Send(fd int, p []byte) (n int, e syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// Accept takes the next connection from a non-blocking listener, and says where a TCP connection comes from; the new
// descriptor does not block either.
func Accept(fd int) (nfd int, from netip.AddrPort, e syscall.Errno) {
	var b [syscall.SizeofSockaddrInet6]byte
	for {
		n := uint32(len(b))
		r, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)),
			syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			from, _ = sockaddr(b[:min(int(n), len(b))]) // none of a unix socket
			return int(r), from, 0
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			return -1, from, e
		}
	}
}

// Dup returns another descriptor of the same open file, which is closed on exec and shares the file's mode.
func Dup(fd int) (nfd int, e syscall.Errno) {
	r, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	return int(r), e
}

// Close closes the descriptor of a socket. That waits for nobody: what is unsent goes on to be sent after the call, and the
// reset that unread bytes or SO_LINGER with a time of 0 ask for is not answered (socket(7), RFC 9293 section 3.10.4). With a
// longer time, the call would wait for the other side and hold the processor meanwhile, whatever the descriptor's mode: such
// a socket must not be closed in this way.
func Close(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// LocalAddr returns the address of a TCP socket. Other sockets have none: EAFNOSUPPORT.
func LocalAddr(fd int) (netip.AddrPort, error) { return name(syscall.SYS_GETSOCKNAME, fd) }

// RemoteAddr returns the address that a TCP socket is connected to, as LocalAddr does. ENOTCONN says that it no longer is.
func RemoteAddr(fd int) (netip.AddrPort, error) { return name(syscall.SYS_GETPEERNAME, fd) }

func name(call uintptr, fd int) (netip.AddrPort, error) {
	var b [syscall.SizeofSockaddrInet6]byte
	n := uint32(len(b))
	_, _, e := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return sockaddr(b[:min(int(n), len(b))]) // n is longer where the address did not fit
}
