// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
)

// put writes a record of n bytes that begins with id. It returns false where the queue is full.
func put(q *queue, id uint64, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.room(n, false)
	if b == nil {
		q.lost.merge(loss{reason: SinkFull, count: 1, firstSeq: id, lastSeq: id})
		return false
	}
	binary.LittleEndian.PutUint64(b, id)
	q.commit(n)
	return true
}

// TestQueueAgainstModel runs random writes and reads against a slice: what comes out is what went in, in order, with the
// losses between the records where they happened, and all memory comes back.
func TestQueueAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := newPool(4*chunkSize, 0)
		q := &queue{pool: p}
		type entry struct {
			id   uint64
			lost bool
		}
		var model []entry
		var id uint64
		for range 3000 {
			if r.IntN(3) > 0 {
				for range r.IntN(40) {
					id++
					model = append(model, entry{id, !put(q, id, 8+r.IntN(3000))})
				}
				continue
			}
			for _, it := range q.next(nil, r.IntN(64)) {
				n := max(it.loss.count, 1)
				for i := range n {
					want := model[0]
					model = model[1:]
					switch {
					case want.lost != (it.loss.count > 0):
						t.Fatalf("seed %d: event %d: lost is %v", seed, want.id, it.loss.count > 0)
					case want.lost && (it.loss.firstSeq+i != want.id || it.loss.lastSeq < want.id):
						t.Fatalf("seed %d: event %d is not in the loss %+v", seed, want.id, it.loss)
					case !want.lost && binary.LittleEndian.Uint64(it.b) != want.id:
						t.Fatalf("seed %d: %d instead of %d", seed, binary.LittleEndian.Uint64(it.b), want.id)
					}
				}
			}
			q.mu.Lock()
			q.release()
			q.mu.Unlock()
		}
		for len(q.next(nil, 64)) > 0 {
			q.mu.Lock()
			q.release()
			q.mu.Unlock()
		}
		if !q.empty() || p.left != p.size || q.first != nil || q.last != nil {
			t.Fatalf("seed %d: %d of %d chunks came back", seed, p.left, p.size)
		}
	}
}

// TestQueueIsBounded fills a queue: it takes what fits and no more, and again after it was read.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	p := newPool(4*chunkSize, 0)
	q := &queue{pool: p}
	const size = 1000
	want := 4 * (chunkSize / (size + headSize))
	for round := range 3 {
		n := 0
		for put(q, 1, size) {
			n++
		}
		if n != want && n != want-1 { // one less where a loss had to be written
			t.Errorf("round %d: %d records, want %d", round, n, want)
		}
		if q.count() == 0 || q.empty() {
			t.Error("the queue says that it is empty")
		}
		for len(q.next(nil, 64)) > 0 {
			q.mu.Lock()
			q.release()
			q.mu.Unlock()
		}
		q.pending = 0
	}
}

// TestPoolReserve shares a pool: one greedy queue leaves a chunk for each of the others.
func TestPoolReserve(t *testing.T) {
	t.Parallel()
	p := newPool(8*chunkSize, 3)
	queues := make([]queue, 4)
	for i := range queues {
		queues[i].pool = p
	}
	for put(&queues[0], 1, 1000) {
	}
	for i := 1; i < 4; i++ {
		if !put(&queues[i], 1, 1000) {
			t.Errorf("queue %d has no room", i)
		}
	}
}

// TestNoticeReserve fills a queue with outcomes: notices still find a chunk, which outcomes do not fill.
func TestNoticeReserve(t *testing.T) {
	t.Parallel()
	q := &queue{pool: newPool(4*chunkSize, 1)}
	notice := func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.room(1000, true) == nil {
			return false
		}
		q.commit(1000)
		return true
	}
	for put(q, 1, 1000) {
	}
	for i := range 40 {
		if i < 30 && !notice() {
			t.Fatalf("notice %d found no room", i)
		}
		if i > 1 && put(q, 1, 8) {
			t.Fatal("an outcome took the room of a notice")
		}
	}
	for len(q.next(nil, 64)) > 0 {
		q.mu.Lock()
		q.release()
		q.mu.Unlock()
	}
	if !put(q, 1, 1000) || q.last.notices {
		t.Error("the chunk is kept for notices although there is memory again")
	}
}

func TestQueueClosed(t *testing.T) {
	t.Parallel()
	q := &queue{pool: newPool(chunkSize, 0)}
	put(q, 1, 8)
	q.close()
	if put(q, 2, 8) {
		t.Error("a closed queue took a record")
	}
	if got := q.next(nil, 8); len(got) == 0 || binary.LittleEndian.Uint64(got[0].b) != 1 {
		t.Errorf("what was there before is gone: %v", got)
	}
}

// TestQueueConcurrent has many writers and one reader under the race detector.
func TestQueueConcurrent(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 5000
	q := &queue{pool: newPool(8*chunkSize, 0)}
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			for i := range each {
				put(q, uint64(w*each+i+1), 8+i%500)
			}
		})
	}
	last := make([]uint64, writers)
	var got, lost uint64
	read := func() {
		for _, it := range q.next(nil, 64) {
			if it.loss.count > 0 {
				lost += it.loss.count
				continue
			}
			id := binary.LittleEndian.Uint64(it.b)
			w := (id - 1) / each
			if id <= last[w] {
				t.Errorf("%d after %d", id, last[w])
			}
			last[w] = id
			got++
		}
		q.mu.Lock()
		q.release()
		q.mu.Unlock()
	}
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	for running := true; running; {
		select {
		case <-finished:
			running = false
		default:
		}
		read()
	}
	for !q.empty() {
		read()
	}
	if got+lost != writers*each {
		t.Errorf("%d read and %d lost of %d", got, lost, writers*each)
	}
}
