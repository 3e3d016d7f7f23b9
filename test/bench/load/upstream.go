// SPDX-License-Identifier: Apache-2.0

package load

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// listener takes the proxy's connections to one upstream.
type listener struct{ fd, index int }

func (p *listener) ready(l *loop, _ uint32) {
	for {
		fd, err := accept(p.fd)
		if err != nil {
			return // nobody waits, or he who did has gone
		}
		l.result.Connections[p.index]++
		var conn endpoint = &upstream{fd: fd, index: p.index}
		if l.job.Up == HTTP2 {
			conn = l.serve(fd, p.index)
		}
		if err := l.add(fd, conn, unix.EPOLLIN); err != nil {
			l.fault(&l.result.Errors, "%v", err)
		}
	}
}

// upstream answers every request on one connection of the proxy, in order.
type upstream struct {
	fd, index int
	unsent    []byte
	in        message
}

func (u *upstream) ready(l *loop, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		l.watch(u.fd, unix.EPOLLIN)
		if !u.flush(l) {
			return
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	n, e := read(u.fd, l.scratch)
	if e == syscall.EAGAIN {
		return
	}
	if e != 0 || n == 0 {
		l.remove(u.fd)
		return
	}
	for b := l.scratch[:n]; len(b) > 0; {
		used, done, err := u.in.feed(b)
		if err != nil || done && u.in.body != int64(l.job.Upload) {
			l.fault(&l.result.Bad, "the proxy sent a request with %d bytes of body: %v", u.in.body, err)
			l.remove(u.fd)
			return
		}
		if b = b[used:]; !done {
			continue
		}
		l.result.Answers[u.index]++
		if len(u.unsent) > 0 {
			l.fault(&l.result.Bad, "the proxy sent a request before it took the answer to the last one")
			l.remove(u.fd)
			return
		}
		if u.unsent = l.response; !u.flush(l) {
			return
		}
	}
}

// flush writes what it can; the rest waits for room. It reports whether the connection lives.
func (u *upstream) flush(l *loop) bool {
	n, e := write(u.fd, u.unsent)
	switch {
	case e == 0:
		u.unsent = u.unsent[n:]
	case e != syscall.EAGAIN:
		l.remove(u.fd)
		return false
	}
	if len(u.unsent) > 0 {
		l.watch(u.fd, unix.EPOLLIN|unix.EPOLLOUT)
	}
	return true
}
