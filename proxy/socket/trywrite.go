// SPDX-License-Identifier: Apache-2.0

package socket

import "syscall"

// TryWrite sends of p what the socket takes now, without waiting. n bytes of p are taken, whatever err is: they must not
// be offered again, and p may be reused. A nil error says that all of p was taken and nothing waits inside the connection.
//
// ErrWouldBlock says that the socket is full. Ready is then called once it takes more (again, if it is running now), and
// TryWrite is to be called with what is left, p[n:], to go on. That may be nothing: a connection with TLS can hold bytes
// that were taken and encrypted, so n == len(p) with ErrWouldBlock is possible, and TryWrite(nil) is how to go on then.
// Any other error is the connection's end.
//
// One goroutine at a time may write; it need not be the connection's worker.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	if c.layer != nil {
		n, err = c.layer.TryWrite(p)
	} else {
		n, err = c.rawTryWrite(p)
	}
	if err == nil {
		c.flags.clear(full)
	}
	return n, err
}

// rawTryWrite leaves full set: a layer may send what it holds while it is read from, and whoever met a full socket before is
// to be told that there is room all the same.
func (c *Conn) rawTryWrite(p []byte) (n int, err error) {
	for n < len(p) {
		m, e := c.flags.send(c.fd, p[n:])
		switch {
		case e == syscall.EAGAIN && !c.flags.has(full):
			c.flags.set(full) // seen by an edge from here on; one that came before is found by trying again
		case e == syscall.EAGAIN:
			return n, ErrWouldBlock
		case e != 0:
			return n, e
		default:
			n += m
		}
	}
	return n, nil
}
