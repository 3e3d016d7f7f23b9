// SPDX-License-Identifier: Apache-2.0

package circuit

import "sync"

// windowBuckets is how many steps a sliding window takes to move by its length: a result counts for at least nine tenths
// of that time and at most all of it.
const windowBuckets = 10

// counts is what a window, or a part of it, held.
type counts struct{ requests, failures, slow uint32 }

func (c *counts) add(o counts) {
	c.requests += o.requests
	c.failures += o.failures
	c.slow += o.slow
}

func (c *counts) sub(o counts) {
	c.requests -= o.requests
	c.failures -= o.failures
	c.slow -= o.slow
}

// window counts results over a sliding time, in buckets, and failures in a row whatever the time between them. Adding
// takes constant time; the lock is held for some ten nanoseconds.
type window struct {
	// width is the time that a bucket covers, in nanoseconds.
	width int64

	mu sync.Mutex
	// The rest is guarded by mu. newest is the number of the newest bucket since time began; it is at newest modulo
	// windowBuckets.
	newest  int64
	buckets [windowBuckets]counts
	total   counts
	row     uint32
}

// init makes w an empty window of the given length that begins at now.
func (w *window) init(length, now int64) {
	w.width = max(length/windowBuckets, 1)
	w.newest = now / w.width
}

// add counts one result and returns what the window holds with it, and the failures in a row.
func (w *window) add(now int64, failed, slow bool) (total counts, row uint32) {
	one := counts{requests: 1}
	if failed {
		one.failures = 1
	}
	if slow {
		one.slow = 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	w.buckets[w.newest%windowBuckets].add(one)
	w.total.add(one)
	w.row++
	if !failed {
		w.row = 0
	}
	return w.total, w.row
}

// sum returns what the window holds, and the failures in a row.
func (w *window) sum(now int64) (total counts, row uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	return w.total, w.row
}

// advance drops the buckets that the window has left. A time before the newest bucket, which callers that raced for the
// lock bring, leaves it where it is.
func (w *window) advance(now int64) {
	bucket := now / w.width
	if bucket-w.newest >= windowBuckets {
		w.buckets, w.total = [windowBuckets]counts{}, counts{}
		w.newest = bucket
	}
	for w.newest < bucket {
		w.newest++
		old := &w.buckets[w.newest%windowBuckets]
		w.total.sub(*old)
		*old = counts{}
	}
}
