// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/spool"
)

// spooler stands between the queue of a sink and its runner. Its goroutine, keep, moves events from the queue to the
// disk; run reads them from there. Where the disk does not take events, and run has read all that it has, keep hands
// them over as they are, so that a disk that is full or broken costs safety and not events.
type spooler struct {
	// Immutable.
	log    *spool.Log
	every  time.Duration
	more   chan struct{} // one place: there may be something for run
	hand   chan []item   // one place: events that the disk did not take
	taken  chan struct{} // run is done with them
	exited chan struct{} // closed by keep
	armed  atomic.Bool   // keep flushes, and saves the cursor, when every has passed; only keep sets it
	opened time.Time
	busy   atomic.Int64 // since when after opened keep waits for the disk, 0 where it does not

	// Guarded by q.mu.
	stored  int64  // events that are on the disk and not settled
	tail    losses // behind the last event that the disk has
	failing bool   // the disk does not take events
	usage   spool.Usage

	// Owned by keep.
	items        []item
	heads, tails [][]byte  // of the records that are made of them
	scratch      []byte    // for heads
	told         time.Time // when the latest failure was logged

	// Owned by run.
	recs      []spool.Record
	last      place // of the latest event that was read
	at        place // of the latest event in a flight
	hole      uint64
	holeWhy   Reason
	holeSince int64
	handed    bool
	tells     []item        // losses of events that the sink refused
	marked    time.Duration // after opened: when run last had keep note what was delivered
}

const (
	// spoolMemory is what a spool takes of its sink's memory at least: what it reads to, and two pieces more, of which one
	// is for what is sealed where it is encrypted.
	spoolMemory = 3 * groupBytes
	groupBytes  = 128 << 10
	groupEvents = 512
	// maxWindow is how many pieces more hold events that were just written.
	maxWindow = 32
	// diskRetry is how long a disk that failed is left alone.
	diskRetry = time.Second
	// markEvery is how often run has keep note what was delivered, so that a bus that answers fast does not make the disk
	// busy. What it has answered since then comes again after the process was killed, until the next flush.
	markEvery = 5 * time.Millisecond
	// stallAfter is how long the disk may take for a write or a flush before the account says so.
	stallAfter = time.Second
	maxTells   = 64
)

// place is a place in a spool: the event with a number in the log, of a boot, with a number in the sink's stream.
type place struct {
	seq    uint64
	boot   []byte
	stream uint64
}

func (p place) note() []byte {
	return append(binary.LittleEndian.AppendUint64(nil, p.stream), p.boot...)
}

func placeOf(seq uint64, note []byte) place {
	if len(note) < 8 {
		return place{seq: seq}
	}
	return place{seq, note[8:], binary.LittleEndian.Uint64(note)}
}

// windowOf returns how many pieces of memory for a spool to keep its newest events there are in what is left of a share.
func windowOf(left int) int { return min(left/8/groupBytes, maxWindow) }

// useSpool opens the sink's spool, before the runner is started.
func (r *runner) useSpool(cfg spool.Config, every time.Duration) error {
	if cfg.Groups = 2 + r.window; cfg.Key != nil {
		cfg.Groups--
	}
	log, rec, err := spool.Open(cfg)
	if err != nil {
		return fmt.Errorf("eventtap: sink %q: %w", r.name, err)
	}
	r.sp = &spooler{
		log: log, every: every, more: make(chan struct{}, 1), hand: make(chan []item, 1), taken: make(chan struct{}),
		exited: make(chan struct{}), stored: int64(rec.Pending), opened: time.Now(),
	}
	r.sp.last = placeOf(rec.Acked, rec.Note)
	r.sp.at = r.sp.last
	r.sp.usage = log.Usage()
	r.q.pending, r.recovered = rec.Pending, rec.Pending
	if rec.CursorLost {
		r.log.Warn("the cursor of the spool cannot be read; events that were delivered are sent again")
	}
	if rec.Torn > 0 {
		r.log.Info("the end of the spool is cut off: a crash has torn it, or it is older", zap.Int64("bytes", rec.Torn))
	}
	if rec.Pending > 0 {
		r.log.Info("events of an earlier run are in the spool", zap.Uint64("events", rec.Pending))
		r.sp.more <- struct{}{}
	}
	return nil
}

