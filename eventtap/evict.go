// SPDX-License-Identifier: Apache-2.0

package eventtap

import "encoding/binary"

// evict drops the oldest events of a sink's queue that may be dropped and that the reader has not come to, those of one
// chunk, so that newer ones find room. It returns how many it dropped, and whether that made a chunk free. q.mu must be
// held.
//
// What may not be dropped moves together: a chunk without anything to drop is solid, and the rest of the next one is
// appended to it where it fits. In the place of the dropped events stands their loss.
func (q *queue) evict(reason Reason, now int64) (dropped uint64, freed bool) {
	if q.read == nil {
		return 0, false
	}
	var before *chunk // a solid chunk that the reader has not begun
	for prev, c := q.read, q.read.next; c != nil && c != q.last; prev, c = c, c.next {
		if c.solid {
			before = c
			continue
		}
		dropped += c.compact(reason, now)
		if before == prev && before != nil && before.absorb(c) {
			prev.next = c.next
			q.pool.put(c)
			freed = true
		} else if c.n == 0 {
			prev.next = c.next
			q.pool.put(c)
			freed = true
		}
		if freed {
			break
		}
		before = c
	}
	q.pending -= dropped
	return dropped, freed
}

// compact replaces each run of events that may be dropped, and of losses, by one loss for each reason. What it writes is
// never longer than what it has read, since an event is longer than the heads of two losses.
func (c *chunk) compact(reason Reason, now int64) (dropped uint64) {
	var run losses
	w := 0
	put := func(b []byte, what uint32) {
		binary.LittleEndian.PutUint32(c.buf[w:], uint32(len(b))|what<<24)
		w += headSize + copy(c.buf[w+headSize:], b)
	}
	flush := func() {
		var b [lossSize]byte
		for _, l := range run.all() {
			l.put(b[:])
			put(b[:], isLoss)
		}
		run.n = 0
	}
	for at := 0; at < c.n; {
		h := binary.LittleEndian.Uint32(c.buf[at:])
		b := c.buf[at+headSize:][:h&(1<<24-1)]
		at += headSize + len(b)
		switch h >> 24 {
		case isLoss:
			run.merge(getLoss(b))
		case isDroppable:
			dropped++
			n := numberOf(b)
			run.merge(loss{reason: reason, count: 1, firstSeq: n.seq, lastSeq: n.seq, firstStream: n.stream,
				lastStream: n.stream, firstTime: now, lastTime: now})
		default:
			flush()
			put(b, isRecord)
		}
	}
	flush()
	c.n, c.solid = w, true
	return dropped
}

// absorb appends what is in the next chunk, if there is room.
func (c *chunk) absorb(next *chunk) bool {
	from := 0
	if at := c.lastItem(); at >= 0 && next.n >= headSize+lossSize {
		// Two losses for one reason become one: a queue that drops for hours does not fill with them.
		a, b := getLoss(c.buf[at+headSize:]), getLoss(next.buf[headSize:])
		if c.isLossAt(at) && next.isLossAt(0) && a.reason == b.reason {
			var s losses
			s.merge(a)
			s.merge(b)
			s.l[0].put(c.buf[at+headSize:])
			from = headSize + lossSize
		}
	}
	if c.n+next.n-from > len(c.buf) {
		if from > 0 { // its first loss is told already
			next.n = copy(next.buf[:], next.buf[from:next.n])
		}
		return false
	}
	c.n += copy(c.buf[c.n:], next.buf[from:next.n])
	return true
}

func (c *chunk) isLossAt(at int) bool { return binary.LittleEndian.Uint32(c.buf[at:])>>24 == isLoss }

// lastItem returns where the last item begins, -1 where there is none.
func (c *chunk) lastItem() int {
	last := -1
	for at := 0; at < c.n; {
		last = at
		at += headSize + int(binary.LittleEndian.Uint32(c.buf[at:])&(1<<24-1))
	}
	return last
}
