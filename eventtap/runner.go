// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/backoff"
	"github.com/meshtap/meshtap/internal/invariant"
)

const (
	// The bounds of the wait before a batch is sent again, or a sink is opened again.
	retryBase, retryMax = 50 * time.Millisecond, 2 * time.Second
	// closeGrace is how long a sink may take to return once the deadline of Close has passed.
	closeGrace = time.Second
	// rouseEvents is how many events are queued before run is roused in the middle of a round: waking it for each slice
	// would cost more than the slice.
	rouseEvents = 4 * MaxBatch
	// maxInFlight bounds Caps.InFlight.
	maxInFlight = 8
	// complainEvery is how often a failure that lasts is told, with what its cause is by then.
	complainEvery = time.Minute
	// minChunks is the least that a sink's queue needs beside its batches.
	minChunks = 3
)

// runner brings the events of one sink's queue to the sink, in order, and repeats what failed.
type runner struct {
	// Immutable.
	name   string
	log    *zap.Logger
	wake   chan struct{}
	finish chan struct{} // closed when nothing more will come
	cancel func()        // ends run now
	exited chan struct{} // closed by run
	landed chan landing  // has room for every flight, so that done never waits
	swap   chan Sink     // one place: the sink to go on with
	fixed  int           // bytes of the sink's share that are not the queue's
	window int           // how many pieces of it hold what the spool has written last
	sp     *spooler      // nil where events do not go by way of a disk

	// Guarded by the tap's cut.
	modes  [event.NumKinds]Mode
	sample bool    // one of the modes is Sample
	before Account // what had happened when the sink was added

	retries atomic.Uint64
	pushed  int // since run was last roused; owned by the batcher

	q queue
	// Guarded by q.mu.
	stream    uint64 // the last streamseq given
	acked     uint64
	dropped   [NumReasons]uint64
	full      Reason // why an event that finds no room is dropped
	recovered uint64 // events of earlier runs that were in the spool
	abandoned bool
	stop      func() // ends the use of the present sink

	// Owned by run.
	sink    Sink
	enc     encoder
	taken   []item    // what the queue gave last
	items   []item    // those of them that are not in a flight yet
	flights []*flight // sent or failed, or behind one that is, in the order in which they were filled
	spare   []*flight
	sent    int  // flights that have not landed
	failed  bool // flights have to be sent again, before any other
	wait    bool // and not at once
	reopen  bool // and the sink opened again before
	down    bool // a failure was logged and no success since
	told    time.Time
	backoff backoff.Backoff
	random  *rand.Rand
}

// landing is a call of done.
type landing struct {
	f   *flight
	err error
}

// newRunner makes the runner of a sink that may use so many bytes.
func newRunner(name string, s Sink, bytes int, modes [event.NumKinds]Mode, boot, source []byte, deps Deps) (*runner, error) {
	caps := s.Caps()
	if slices.Contains(modes[:], Spool) {
		bytes -= spoolMemory
	}
	if caps.InFlight < 1 || caps.InFlight > maxInFlight {
		return nil, fmt.Errorf("eventtap: sink %q: %d batches in flight, from 1 to %d are allowed", name, caps.InFlight, maxInFlight)
	}
	need := caps.InFlight*flightBytes + minChunks*chunkSize
	if bytes < need {
		return nil, fmt.Errorf("eventtap: sink %q: its share of %d bytes is too small for %d batches in flight, which need %d",
			name, bytes, caps.InFlight, need)
	}
	random, err := newRandom(deps.Random)
	if err != nil {
		return nil, err
	}
	r := &runner{
		name: name, sink: s, log: deps.Log.With(zap.String("sink", name)),
		wake: make(chan struct{}, 1), finish: make(chan struct{}), exited: make(chan struct{}),
		landed: make(chan landing, caps.InFlight),
		enc:    encoder{caps: caps, json: caps.Encoding <= JSONBatch, name: []byte(name), boot: boot, source: source},
		modes:  modes, sample: slices.Contains(modes[:], Sample), full: SinkFull,
		backoff: backoff.Backoff{Base: retryBase, Max: retryMax, Floor: retryBase / 4},
		random:  random,
	}
	r.swap = make(chan Sink, 1)
	if r.fixed = caps.InFlight * flightBytes; slices.Contains(modes[:], Spool) {
		r.window = windowOf(bytes - need)
		r.fixed += spoolMemory + r.window*groupBytes
	}
	r.q.pool = newPool(bytes-caps.InFlight*flightBytes-r.window*groupBytes, 1)
	for range caps.InFlight {
		f := &flight{}
		f.done = func(err error) { r.landed <- landing{f, err} }
		r.spare = append(r.spare, f)
	}
	return r, nil
}

