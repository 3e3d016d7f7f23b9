// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// trialTime bounds the trial, which takes some milliseconds.
const trialTime = 5 * time.Second

// try makes a connection of this process with itself and proves what the package promises: that it is spliced, that a reader
// who does not read holds the sender back, and that all bytes come in order before the end.
func (s *Sockmap) try() error {
	from, to, err := pair()
	if err != nil {
		return missing("a TCP connection on the loopback interface to try it out", "set the interface up and leave it out of redirect rules", err)
	}
	defer from.Close()
	defer to.Close()
	fd, err := descriptor(from)
	if err != nil {
		return err
	}
	taken, err := fill(from)
	if err != nil {
		return odd(fmt.Errorf("sending: %w", err))
	}
	messages, over, entered := s.Spliced(fd)
	switch {
	case !entered:
		return missing("this process in the cgroup "+s.cgroup, "give a cgroup2 that it is in or below: --accelerate=sockmap:/path", nil)
	case messages == 0:
		return missing("a kernel that splices", "use Linux 6.13 or newer", nil)
	case !over || taken >= trialBytes:
		// Before 6.13 spliced bytes did not count as waiting for their reader, and nothing would bound them.
		return missing("a kernel that counts spliced bytes for their reader", "use Linux 6.13 or newer", nil)
	}
	if err := from.CloseWrite(); err != nil {
		return odd(err)
	}
	if err := verify(to, taken); err != nil {
		return missing("a kernel that keeps spliced bytes in order", "leave --accelerate out, and report this", err)
	}
	return nil
}

// pair returns the two ends of a connection, the client's first.
func pair() (from, to *net.TCPConn, err error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	ctx, cancel := context.WithTimeout(context.Background(), trialTime)
	defer cancel()
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = lc.Listen(ctx, "tcp", "[::1]:0"); err != nil {
			return nil, nil, err
		}
	}
	defer l.Close()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	from = c.(*net.TCPConn)
	deadline, _ := ctx.Deadline()
	if err = l.(*net.TCPListener).SetDeadline(deadline); err == nil {
		for err == nil {
			if c, err = l.Accept(); err == nil && c.RemoteAddr().String() == from.LocalAddr().String() {
				return from, c.(*net.TCPConn), errors.Join(from.SetDeadline(deadline), c.SetDeadline(deadline))
			} else if err == nil {
				c.Close() // a stranger has found the port
			}
		}
	}
	from.Close()
	return nil, nil, err
}

func descriptor(c *net.TCPConn) (fd int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	return fd, rc.Control(func(f uintptr) { fd = int(f) })
}

// trialBytes is more than two socket buffers and MaxQueued hold together, in any configuration that makes sense.
const trialBytes = 256 << 20

// fill sends until the socket takes no more, and returns how much that was. The n-th byte is pattern(n).
func fill(c *net.TCPConn) (taken int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	werr := rc.Write(func(fd uintptr) bool {
		for taken < trialBytes {
			write(buf, taken)
			n, e := syscall.Write(int(fd), buf)
			if e != nil {
				if e != syscall.EAGAIN {
					err = e
				}
				return true
			}
			taken += n
		}
		return true
	})
	return taken, errors.Join(err, werr)
}

func pattern(n int) byte { return byte(n ^ n>>8 ^ n>>16) }

func write(buf []byte, from int) {
	for i := range buf {
		buf[i] = pattern(from + i)
	}
}

// verify reads to the end and compares.
func verify(c *net.TCPConn, want int) error {
	buf := make([]byte, 64<<10)
	got := 0
	for {
		n, err := c.Read(buf)
		for i, b := range buf[:n] {
			if b != pattern(got+i) {
				return fmt.Errorf("byte %d of %d is another one's", got+i, want)
			}
		}
		got += n
		switch {
		case err == io.EOF && got == want:
			return nil
		case err != nil:
			return fmt.Errorf("%d of %d bytes came: %w", got, want, err)
		}
	}
}
