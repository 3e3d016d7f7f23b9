// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// stream is what the streams of both roles have in common. All of it is guarded by the connection's lock.
//
// A worker that has to wait notes itself as reader or writer, gives up the lock and sleeps; whoever changes what it waits
// for does so under the lock and signals it then. A worker's signal is kept until it sleeps, so none is lost in between.
type stream struct {
	c    *conn
	id   uint32 // 0 where it has not been sent yet
	born int64  // mono

	reader, writer *socket.Worker
	watcher        *socket.Worker // interrupted when the stream ends early
	client         *ClientStream  // that this is part of; nil for a server's

	// The body that comes: what nobody has taken yet is in fill, behind that in more; what is in its reader's hands is
	// either lent, for which spare is the other half of a pair with fill, or lentBuf.
	fill, lent, spare []byte
	more              []*bytebuf.Buf
	lentBuf           *bytebuf.Buf
	queued, out       int   // bytes that nobody has taken; bytes in the reader's hands
	weight            int   // the memory of all that; see weigh
	tight             bool  // what comes goes into memory of its own size
	since             int64 // mono: when the oldest of it came
	recvWindow        int64
	unread            int   // received, but not yet given back to the peer
	length, got       int64 // of the body: what the head says, -1 where it says nothing; and so far
	recvEnd           bool  // all of it is here
	recvErr           error // why there will be no more; what came before can be read
	headIn            bool  // the final head is here
	trailers          header.List
	hasTrailers       bool
	received          int64
	at                int64 // where in the output the stream begins

	// The message that goes.
	sendWindow int64
	sentHead   bool
	sentEnd    bool
	sendErr    error
	waiting    int64 // mono: since when it waits for a window; 0 where it does not
	sent       int64

	counted    bool // its end was told to abuse
	queue      *queue
	prev, next *stream
}

// room is what is kept free in front of a small body's bytes, for a chunk's size.
const room = 16

// smallBody is how much of a body is kept in the stream's own memory. What is more goes into pooled buffers, which are
// larger: a peer has to send something for them.
const smallBody = 8 << 10

// begin prepares a stream, which leave ends. The lock is held.
func (st *stream) begin(c *conn, id uint32) {
	fill, spare, more, trailers := st.fill, st.spare, st.more, st.trailers
	trailers.Reset()
	*st = stream{
		c: c, id: id, born: c.now, fill: slim(fill), spare: slim(spare), more: more[:0], trailers: trailers,
		recvWindow: c.streamWindow(), sendWindow: c.peer.window, length: -1,
	}
	c.add(metrics.HTTP2StreamsActive, 1)
}

// wakeReader wakes the worker that waits for what comes.
func (st *stream) wakeReader() {
	if w := st.reader; w != nil {
		st.reader = nil
		w.Signal()
	}
}

// end ends the stream in both directions, as far as they have not ended.
func (st *stream) end(err error) {
	if !st.recvEnd && st.recvErr == nil {
		st.recvErr = err
	}
	if st.sendErr == nil {
		st.sendErr = err
	}
	st.moves()
	st.wakeReader()
	st.wakeWriter()
	if st.watcher != nil {
		st.watcher.Interrupt()
	}
}

// endHere notes that all of the message that comes is here, endSent (send.go) that all of the other is on its way. A stream
// whose messages have both ended does not count as open any more: the peer may open another in its place before our user
// has finished.
func (st *stream) endHere() {
	st.recvEnd = true
	if st.sentEnd {
		st.c.over++
	}
}

// count counts the stream's end, once.
func (st *stream) count() {
	if !st.counted {
		st.counted = true
		st.c.finished++
	}
}

// leave ends what the connection knows of the stream, whose user has finished. The lock is held.
func (st *stream) leave() {
	c := st.c
	c.add(metrics.HTTP2StreamsActive, -1)
	st.moves()
	st.count()
	st.takeBack()
	st.dropReceived()
	c.forget(st)
	c.active--
	if st.sentEnd && st.recvEnd {
		c.over--
	}
	if c.goingAway == final && c.active == 0 {
		c.wantTurn(1)
	}
}

var errEnded = errors.New("h2: the message has ended already")
