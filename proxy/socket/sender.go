// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/meshtap/meshtap/internal/sys"
)

// sender sends on a socket and remembers a reset that it was told of. The system tells of a reset once, to whoever calls
// first, and everyone else sees an end in order: a reader would take half of an answer for the whole.
type sender struct{ sending, reset atomic.Bool }

func (s *sender) send(fd int, b []byte) (int, syscall.Errno) {
	s.sending.Store(true)
	n, e := sys.Send(fd, b)
	if e == syscall.ECONNRESET { // EPIPE is a reset after the peer's own end, which a reader sees
		s.reset.Store(true)
	}
	s.sending.Store(false)
	return n, e
}

// took reports whether a reset was told to send. It is for a reader that sees an end; where there is a call of send just
// then, it waits until it is known what that was told.
func (s *sender) took() bool {
	for s.sending.Load() {
		runtime.Gosched()
	}
	return s.reset.Load()
}
