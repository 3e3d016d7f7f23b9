// SPDX-License-Identifier: Apache-2.0

package load

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func (s *session) ready(l *loop, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		s.full = false
		l.watch(s.fd, unix.EPOLLIN)
		s.output()
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	n, e := read(s.fd, l.scratch)
	switch {
	case e == syscall.EAGAIN:
	case e != 0:
		s.lost(&l.result.Errors, "a connection: %v", e)
	case n == 0:
		s.lost(&l.result.Errors, "the proxy closed a connection with %d requests on it", len(s.streams))
	default:
		if err := s.take(l.scratch[:n]); err != nil {
			s.lost(&l.result.Bad, "%v", err)
		}
	}
}

// take takes bytes of the socket.
func (s *session) take(p []byte) error {
	if s.secure == nil {
		return s.feed(p)
	}
	s.secure.in.Write(p)
	for s.fd >= 0 {
		p, err := s.secure.read()
		if err != nil || len(p) == 0 {
			return err
		}
		if err := s.feed(p); err != nil {
			return err
		}
	}
	return nil
}

// output returns the bytes to append to. They are sent at the end of the turn.
func (s *session) output() []byte {
	if !s.queued {
		s.queued = true
		s.loop.unsent = append(s.loop.unsent, s)
	}
	return s.out
}

// flushAll sends what was gathered in this turn.
func (l *loop) flushAll() {
	// A connection that breaks may bring forth new requests.
	for i := 0; i < len(l.unsent); i++ {
		s := l.unsent[i]
		if s.queued = false; s.fd >= 0 && !s.full {
			s.flush()
		}
	}
	l.unsent = l.unsent[:0]
}

func (s *session) flush() {
	out := &s.out
	if s.secure != nil {
		s.secure.write(s.out)
		s.out, out = s.out[:0], &s.secure.out
	}
	if len(*out) == 0 {
		return
	}
	n, e := write(s.fd, *out)
	if e != 0 && e != syscall.EAGAIN {
		s.lost(&s.loop.result.Errors, "a connection: %v", e)
		return
	}
	if e == 0 {
		*out = append((*out)[:0], (*out)[n:]...)
	}
	if len(*out) > 0 {
		s.full = true
		s.loop.watch(s.fd, unix.EPOLLIN|unix.EPOLLOUT)
	}
}

// lost is the end of a connection. That of an upstream is the proxy's affair, unless it sent what is no request.
func (s *session) lost(count *uint64, format string, args ...any) {
	l, was := s.loop, s.streams
	if s.client || count == &l.result.Bad {
		l.fault(count, format, args...)
	}
	s.close()
	if !s.client {
		return
	}
	now := l.deps.Now()
	for _, st := range was {
		if st.owner.busy, st.owner.open = false, nil; now < l.end {
			l.done(st.owner, now)
		}
	}
}

func (s *session) close() {
	if s.fd >= 0 {
		s.loop.remove(s.fd)
	}
	s.fd, s.out, s.streams = -1, s.out[:0], nil
}
