// SPDX-License-Identifier: Apache-2.0

package sys

import (
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

// Accept takes the next connection from a non-blocking listener; the new descriptor does not block either.
func Accept(fd int) (nfd int, e syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), 0, 0, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		if e != syscall.EINTR && e != syscall.ECONNABORTED {
			return int(r), e
		}
	}
}