// push queues encoded events for the sink, and numbers them in its stream. The batcher calls it, and rouse once it has no
// more.
func (r *runner) push(out []encoded, now int64) {
	thin := uint(0)
	if r.sample {
		thin = thinning(r.q.pool.used())
	}
	r.q.mu.Lock()
	for i := range out {
		e := &out[i]
		if e.loss.count > 0 {
			l := e.loss
			l.firstStream, l.lastStream = r.stream+1, r.stream+l.count
			r.stream += l.count
			r.q.lost.merge(l)
			continue
		}
		rate := e.rate
		switch r.modes[e.kind] {
		case Off:
			r.dropped[Unselected]++
			continue
		case Sample:
			if thin > 0 && !e.keep {
				if rate = min(rate<<thin, maxRate); e.hash > math.MaxUint64/uint64(rate) {
					r.dropped[Sampled]++
					continue
				}
			}
		}
		r.stream++
		r.queue(e, rate, now)
	}
	r.q.mu.Unlock()
	if r.pushed += len(out); r.pushed >= rouseEvents {
		r.rouse()
	}
}

// maxRate bounds a sampling rate: CloudEvents has it as a 32 bit integer.
const maxRate = 1 << 30

// thinning returns by which power of two events are thinned out where so many sixteenths of the memory are in use.
func thinning(used int) uint {
	if used < 8 {
		return 0
	}
	return uint(min(1+(used-8)/2, 4))
}

// queue queues an event that has its number, or counts it as lost. q.mu must be held.
func (r *runner) queue(e *encoded, rate uint32, now int64) {
	body, key := e.proto, []byte(nil)
	if r.enc.json {
		body = e.json
	}
	if r.enc.caps.Keyed {
		key = e.key
	}
	size, notice, what := sinkHead+len(key)+len(body), isNotice(e.kind), uint32(isRecord)
	if r.modes[e.kind] == DropOldest {
		what = isDroppable
	}
	b := r.q.room(size, notice)
	for b == nil && what == isDroppable {
		dropped, freed := r.q.evict(r.full, now)
		r.dropped[r.full] += dropped
		if !freed {
			break
		}
		b = r.q.room(size, notice)
	}
	if b == nil {
		r.lose(r.full, number{seq: e.seq, stream: r.stream}, now)
		return
	}
	r.q.commitAs(putSinkRecord(b, r.stream, rate, e, r.enc.json, key, body), what)
}

// isNotice tells the kinds that are rare, and that outcomes cannot crowd out.
func isNotice(k event.Kind) bool { return k > event.Connection && k != event.Attempt }

// rouse tells run that there is something in the queue.
func (r *runner) rouse() {
	if r.pushed == 0 {
		return
	}
	r.pushed = 0
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lose counts an event that this sink will not carry. q.mu must be held.
func (r *runner) lose(reason Reason, n number, now int64) {
	r.dropped[reason]++
	r.q.lost.merge(loss{reason: reason, count: 1, firstSeq: n.seq, lastSeq: n.seq,
		firstStream: n.stream, lastStream: n.stream, firstTime: now, lastTime: now})
}

// start starts the runner's goroutine.
func (r *runner) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	if r.sp != nil {
		go r.keep(ctx)
	}
	go r.run(ctx)
}

