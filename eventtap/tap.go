// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// Deps is what a Tap needs of its surroundings.
type Deps struct {
	Log   *zap.Logger
	Stats *stats.Registry
	Node  mesh.Node
	// Random is the source of the boot id and of jitter, such as crypto/rand.Reader.
	Random io.Reader
	// Builders make the configured sinks, by type URL; see registry.Builders.
	Builders map[string]SinkBuilder
	// Local are sinks of this process beside the configured ones, such as the hub.
	Local []LocalSink
}

// HubName is the name of the hub among the sinks. No configured sink may have it.
const HubName = "hub"

// LocalSink is a sink that the program itself provides.
type LocalSink struct {
	Name string
	Sink Sink
}

// Tap is the event tap. Observe, Notify and Account may be called from any goroutine.
type Tap struct {
	// Immutable.
	cfg     Config
	log     *zap.Logger
	seed    maphash.Seed
	rings   []ring
	notices ring
	runners []*runner
	off     bool // there are no sinks
	wake    chan struct{}
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed by the batcher

	_    [64]byte
	idle atomic.Bool // the batcher sleeps until it is woken
	_    [64]byte

	// cut is held by the batcher while events are between a ring and the sinks' queues, so that Account finds none there.
	cut sync.Mutex
	// The rest is the batcher's, guarded by cut.
	batcher batcher

	closing sync.Once
	closed  error
}

// ring is a queue between those who observe and the batcher.
type ring struct {
	queue
	produced uint64             // guarded by mu
	dropped  [NumReasons]uint64 // guarded by mu
	_        [64]byte           // keeps two rings' locks on two cache lines
}

const (
	noticeBytes = 4 * chunkSize
	// flushEvery is how long events wait for more to come, unless the rings fill up.
	flushEvery = 10 * time.Millisecond
)

// New starts a tap. The caller closes it.
func New(cfg Config, deps Deps) (*Tap, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	boot, err := newBoot(deps.Random)
	if err != nil {
		return nil, err
	}
	t := &Tap{cfg: cfg, log: deps.Log, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{})}
	src := source(cfg.Source, deps.Node)
	if err := t.addSinks(deps, boot, src); err != nil {
		return nil, err
	}
	t.off = len(t.runners) == 0
	shared := cfg.ringBytes() - noticeBytes - bufBytes
	t.rings = make([]ring, ringCount(shared))
	memory := newPool(shared, len(t.rings)-1)
	for i := range t.rings {
		t.rings[i].pool = memory
	}
	t.notices.pool = newPool(noticeBytes, 0)
	t.batcher = batcher{boot: boot, enc: event.NewEncoder(src, boot), meter: newMeter(deps.Stats, t.runners)}
	for _, r := range t.runners {
		t.batcher.json = t.batcher.json || r.enc.json
		t.batcher.proto = t.batcher.proto || !r.enc.json
	}
	go t.batch()
	for _, r := range t.runners {
		r.start()
	}
	return t, nil
}

// ringCount is one ring for each processor, as far as the memory gives each a few chunks.
func ringCount(bytes int) int {
	n := min(runtime.GOMAXPROCS(0), bytes/chunkSize/4)
	return 1 << (bits.Len(uint(n)) - 1)
}

// newBoot returns the name of this run: 64 random bits and the time.
func newBoot(random io.Reader) ([]byte, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("eventtap: no random boot id: %w", err)
	}
	return fmt.Appendf(hex.AppendEncode(nil, b[:]), "%08x", time.Now().Unix()), nil
}

// newRandom returns a source for jitter that no other goroutine shares.
func newRandom(seed io.Reader) (*rand.Rand, error) {
	var b [16]byte
	if _, err := io.ReadFull(seed, b[:]); err != nil {
		return nil, fmt.Errorf("eventtap: no random numbers: %w", err)
	}
	le := binary.LittleEndian
	return rand.New(rand.NewPCG(le.Uint64(b[:]), le.Uint64(b[8:]))), nil
}

// shared lets any goroutine use a source of random numbers.
func shared(r *rand.Rand) func() float64 {
	var mu sync.Mutex
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	}
}