// keep moves events from the queue to the disk, flushes them and saves the cursor, until nothing more comes or ctx ends.
func (r *runner) keep(ctx context.Context) {
	defer close(r.sp.exited)
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("the spool of an event sink failed and is given up", zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	timer := time.NewTimer(forever)
	defer timer.Stop()
	always := make(chan struct{})
	close(always)
	finish := r.finish
	for {
		var more chan struct{} // in the queue, perhaps
		if r.move(ctx) {
			more = always
			r.sp.arm(timer)
		}
		if ctx.Err() != nil || finish == nil && r.q.empty() {
			r.flush()
			return
		}
		select {
		case <-r.wake: // from the batcher, or from run when it has acknowledged something
			if err := r.sp.wait(r.sp.log.Mark); err != nil {
				r.complainDisk("the spool cannot note what was delivered; it would be sent again", err)
			}
			r.sp.arm(timer)
		case <-timer.C:
			r.flush()
		case <-more:
		case <-finish:
			finish = nil
		case <-ctx.Done():
		}
	}
}

// arm sees to it that keep flushes in time.
func (sp *spooler) arm(timer *time.Timer) {
	if !sp.armed.Load() {
		timer.Reset(sp.every)
		sp.armed.Store(true)
	}
}

// wait runs what waits for the disk.
func (sp *spooler) wait(disk func() error) error {
	sp.busy.Store(max(int64(time.Since(sp.opened)), 1))
	defer sp.busy.Store(0)
	return disk()
}

// stalled tells whether the disk takes too long, and whether it is, or will be, waited for.
func (sp *spooler) stalled() (stalled, due bool) {
	since := sp.busy.Load()
	return since > 0 && time.Since(sp.opened)-time.Duration(since) >= stallAfter, since > 0 || sp.armed.Load()
}

// flush brings to the disk what is due.
func (r *runner) flush() {
	sp := r.sp
	before := sp.log.Usage()
	err := errors.Join(sp.wait(sp.log.Sync), sp.wait(func() error {
		sp.armed.Store(false) // what is acknowledged from here on may come too late
		return sp.log.Save()
	}))
	after := sp.log.Usage()
	if err != nil {
		r.complainDisk("the spool cannot flush to the disk; a loss of power may cost events", err)
	} else if after.Poisoned > before.Poisoned {
		r.complainDisk("the disk of the spool failed to flush; the events were written again in a new segment", nil)
	}
	r.q.mu.Lock()
	sp.usage = after
	r.q.mu.Unlock()
}

// complainDisk logs a failure of the disk, and one of the later ones now and then.
func (r *runner) complainDisk(msg string, err error) {
	if now := time.Now(); now.Sub(r.sp.told) >= complainEvery {
		r.sp.told = now
		r.log.Error(msg, zap.Error(err))
	}
}

// move takes what is next in the queue to the disk, and tells whether there was anything. What it cannot take there before
// ctx ends counts as not delivered.
func (r *runner) move(ctx context.Context) (worked bool) {
	sp := r.sp
	sp.items = r.q.next(sp.items[:0], groupEvents)
	if len(sp.items) == 0 {
		return false
	}
	for rest := sp.items; len(rest) > 0; {
		n := sp.together(rest)
		if !r.store(ctx, rest[:n]) {
			return true
		}
		rest = rest[n:]
	}
	r.q.mu.Lock()
	r.q.release()
	r.q.mu.Unlock()
	return true
}

// together returns how many items, one at least, go to the disk with one write.
func (sp *spooler) together(items []item) int {
	most, size := min(sp.log.MaxAppend(), groupBytes), int(NumReasons)*lossSize
	for i := range items {
		size += len(items[i].b) + lossSize + spool.Overhead + 2
		if size > most && i > 0 {
			return i
		}
	}
	return len(items)
}

// store brings events to the disk, or to run where the disk does not take them. It returns false where ctx ended before.
func (r *runner) store(ctx context.Context, items []item) bool {
	sp := r.sp
	r.q.mu.Lock()
	front := sp.tail
	sp.tail.n = 0
	r.q.mu.Unlock()
	carry := sp.assemble(front, items)
	for len(sp.tails) > 0 {
		var lost uint64
		err := sp.wait(func() (err error) {
			_, lost, err = sp.log.AppendParts(sp.heads, sp.tails)
			return err
		})
		r.stored(lost, len(sp.tails), err)
		if err == nil {
			break
		}
		if handed, ok := r.await(ctx, err, front, items); handed {
			return true
		} else if !ok {
			return false
		}
	}
	r.q.mu.Lock()
	for _, l := range carry.all() {
		sp.tail.merge(l)
	}
	r.q.mu.Unlock()
	r.tellMore()
	return true
}

// assemble makes records of events: the head of each has the losses that come before it. It returns those behind the last.
func (sp *spooler) assemble(carry losses, items []item) losses {
	sp.heads, sp.tails, sp.scratch = sp.heads[:0], sp.tails[:0], sp.scratch[:0]
	var b [lossSize]byte
	for i := range items {
		it := &items[i]
		if it.loss.count > 0 {
			carry.merge(it.loss)
			continue
		}
		at := len(sp.scratch)
		sp.scratch = append(sp.scratch, byte(carry.n))
		for _, l := range carry.all() {
			l.put(b[:])
			sp.scratch = append(sp.scratch, b[:]...)
		}
		carry.n = 0
		sp.heads, sp.tails = append(sp.heads, sp.scratch[at:]), append(sp.tails, it.b)
	}
	return carry
}

// stored takes note of what became of a write.
func (r *runner) stored(lost uint64, n int, err error) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	sp := r.sp
	r.q.pending -= lost
	r.dropped[SpoolFull] += lost
	sp.stored -= int64(lost)
	sp.usage = sp.log.Usage()
	switch {
	case err == nil:
		sp.stored += int64(n)
		r.full, sp.failing = SinkFull, false
	case errors.Is(err, spool.ErrFull):
		r.full, sp.failing = SpoolFull, false
	default:
		r.full, sp.failing = SpoolFailed, true
	}
}