// run ends with the sink's last event, with ctx, or with a panic in the sink; then its queue fills, and Close counts what
// is in it.
func (r *runner) run(ctx context.Context) {
	defer close(r.exited)
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("the event sink failed and is given up", zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	for r.use(ctx) {
	}
}

// use opens the sink and sends to it until it must be opened again, or another takes its place; it returns false where run
// must end.
func (r *runner) use(ctx context.Context) (again bool) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	r.q.mu.Lock()
	r.stop = cancel
	r.q.mu.Unlock()
	select {
	case r.sink = <-r.swap:
		r.log.Info("the event sink has another configuration")
	default:
	}
	if r.open(own) {
		again = r.serve(own)
		r.closeSink(ctx)
	}
	if own.Err() == nil || ctx.Err() != nil {
		return again
	}
	// Another sink is to go on: with what this one has not acknowledged.
	for r.sent > 0 {
		select {
		case l := <-r.landed:
			r.land(l)
		case <-ctx.Done():
			return false
		}
	}
	r.failed, r.wait, r.reopen = len(r.flights) > 0, false, false
	return true
}

// open opens the sink, as often as it takes. It returns false where run must end.
func (r *runner) open(ctx context.Context) bool {
	for {
		err := r.sink.Open(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.complain("cannot open the event sink; trying again", err)
		if !r.pause(ctx) {
			return false
		}
	}
}

func (r *runner) closeSink(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := r.sink.Close(ctx); err != nil {
		r.log.Warn("the event sink did not close well", zap.Error(err))
	}
}

// complain logs the first failure of a series, and one of the later ones now and then.
func (r *runner) complain(msg string, err error) {
	if now := time.Now(); !r.down || now.Sub(r.told) >= complainEvery {
		r.down, r.told = true, now
		r.log.Warn(msg, zap.Error(err), zap.Int("tries", r.backoff.Tries()))
	}
}

// pause waits before the next try. It returns false where run must end.
func (r *runner) pause(ctx context.Context) bool {
	t := time.NewTimer(r.backoff.Next(r.random.Float64))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve sends until the sink must be opened again (true), or run must end (false).
func (r *runner) serve(ctx context.Context) (again bool) {
	finish, wake := r.finish, r.wake
	if r.sp != nil {
		finish, wake = r.sp.exited, r.sp.more
	}
	for {
		if r.failed && r.sent == 0 {
			if r.reopen {
				r.reopen = false
				return true
			}
			if r.wait && !r.pause(ctx) {
				return false
			}
			r.resend(ctx)
		}
		if !r.failed {
			r.fill(ctx)
			if r.failed && r.sent == 0 {
				continue
			}
			if finish == nil && len(r.flights) == 0 && r.empty() {
				return false
			}
		}
		select {
		case l := <-r.landed:
			r.land(l)
		case <-wake:
		case <-finish:
			finish = nil
		case <-ctx.Done():
			return false
		}
	}
}

// fill sends what is queued, as far as flights are spare and none has failed: nothing is sent behind what is known to
// have failed. A flight is spare once all before it have landed, too: where a bus loses one and says nothing until a time-out, no
// more passes it than the others in flight.
func (r *runner) fill(ctx context.Context) {
	for len(r.spare) > 0 && !r.failed {
		f := r.spare[len(r.spare)-1]
		r.pack(ctx, f)
		if len(f.batch.Events) == 0 {
			return
		}
		r.spare = r.spare[:len(r.spare)-1]
		r.flights = append(r.flights, f)
		r.send(ctx, f)
		select {
		case l := <-r.landed:
			r.land(l)
		default:
		}
	}
}

// pack makes a batch of what is next in the queue, or in the spool.
func (r *runner) pack(ctx context.Context, f *flight) {
	f.reset()
	if r.sp != nil {
		f.before = r.sp.at
	}
	for !f.full() {
		if len(r.items) == 0 {
			if r.items = r.next(ctx); len(r.items) == 0 {
				break
			}
			r.taken = r.items
		}
		it := &r.items[0]
		r.enc.add(f, it)
		if r.sp != nil {
			r.packed(it)
		}
		if r.items = r.items[1:]; len(r.items) == 0 && r.sp == nil {
			r.q.mu.Lock()
			r.q.release()
			r.q.mu.Unlock()
		}
	}
	r.enc.end(f)
}

// next returns the next items, which are valid until the call after.
func (r *runner) next(ctx context.Context) []item {
	if r.sp != nil {
		return r.fetch(ctx)
	}
	return r.q.next(r.taken[:0], MaxBatch)
}

// empty tells whether run has seen everything.
func (r *runner) empty() bool {
	if r.sp == nil {
		return r.q.empty()
	}
	appended, read, _ := r.sp.log.Position()
	return appended == read && len(r.items) == 0 && len(r.sp.hand) == 0 && len(r.sp.tells) == 0
}

func (r *runner) send(ctx context.Context, f *flight) {
	f.sent = true
	r.sent++
	r.sink.Send(ctx, &f.batch, f.done)
}

// resend sends the first of the flights that are left. The others have to wait until it has landed, so that none comes
// before one that fails again.
func (r *runner) resend(ctx context.Context) {
	r.wait = false
	r.retries.Add(1)
	r.send(ctx, r.flights[0])
}

// land takes note of what became of a flight.
func (r *runner) land(l landing) {
	f := l.f
	if !f.sent {
		invariant.Check(false, "eventtap: sink %s called done twice", r.name)
		return
	}
	f.sent = false
	r.sent--
	var refused *RefusedError
	if l.err != nil && !errors.As(l.err, &refused) {
		r.failed, r.wait = true, true
		r.reopen = r.reopen || errors.Is(l.err, ErrReopen)
		r.complain("the event sink failed; trying again", l.err)
		return
	}
	if refused != nil {
		r.log.Warn("the event sink refused events for good", zap.Int("events", len(refused.Events)), zap.Error(refused.Err))
	}
	r.settle(f, refused)
	f.settled = true
	for len(r.flights) > 0 && r.flights[0].settled {
		r.flights[0].settled = false
		r.spare = append(r.spare, r.flights[0])
		r.flights = slices.Delete(r.flights, 0, 1)
	}
	if r.sp != nil {
		r.acknowledge()
	}
	if r.failed = r.failed && len(r.flights) > 0; r.failed {
		return
	}
	if r.down {
		r.log.Info("the event sink works again", zap.Int("tries", r.backoff.Tries()))
		r.down = false
	}
	r.backoff.Reset()
}

// settle moves a flight's events from pending to where they ended.
func (r *runner) settle(f *flight, refused *RefusedError) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	if r.abandoned {
		return
	}
	acked := f.events
	if refused != nil {
		now := time.Now().UnixNano()
		for _, i := range refused.Events {
			switch n := f.numbers[i]; {
			case n.seq == 0:
			case n.old != nil:
				r.dropped[Refused]++
				r.sp.refuse(n, now)
				acked--
			default:
				r.lose(Refused, n, now)
				acked--
			}
		}
	}
	r.acked += acked
	r.q.pending -= f.events
	if r.sp != nil {
		r.sp.stored -= int64(f.stored)
	}
}

// end tells run that nothing more will come.
func (r *runner) end() {
	r.q.close()
	close(r.finish)
}

// close lets run send what is queued until ctx ends, and counts the rest as dropped. It comes after end.
func (r *runner) close(ctx context.Context) error {
	var stuck error
	select {
	case <-r.exited:
	case <-ctx.Done():
		r.cancel()
		select {
		case <-r.exited:
		case <-time.After(closeGrace):
			stuck = fmt.Errorf("eventtap: sink %q does not return from a call", r.name)
		}
	}
	r.cancel()
	if r.sp != nil && stuck == nil {
		<-r.sp.exited
		stuck = r.closeSpool()
	}
	if n := r.abandon(); n > 0 {
		return errors.Join(stuck, fmt.Errorf("eventtap: sink %q: %d events were not delivered by the deadline", r.name, n))
	}
	return stuck
}

func (r *runner) abandon() uint64 {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	n, left := r.q.pending, uint64(0)
	if r.sp != nil {
		left = uint64(max(r.sp.stored, 0))
		n -= left
	}
	r.q.pending = left
	r.dropped[Shutdown] += n
	r.abandoned = true
	return n
}
