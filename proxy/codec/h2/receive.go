// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// put appends received data.
func (st *stream) put(p []byte) {
	if st.queued == 0 {
		st.since = st.c.now
	}
	st.queued += len(p)
	defer st.weigh()
	if len(st.more) == 0 && (st.tight || len(st.fill)+len(p) <= room+smallBody) {
		if len(st.fill) == 0 {
			if cap(st.fill) < room+len(p) {
				st.fill = make([]byte, room, max(room+len(p)+bytebuf.Tail, 512))
			}
			st.fill = st.fill[:room]
		}
		st.fill = append(st.fill, p...)
		return
	}
	for len(p) > 0 {
		n := len(st.more)
		if n == 0 || len(st.more[n-1].Free()) == 0 {
			st.more = append(st.more, st.c.bufs.Get())
			n++
		}
		b := st.more[n-1]
		k := copy(b.Free(), p)
		b.Hi += k
		p = p[k:]
	}
}

// bufBytes is the memory of a pooled buffer.
const bufBytes = bytebuf.Room + bytebuf.Size + bytebuf.Tail

// weigh brings what the connection holds up to date with the memory that the stream's bytes are in.
func (st *stream) weigh() {
	n := cap(st.lent) + len(st.more)*bufBytes
	if len(st.fill) > 0 {
		n += cap(st.fill)
	}
	if st.lentBuf != nil {
		n += bufBytes
	}
	st.c.held += n - st.weight
	st.weight = n
	st.c.heldChanged()
}

// tighten moves what waits in buffers that are mostly room into memory of its own size, and lets what comes follow it
// there. A peer could hold a buffer with every few bytes otherwise.
func (st *stream) tighten() {
	n := 0
	for _, b := range st.more {
		n += b.Len()
	}
	if n == 0 || n > len(st.more)*bytebuf.Size/4*3 {
		return
	}
	fill := append(make([]byte, 0, max(len(st.fill), room)+n+bytebuf.Tail), st.fill...)
	if len(fill) == 0 {
		fill = fill[:room]
	}
	for i, b := range st.more {
		fill = append(fill, b.Bytes()...)
		st.c.bufs.Put(b)
		st.more[i] = nil
	}
	st.fill, st.more, st.tight = fill, st.more[:0], true
	st.weigh()
}

// slim returns memory for the next bytes, unless it is more than most streams need.
func slim(b []byte) []byte {
	if cap(b) > 2*smallBody {
		return nil
	}
	return b[:0]
}

// giveBack takes what was lent as read, and lets the peer send as much again. It reports whether there is something to
// send for that.
func (st *stream) giveBack() bool {
	c := st.c
	st.unread += st.out
	said := st.takeBack()
	if st.unread > 0 && int64(st.unread) >= c.streamWindow()/2 && !st.recvEnd && st.recvErr == nil {
		c.windowUpdate(st.id, st.unread)
		st.recvWindow += int64(st.unread)
		st.unread = 0
		said = true
	}
	return said
}

// takeBack takes the memory back that was lent. It reports whether there is something to send for that.
func (st *stream) takeBack() bool {
	if st.lent != nil {
		st.spare, st.lent = slim(st.lent), nil
	}
	if st.lentBuf != nil {
		st.c.bufs.Put(st.lentBuf)
		st.lentBuf = nil
	}
	st.out = 0
	return st.c.letGo(st)
}

// take returns what is here of the body, or its beginning.
func (st *stream) take() (p bytebuf.Piece, end bool, err error) {
	if n := len(st.fill); n > 0 {
		st.lent, st.fill, st.spare = st.fill, st.spare[:0], nil
		p = bytebuf.Within(st.lent[:cap(st.lent)], room, n)
	} else if len(st.more) > 0 {
		b := st.more[0]
		st.more = st.more[:copy(st.more, st.more[1:])]
		st.lentBuf = b
		p = b.Piece(0, b.Lo, b.Hi, b.End())
	}
	st.out = p.Len()
	st.weigh()
	if st.queued -= st.out; st.queued > 0 {
		if st.since = st.c.now; st.c.withheld {
			st.since = mono.Now() // there may have been no turn for a while
		}
		return p, false, nil
	}
	st.tight = false
	if st.recvEnd {
		return p, true, nil
	}
	if p.Len() == 0 && st.recvErr != nil {
		return p, false, st.recvErr
	}
	return p, false, nil
}

// dropReceived drops what was received and will not be read; what is lent stays with its reader.
func (st *stream) dropReceived() {
	st.queued = 0
	st.fill = slim(st.fill)
	for i, b := range st.more {
		st.c.bufs.Put(b)
		st.more[i] = nil
	}
	st.more = st.more[:0]
	st.c.letGo(st)
}

// gotTrailers implements codec.Body's Trailers.
func (st *stream) gotTrailers() *header.List {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if !st.hasTrailers {
		return nil
	}
	return &st.trailers
}

// buffered implements codec.Body's Buffered.
func (st *stream) buffered() (bytebuf.Piece, bool, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.giveBack() {
		c.flush(nil, false)
	}
	return st.take()
}

// read implements codec.Body's Next.
func (st *stream) read(w *socket.Worker) (bytebuf.Piece, bool, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.giveBack() {
		c.flush(w, true)
	}
	for {
		p, end, err := st.take()
		if p.Len() > 0 || end || err != nil {
			return p, end, err
		}
		if err := st.awaitRead(w); err != nil {
			return bytebuf.Piece{}, false, err
		}
	}
}

// awaitRead sleeps until something came. The lock is held, and given up meanwhile.
func (st *stream) awaitRead(w *socket.Worker) error {
	st.reader = w
	st.c.mu.Unlock()
	err := w.Sleep()
	st.c.mu.Lock()
	if st.reader == w {
		st.reader = nil
	}
	return err
}
