// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"syscall"
	"unsafe"
)

// Event bits of epoll.
const (
	In    = syscall.EPOLLIN
	Out   = syscall.EPOLLOUT
	RdHup = syscall.EPOLLRDHUP
	Hup   = syscall.EPOLLHUP
	Err   = syscall.EPOLLERR
	Edge  = 1 << 31
)

// Event is one epoll_event. Data comes back as it was registered.
type Event struct {
	Events uint32
	// event is packed on amd64 only; see the files beside this one.
	data eventData
}

// Data returns what the descriptor was registered with.
func (e *Event) Data() uint64 { return e.data.get() }

// EpollCreate returns a new epoll descriptor that does not block.
func EpollCreate() (int, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// EpollAdd registers fd for events.
func EpollAdd(ep, fd int, events uint32, data uint64) syscall.Errno {
	return epollCtl(ep, syscall.EPOLL_CTL_ADD, fd, events, data)
}

func epollCtl(ep, op, fd int, events uint32, data uint64) syscall.Errno {
	e := Event{Events: events}
	e.data.set(data)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// EpollPoll takes the events that are there, without waiting.
func EpollPoll(ep int, evs []Event) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(evs))), uintptr(len(evs)), 0, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}
