// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"sync"

	"github.com/meshtap/meshtap/eventtap/filter"
)

// chunkSize is the unit in which queues take memory, in bytes. It holds about 70 outcomes as they are observed, or 50
// encoded events.
const chunkSize = 32 << 10

// headSize is what stands before each record: its length, and in the top byte what it is.
const headSize = 4

// chunk is a piece of a queue's memory, filled from the front.
type chunk struct {
	next    *chunk
	n       int  // bytes written
	notices bool // kept for notices
	solid   bool // holds nothing that may be dropped
	// filters are those of its records that are to be filtered, in their order.
	filters []*filter.Filter
	buf     [chunkSize]byte
}

// pool is a fixed amount of memory in chunks, shared by queues. It allocates a chunk when it is first needed and keeps
// it.
type pool struct {
	mu      sync.Mutex
	free    *chunk
	size    int
	left    int // chunks that may still be handed out
	reserve int // of those, how many are kept for who must have one
}

// newPool returns a pool of so many bytes, of which a number of chunks are kept in reserve.
func newPool(bytes, reserve int) *pool {
	n := max(bytes/chunkSize, 1+reserve)
	return &pool{size: n, left: n, reserve: reserve}
}

// get returns an empty chunk, or nil, and whether less than half of the memory is left. The reserve is for who must have
// a chunk: a queue that has none, so that no queue can starve another, and a notice.
func (p *pool) get(must bool) (c *chunk, low bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left <= 0 || !must && p.left <= p.reserve {
		return nil, true
	}
	p.left--
	low = p.left < p.size/2
	if c = p.free; c == nil {
		return new(chunk), low
	}
	p.free, c.next, c.n, c.notices, c.solid = c.next, nil, 0, false, false
	return c, low
}

// used returns how much of the memory is in use, in sixteenths.
func (p *pool) used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return 16 * (p.size - max(p.left, 0)) / p.size
}

// resize changes how many bytes the pool has. What is in use beyond that comes back with time.
func (p *pool) resize(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := max(bytes/chunkSize, 1+p.reserve)
	if n < p.size {
		p.free = nil // for the collector
	}
	p.left += n - p.size
	p.size = n
}

func (p *pool) put(c *chunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left++
	clear(c.filters) // for the collector
	c.filters = c.filters[:0]
	c.next, p.free = p.free, c
}

// queue is a first-in-first-out of records in bounded memory: many writers, one reader. The reader looks at records in
// place, without the lock, and then releases them.
//
// When there is no memory the newest record is dropped, and the loss stands in the queue where the record would: before
// the next one that found room.
type queue struct {
	pool *pool

	mu sync.Mutex
	// Guarded by mu. Chunks run from first, the oldest that is not released, to last, which is being written.
	first, last *chunk
	read        *chunk // where the reader is: in this chunk, at this byte
	at          int
	filtered    int    // how many of that chunk's filters it has taken
	lost        losses // since the last record
	pending     uint64 // events written and not yet settled; losses do not count
	low         bool   // memory was found to be short; cleared by who acts on it
	closed      bool
}

// item is a record, or a loss where loss.count is not 0. The bytes are valid until the item is released.
type item struct {
	b    []byte
	loss loss
	// filter, where it is not nil, says whether there is to be an event.
	filter *filter.Filter
	// Of a spool: whether the record is there, and of an earlier run its boot.
	stored bool
	seq    uint64 // its number in the spool
	old    []byte
}

// room returns at least n bytes to write a record to, or nil where the queue is full or closed. A notice may use the
// reserve. mu must be held until after commit.
func (q *queue) room(n int, notice bool) []byte {
	if q.closed {
		return nil
	}
	need := headSize + n + q.lost.n*(headSize+lossSize)
	if q.last == nil || len(q.last.buf)-q.last.n < need || q.last.notices && !notice {
		c := q.grow(notice)
		if c == nil {
			return nil
		}
		if q.last == nil {
			q.first, q.read, q.at, q.filtered = c, c, 0, 0
		} else {
			q.last.next = c
		}
		q.last = c
	}
	for _, l := range q.lost.all() {
		l.put(q.last.buf[q.last.n+headSize:])
		q.head(lossSize, isLoss)
	}
	q.lost.n = 0
	return q.last.buf[q.last.n+headSize:]
}

// grow takes a chunk from the pool.
func (q *queue) grow(notice bool) *chunk {
	c, low := q.pool.get(q.last == nil)
	q.low = q.low || low
	if c == nil && notice {
		if c, _ = q.pool.get(true); c != nil {
			c.notices = true
		}
	}
	return c
}

// The kinds of what stands in a queue, in the top byte of its head.
const (
	isRecord    = iota
	isLoss      // of events
	isDroppable // a record that may be dropped when newer ones need its room
	isFiltered  // a record with a filter
)

// commit makes the first n bytes of room a record of one event.
func (q *queue) commit(n int) { q.commitAs(n, isRecord) }

// commitFiltered is commit for a record from which there is an event only where f says so; nil is always.
func (q *queue) commitFiltered(n int, f *filter.Filter) {
	if f == nil {
		q.commit(n)
		return
	}
	q.last.filters = append(q.last.filters, f)
	q.commitAs(n, isFiltered)
}

func (q *queue) commitAs(n int, what uint32) {
	q.head(n, what)
	q.pending++
}

func (q *queue) head(n int, what uint32) {
	binary.LittleEndian.PutUint32(q.last.buf[q.last.n:], uint32(n)|what<<24)
	q.last.n += headSize + n
}

// next appends the reader's next items to dst, until it holds max. Behind them, at the end of the queue, come the losses
// that no record follows.
func (q *queue) next(dst []item, max int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(dst) < max && q.read != nil {
		c := q.read
		if q.at == c.n {
			if c.next == nil {
				break
			}
			q.read, q.at, q.filtered = c.next, 0, 0
			continue
		}
		h := binary.LittleEndian.Uint32(c.buf[q.at:])
		lo := q.at + headSize
		hi := lo + int(h&(1<<24-1))
		q.at = hi
		switch h >> 24 {
		case isLoss:
			dst = append(dst, item{loss: getLoss(c.buf[lo:hi])})
		case isFiltered:
			dst = append(dst, item{b: c.buf[lo:hi:hi], filter: c.filters[q.filtered]})
			q.filtered++
		default:
			dst = append(dst, item{})
			dst[len(dst)-1].b = c.buf[lo:hi:hi] // as nearly always: an item is large, and this writes it once
		}
	}
	if q.atEnd() {
		for _, l := range q.lost.all() {
			dst = append(dst, item{loss: l})
		}
		q.lost.n = 0
	}
	return dst
}

func (q *queue) atEnd() bool { return q.read == nil || q.read == q.last && q.at == q.last.n }

// release frees the memory of all items that next has returned. mu must be held.
func (q *queue) release() {
	for q.first != q.read {
		q.free()
	}
	if q.first != nil && q.atEnd() {
		q.free()
		q.read, q.last = nil, nil
	}
}

// free gives the first chunk back.
func (q *queue) free() {
	c := q.first
	q.first = c.next
	q.pool.put(c)
}

// empty tells whether the reader has seen everything.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.atEnd() && q.lost.n == 0
}

// count returns the number of events that are not settled.
func (q *queue) count() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending
}

// close makes the queue refuse what comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
