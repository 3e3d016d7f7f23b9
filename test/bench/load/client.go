// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// client is one connection to the proxy, or with churn one after another; in HTTP/2 it is one stream after another.
type client struct {
	over    *session // HTTP/2: what its streams are on; descriptor, bytes and message are the session's then
	open    *stream  // that its messages go on; nil where there is none
	fd      int      // -1: not connected
	busy    bool
	closing bool  // the answer has come; the proxy is to close
	due     int64 // when the request in flight was to be sent
	sentAt  int64
	next    int64 // the slot of the request after those owed
	owed    int   // requests that are due and not sent
	unsent  []byte
	in      message
}

// source hands out client addresses of 127.1.0.0/16.
type source struct{ n uint16 }

func (s *source) next() netip.Addr {
	s.n++
	return netip.AddrFrom4([4]byte{127, 1, byte(s.n / 250 % 250), byte(s.n%250 + 1)})
}

// dial opens the client's connection and sends its request, if it has one.
func (l *loop) dial(c *client) {
	var from netip.Addr
	if l.job.Churn || l.job.Idle {
		from = l.sources.next()
	}
	fd, err := dial(from, sockaddr(l.job.Target))
	if err == nil {
		c.fd, c.in, c.closing = fd, message{head: c.in.head[:0]}, false
		err = l.add(fd, c, unix.EPOLLIN)
	}
	if err != nil {
		l.fault(&l.result.Errors, "%v", err)
		l.hangUp(c)
		return
	}
	if len(c.unsent) > 0 {
		l.flush(c) // on loopback the connection stands already
	}
}

// send begins a request that was due at the given time.
func (l *loop) send(c *client, due int64) {
	c.busy, c.due, c.sentAt = true, due, l.deps.Now()
	if c.over != nil {
		c.over.request(c)
		return
	}
	c.unsent = l.request
	if c.fd < 0 {
		l.dial(c)
		return
	}
	l.flush(c)
}

// flush writes what it can; the rest waits for room.
func (l *loop) flush(c *client) {
	n, e := write(c.fd, c.unsent)
	switch {
	case e == 0 && n == len(c.unsent):
		c.unsent = nil
	case e == 0:
		c.unsent = c.unsent[n:]
		l.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
	case e == syscall.EAGAIN:
		l.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
	default:
		l.broken(c, e)
	}
}

func (c *client) ready(l *loop, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		l.watch(c.fd, unix.EPOLLIN)
		if len(c.unsent) > 0 {
			if l.flush(c); c.fd < 0 {
				return
			}
		}
	}
	if events&^unix.EPOLLOUT != 0 {
		l.receive(c)
	}
}

func (l *loop) receive(c *client) {
	n, e := read(c.fd, l.scratch)
	switch {
	case e == syscall.EAGAIN:
		return
	case e != 0:
		l.broken(c, e)
		return
	case n == 0:
		l.closed(c)
		return
	}
	used, done, err := c.in.feed(l.scratch[:n])
	switch {
	case err != nil:
		l.fault(&l.result.Bad, "%v", err)
		l.again(c)
	case done && (!c.busy || used < n):
		l.fault(&l.result.Bad, "bytes that nobody asked for: %.60q", l.scratch[:n])
		l.again(c)
	case done:
		l.answer(c)
	}
}

// answer takes account of a complete answer.
func (l *loop) answer(c *client) {
	now := l.deps.Now()
	l.account(c, now, c.in.status, c.in.body)
	switch {
	case l.job.Churn:
		c.closing = true // and busy, until it is closed
	case c.in.close && l.job.Idle:
		l.fault(&l.result.Bad, "the proxy does not keep connections")
	case c.in.close:
		l.result.Reconnects++
		l.again(c)
	default:
		l.done(c, now)
	}
}

// account counts an answer: as a request with its latency, or as a bad one.
func (l *loop) account(c *client, now int64, status int, body int64) {
	switch {
	case status != 200 || body != int64(len(l.down)):
		l.fault(&l.result.Bad, "an answer with status %d and %d bytes", status, body)
	case l.measuring:
		l.result.Requests++
		_ = l.histogram.RecordValue(min(now-c.due, l.histogram.HighestTrackableValue()))
	}
	l.answered++
}

// done goes on to the next request.
func (l *loop) done(c *client, now int64) {
	c.busy = false
	switch {
	case l.job.Idle:
		l.start()
	case l.job.Rate > 0:
		l.pay(c)
	default:
		l.send(c, now)
	}
}

// closed is the end of a connection from the proxy's side: expected behind an answer of a churning client.
func (l *loop) closed(c *client) {
	switch {
	case c.closing:
	case c.busy:
		l.fault(&l.result.Errors, "the proxy closed a connection with a request on it")
	default:
		l.fault(&l.result.Errors, "the proxy closed an idle connection")
	}
	l.again(c)
}

func (l *loop) broken(c *client, e syscall.Errno) {
	l.fault(&l.result.Errors, "a connection to the proxy: %v", e)
	l.again(c)
}

// again gives the connection up and goes on with a new one.
func (l *loop) again(c *client) {
	l.hangUp(c)
	if now := l.deps.Now(); now < l.end {
		l.done(c, now)
	}
}

func (l *loop) hangUp(c *client) {
	if c.fd >= 0 {
		l.remove(c.fd)
	}
	c.fd, c.busy, c.unsent = -1, false, nil
}
