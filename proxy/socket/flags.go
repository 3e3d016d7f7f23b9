// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/meshtap/meshtap/internal/sys"
)

// flags are what is known of a connection, a bit for each. Any goroutine may set, clear and read them: a bit behaves as an
// atomic.Bool of its own, and all of them take four bytes of a connection instead of four each.
type flags struct{ bits atomic.Uint32 }

const (
	hup     uint32 = 1 << iota // the other side has closed
	broken                     // the other side has reset the connection
	ended                      // our side was
	silent                     // Close says nothing to the other side
	over                       // the idle connection's time is; nobody has taken the news
	full                       // TryWrite waits for the socket to take more
	sending                    // there is a call of send
	reset                      // send was told of a reset
)

func (f *flags) has(bit uint32) bool { return f.bits.Load()&bit != 0 }
func (f *flags) set(bit uint32)      { f.bits.Or(bit) }
func (f *flags) clear(bit uint32)    { f.bits.And(^bit) }

// take clears a bit, and reports whether it was set: of several takers, one is told so.
func (f *flags) take(bit uint32) bool { return f.has(bit) && f.bits.And(^bit)&bit != 0 }

// broke reports whether an event is that of a reset. Once the error was taken by a call, only the hang-up of both sides
// is left to tell, which is a reset too unless our side, too, was ended in order.
func (f *flags) broke(ev uint32) bool {
	return ev&sys.Err != 0 || ev&sys.Hup != 0 && !f.has(ended)
}

// send sends on a socket and remembers a reset that it was told of. The system tells of a reset once, to whoever calls
// first, and everyone else sees an end in order: a reader would take half of an answer for the whole.
func (f *flags) send(fd int, b []byte) (int, syscall.Errno) {
	f.set(sending)
	n, e := sys.Send(fd, b)
	if e == syscall.ECONNRESET { // EPIPE is a reset after the peer's own end, which a reader sees
		f.set(reset)
	}
	f.clear(sending)
	return n, e
}

// tookReset reports whether a reset was told to send. It is for a reader that sees an end; where there is a call of send
// just then, it waits until it is known what that was told.
func (f *flags) tookReset() bool {
	for f.has(sending) {
		runtime.Gosched()
	}
	return f.has(reset)
}
