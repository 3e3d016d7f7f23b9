// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"hash/maphash"
	"net/url"
	"runtime"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/mesh"
)

const (
	// bufFull ends a batch for the sinks' queues, in bytes of one encoding; bufBytes is what both can grow to.
	bufFull  = 48 << 10
	bufBytes = 2 * (bufFull + event.MaxSize)
)

// sliceSize is how many records the batcher handles before it lets others run: encoding a large batch at once would hold
// a processor that requests need.
const sliceSize = 64

// batcher is the state of the goroutine that numbers and encodes events.
type batcher struct {
	boot  []byte
	meter *meter
	seq   uint64 // the last number given
	fill  filler
	ev    event.Event
	enc   *event.Encoder
	items []item
	out   []encoded
	// Of the event that is being made: see encoded.
	rate uint32
	keep bool
	hash uint64
	// filter is that of the record, nil where there is none; left says that it leaves the event out.
	filter *filter.Filter
	left   bool
	// ring is where the record comes from.
	ring   *ring
	causes causes
	seed   maphash.Seed
	source []byte
	set    *settings
	// The forms that sinks want, and the bytes of out in each.
	json, proto       bool
	jsonBuf, protoBuf []byte
}

// encoded is a numbered event, or a loss. Its bytes are in the batcher's buffers.
type encoded struct {
	seq         uint64
	kind        event.Kind
	key         []byte
	json, proto []byte
	loss        loss
	rate        uint32 // for how many it stands
	keep        bool   // sampling does not leave it out
	hash        uint64 // by which it is sampled
}

// source returns the attribute of that name, a URI reference.
func source(s Source, n mesh.Node) []byte {
	parts := [...][2]string{{s.Cluster, n.Cluster}, {s.Namespace, ""}, {s.Workload, ""}, {s.Proxy, n.ID}}
	b := []byte("/meshtap")
	for _, p := range parts {
		part := p[0]
		if part == "" {
			part = p[1]
		}
		if part == "" {
			part = "-"
		}
		b = append(append(b, '/'), url.PathEscape(string(cut(part, maxSourcePart)))...)
	}
	return b
}

// maxSourcePart bounds a part of the source, in bytes.
const maxSourcePart = 96

// batch is the batcher's goroutine.
func (t *Tap) batch() {
	defer close(t.stopped)
	for !t.work() {
	}
}

// work handles records as long as there are any, then sleeps until an event wakes it. It returns true once the tap is
// closed and the rings are empty, and false after a panic, of which only a mistake in this package can be the cause.
func (t *Tap) work() (done bool) {
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("the event tap failed", zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		wait, worked := flushEvery, t.round()
		if next := t.batcher.meter.tick(t, !worked); !worked {
			wait = next
			t.idle.Store(true)
			if t.waiting() { // it came before the flag was there to be seen
				wait = 0
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-t.stop:
			for t.round() {
			}
			return true
		}
		t.idle.Store(false)
	}
}

// waiting tells whether a ring holds anything.
func (t *Tap) waiting() bool {
	for i := range t.rings {
		if !t.rings[i].empty() {
			return true
		}
	}
	return !t.notices.empty()
}

// round takes what is in the rings now, and tells whether there was anything. It looks at the notices first and takes
// them last: what led to a notice was observed before it, and comes before it.
func (t *Tap) round() (worked bool) {
	notices := t.notices.count()
	for i := range t.rings {
		r := &t.rings[i]
		worked = t.drain(r, r.count(), t.batcher.observed) || worked
	}
	worked = t.drain(&t.notices, notices, t.batcher.notice) || worked
	for _, s := range t.sinks() {
		s.rouse()
	}
	return worked
}

// drain takes n events from a ring in slices, and the losses that stand among and behind them.
func (t *Tap) drain(r *ring, n uint64, fill func([]byte)) (worked bool) {
	for {
		taken, events := t.slice(r, min(n, sliceSize), fill)
		worked = worked || taken
		if n -= min(n, events); n == 0 || !taken {
			return worked
		}
		runtime.Gosched()
	}
}

// slice moves up to max events, and losses, from a ring to all sinks.
func (t *Tap) slice(r *ring, max uint64, fill func([]byte)) (taken bool, events uint64) {
	t.cut.Lock()
	defer t.cut.Unlock()
	b := &t.batcher
	b.ring, b.set = r, t.live.Load()
	b.items = r.next(b.items[:0], int(max))
	if len(b.items) == 0 {
		return false, 0
	}
	var failed, left uint64
	for i := range b.items {
		it := &b.items[i]
		if it.loss.count > 0 {
			b.lose(it.loss)
			continue
		}
		events++
		b.filter, b.left = it.filter, false
		if !t.encode(it.b, fill) {
			failed++
			now := time.Now().UnixNano()
			b.lose(loss{reason: Internal, count: 1, firstTime: now, lastTime: now})
		} else if b.left {
			left++
		}
		if len(b.jsonBuf) > bufFull || len(b.protoBuf) > bufFull {
			t.handOver()
		}
	}
	t.handOver()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending -= events
	r.dropped[Internal] += failed
	r.dropped[Filtered] += left
	r.release()
	return true, events
}

// encode appends a record to what is encoded, unless its filter leaves it out. It returns false after a panic, which costs the one event.
func (t *Tap) encode(rec []byte, fill func([]byte)) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("the event tap failed on an event", zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	if fill(rec); !t.batcher.left {
		t.batcher.encode()
	}
	return true
}

// handOver gives what is encoded to all sinks.
func (t *Tap) handOver() {
	b := &t.batcher
	now := time.Now().UnixNano()
	for _, s := range t.runners { // cut is held
		s.push(b.out, now)
	}
	b.out, b.jsonBuf, b.protoBuf, b.fill.scratch = b.out[:0], b.jsonBuf[:0], b.protoBuf[:0], b.fill.scratch[:0]
}

// lose numbers a loss.
func (b *batcher) lose(l loss) {
	l.firstSeq, l.lastSeq = b.seq+1, b.seq+l.count
	b.seq += l.count
	b.out = append(b.out, encoded{loss: l})
}

// notice reads a notice, which Notify has encoded with a stand-in for its identity.
func (b *batcher) notice(rec []byte) {
	if err := b.ev.DecodeProto(rec); err != nil {
		panic("eventtap: the tap cannot read its own notice: " + err.Error())
	}
	b.rate, b.keep, b.hash = 1, true, 0
	b.causes.link(&b.ev, b)
}

// encode numbers the event and appends it in every form that a sink wants.
func (b *batcher) encode() {
	e, seq := &b.ev, b.seq+1
	e.Sequence = seq
	e.ID = b.fill.id(b.boot, seq)
	out := encoded{seq: seq, kind: e.Kind, key: e.PartitionKey, rate: b.rate, keep: b.keep, hash: b.hash}
	if b.proto {
		at := len(b.protoBuf)
		b.protoBuf = b.enc.AppendProto(b.protoBuf, e)
		out.proto = b.protoBuf[at:]
	}
	if b.json {
		at := len(b.jsonBuf)
		b.jsonBuf = b.enc.AppendJSON(b.jsonBuf, e)
		out.json = b.jsonBuf[at:]
	}
	b.out, b.seq = append(b.out, out), seq
}

// id returns the id of the event with a number.
func (f *filler) id(boot []byte, seq uint64) []byte {
	at := len(f.scratch)
	f.scratch = append(append(f.scratch, boot...), '-')
	f.scratch = strconv.AppendUint(f.scratch, seq, 10)
	return f.scratch[at:]
}