// await waits until it makes sense to write again. Where the disk failed it offers the events to run.
func (r *runner) await(ctx context.Context, err error, front losses, items []item) (handed, ok bool) {
	sp := r.sp
	if errors.Is(err, spool.ErrFull) {
		t := time.NewTimer(sp.every)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return false, false
		}
		return false, true
	}
	r.complainDisk("the spool cannot write to the disk; events go on from memory", err)
	group := make([]item, 0, int(front.n)+len(items))
	for _, l := range front.all() {
		group = append(group, item{loss: l})
	}
	sp.hand <- append(group, items...)
	r.tellMore()
	t := time.NewTimer(diskRetry)
	defer t.Stop()
	select {
	case <-sp.taken:
		return true, true
	case <-t.C:
	case <-ctx.Done():
	}
	select {
	case <-sp.hand: // back again
		return false, ctx.Err() == nil
	case <-sp.taken:
		return true, true
	}
}

// tellMore tells run that there may be something to read.
func (r *runner) tellMore() {
	select {
	case r.sp.more <- struct{}{}:
	default:
	}
}

// fetch returns what run sends next, none where there is nothing.
func (r *runner) fetch(ctx context.Context) []item {
	sp := r.sp
	if sp.handed {
		sp.handed = false
		sp.taken <- struct{}{}
	}
	if out := sp.tells; len(out) > 0 {
		sp.tells = nil
		return out
	}
	for {
		var err error
		if sp.recs, err = sp.log.Read(sp.recs[:0]); err != nil {
			r.complain("the spool cannot be read; trying again", err)
			r.pause(ctx)
			r.tellMore()
			return nil
		}
		if len(sp.recs) == 0 {
			break
		}
		if out := r.unpack(); len(out) > 0 {
			return out
		} // they were all missing
	}
	select {
	case group := <-sp.hand:
		sp.handed = true
		return group
	default:
	}
	return r.takeTail()
}

// takeTail returns the losses behind the last event that the disk has, where that was read.
func (r *runner) takeTail() (out []item) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	if appended, read, _ := r.sp.log.Position(); appended != read {
		return nil
	}
	for _, l := range r.sp.tail.all() {
		out = append(out, item{loss: l})
		r.sp.last.stream = max(r.sp.last.stream, l.lastStream)
	}
	r.sp.tail.n = 0
	return out
}

// unpack makes items of what was read, with the losses that the numbers of the sink's stream tell of.
func (r *runner) unpack() []item {
	sp := r.sp
	out := r.taken[:0]
	for _, rec := range sp.recs {
		if rec.Missing > 0 {
			r.missing(rec.Missing, rec.Counted)
			continue
		}
		it := item{stored: true, seq: rec.Seq}
		if !bytes.Equal(rec.Tag, r.enc.boot) {
			it.old = rec.Tag
		}
		said, b, ok := split(rec.Payload)
		if !ok {
			r.missing(1, false)
			continue
		}
		it.b = b
		n := numberOf(b)
		var told uint64
		for _, l := range said {
			told += l.count
		}
		out = sp.gap(out, rec.Tag, it.old, n, told)
		for _, l := range said {
			out = append(out, item{loss: l, old: it.old})
		}
		out = append(out, it)
		sp.last = place{rec.Seq, rec.Tag, n.stream}
	}
	return out
}