func (t *Tap) addSinks(deps Deps, boot, source []byte) error {
	add := func(name string, s Sink, bytes int) error {
		for _, r := range t.runners {
			if r.name == name {
				return fmt.Errorf("eventtap: two sinks have the name %q", name)
			}
		}
		r, err := newRunner(name, s, bytes, boot, source, deps)
		t.runners = append(t.runners, r)
		return err
	}
	for _, c := range t.cfg.Sinks {
		build := deps.Builders[c.TypeURL]
		if build == nil {
			return fmt.Errorf("eventtap: sink %q: this program has no sink of type %q", c.Name, c.TypeURL)
		}
		random, err := newRandom(deps.Random)
		if err != nil {
			return err
		}
		s, err := build(c.Config, SinkDeps{Log: deps.Log.With(zap.String("sink", c.Name)), Random: shared(random)})
		if err != nil {
			return fmt.Errorf("eventtap: sink %q: %w", c.Name, err)
		}
		if err := add(c.Name, s, t.cfg.sinkBytes()); err != nil {
			return err
		}
	}
	for _, l := range deps.Local {
		if err := add(l.Name, l.Sink, t.cfg.localBytes()/len(deps.Local)); err != nil {
			return err
		}
	}
	return nil
}

// Observe queues the outcome of a request or connection. It copies what it keeps and never waits for a sink.
func (t *Tap) Observe(o *mesh.Outcome) {
	kind := event.Request
	if o.Kind == mesh.OutcomeTCP {
		kind = event.Connection
	}
	if t.off || t.cfg.Off[kind] {
		return
	}
	var trace []byte
	if o.Headers != nil {
		trace = o.Headers.RequestHeader("traceparent")
	}
	r := t.ringOf(o)
	r.mu.Lock()
	r.produced++
	if b := r.room(maxRecord, false); b != nil {
		r.commit(putOutcome(b, o, trace, t.cfg.ClientNetwork))
	} else {
		r.lose(o.Start + max(o.Duration, 0))
	}
	low := r.low
	r.low = false
	r.mu.Unlock()
	t.rouse(low)
}

// ringOf returns the ring of the outcome's partition key.
func (t *Tap) ringOf(o *mesh.Outcome) *ring {
	if len(t.rings) == 1 {
		return &t.rings[0]
	}
	key := o.Cluster
	if key == "" {
		key = o.Listener
	}
	return &t.rings[maphash.String(t.seed, key)&uint64(len(t.rings)-1)]
}

// Notify queues a notice, in a ring of its own that outcomes cannot fill. It never waits for a sink.
func (t *Tap) Notify(n *mesh.Notice) {
	if t.off || int(n.Kind) >= len(kinds) || t.cfg.Off[kinds[n.Kind]] {
		return
	}
	e := noticeEvent(n)
	e.ID, e.Source = noKey, noKey // the batcher knows them
	r := &t.notices
	r.mu.Lock()
	r.produced++
	if b := r.room(maxNotice, true); b != nil {
		r.commit(len(e.AppendProto(b[:0])))
	} else {
		r.lose(n.Time)
	}
	r.mu.Unlock()
	t.rouse(false)
}

// lose counts an event that found no room. mu must be held.
func (r *ring) lose(time int64) {
	reason := RingFull
	if r.closed {
		reason = Shutdown
	} else {
		r.lost.add(reason, 1, time)
	}
	r.dropped[reason]++
}

// rouse wakes the batcher if it sleeps, or if it must not wait for more.
func (t *Tap) rouse(now bool) {
	if now || t.idle.Load() && t.idle.CompareAndSwap(true, false) {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// Close takes no more events, sends what is queued until ctx ends, and stops. What is not acknowledged by then counts as
// dropped. It returns an error where that happened, or where a sink did not close.
func (t *Tap) Close(ctx context.Context) error {
	t.closing.Do(func() { t.closed = t.close(ctx) })
	return t.closed
}

func (t *Tap) close(ctx context.Context) error {
	for i := range t.rings {
		t.rings[i].close()
	}
	t.notices.close()
	close(t.stop)
	<-t.stopped // the batcher has emptied the rings
	for _, r := range t.runners {
		r.end()
	}
	var errs []error
	for _, r := range t.runners {
		errs = append(errs, r.close(ctx))
	}
	t.batcher.meter.publish(t.Account())
	t.batcher.meter.release()
	return errors.Join(errs...)
}

var (
	_ mesh.Observer = (*Tap)(nil)
	_ mesh.Notifier = (*Tap)(nil)
)