// split takes a record of the spool apart.
func split(b []byte) (said []loss, rec []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0])*lossSize || b[0] > byte(NumReasons) {
		return nil, nil, false
	}
	n, b := int(b[0]), b[1:]
	for range n {
		l := getLoss(b)
		if l.reason >= NumReasons {
			return nil, nil, false
		}
		said, b = append(said, l), b[lossSize:]
	}
	_, _, ok = parts(b)
	return said, b, ok
}

// missing takes note of events that the disk does not have. Those that went for want of room were counted then.
func (r *runner) missing(n uint64, counted bool) {
	sp := r.sp
	sp.hole += n
	sp.holeWhy, sp.holeSince = SpoolFull, time.Now().UnixNano()
	if counted {
		return
	}
	sp.holeWhy = SpoolCorrupt
	r.log.Error("the disk does not give back what the spool has written; the events are lost", zap.Uint64("events", n))
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.pending -= n
	r.dropped[SpoolCorrupt] += n
	sp.stored -= int64(n)
}

// gap appends the losses that nobody has told of between the latest event and the next: the sink's stream has no gaps of
// its own, so the numbers say exactly how many there are.
func (sp *spooler) gap(out []item, boot, old []byte, next number, told uint64) []item {
	same := bytes.Equal(boot, sp.last.boot)
	before := sp.last.stream
	if !same {
		before = 0
	}
	lost := uint64(0)
	if expect := before + told + 1; next.stream > expect && (same || sp.hole > 0) {
		lost = next.stream - expect
	}
	if !same && sp.last.boot != nil && sp.hole > lost {
		// What is missing of the run before has no end that its numbers could tell; the log's can.
		n := sp.hole - lost
		out = append(out, item{old: sp.last.boot, loss: loss{reason: sp.holeWhy, count: n, firstStream: sp.last.stream + 1,
			lastStream: sp.last.stream + n, firstTime: sp.holeSince, lastTime: sp.holeSince}})
	}
	if lost > 0 {
		why, since := sp.holeWhy, sp.holeSince
		if sp.hole == 0 {
			why, since = SpoolCorrupt, time.Now().UnixNano()
		}
		out = append(out, item{old: old, loss: loss{reason: why, count: lost, firstStream: before + 1,
			lastStream: before + lost, firstTime: since, lastTime: since}})
	}
	sp.hole = 0
	return out
}

// packed takes note that an item is in a flight.
func (r *runner) packed(it *item) {
	sp := r.sp
	if it.loss.count > 0 {
		return
	}
	boot := it.old
	if boot == nil {
		boot = r.enc.boot
	}
	if it.stored {
		sp.at = place{it.seq, boot, numberOf(it.b).stream}
	} else { // it never was on the disk
		sp.at.boot, sp.at.stream = boot, numberOf(it.b).stream
		sp.last.boot, sp.last.stream = boot, sp.at.stream
	}
}

// acknowledge moves the cursor to before the first flight that has not landed.
func (r *runner) acknowledge() {
	p := r.sp.at
	if len(r.flights) > 0 {
		p = r.flights[0].before
	}
	r.sp.log.Ack(p.seq, p.note())
	now := time.Since(r.sp.opened)
	if r.sp.armed.Load() && now-r.sp.marked < markEvery {
		return // keep comes to it when it flushes
	}
	r.sp.marked = now
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// refuse takes note of an event of an earlier run that the bus will never take: its loss belongs into its own numbers.
func (sp *spooler) refuse(n number, now int64) {
	if len(sp.tells) < maxTells {
		sp.tells = append(sp.tells, item{old: slices.Clone(n.old), loss: loss{reason: Refused, count: 1, firstSeq: n.seq, lastSeq: n.seq,
			firstStream: n.stream, lastStream: n.stream, firstTime: now, lastTime: now}})
	}
}

// closeSpool ends the spool, once keep and run have returned. What is not delivered stays in it.
func (r *runner) closeSpool() error {
	if err := r.sp.log.Close(); err != nil {
		return fmt.Errorf("eventtap: sink %q: %w", r.name, err)
	}
	return nil
}
