// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/bits"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
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

	onFlush func() // of a test: see spool.Config
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
	deps    Deps
	log     *zap.Logger
	seed    maphash.Seed
	rings   []ring
	notices ring
	skipped *stats.Group // counts what policies leave out
	wake    chan struct{}
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed by the batcher

	live atomic.Pointer[settings]
	_    [64]byte
	idle atomic.Bool // the batcher sleeps until it is woken
	_    [64]byte

	// cut is held by the batcher while events are between a ring and the sinks' queues, so that Account finds none there.
	cut sync.Mutex
	// Guarded by cut. The batcher is its goroutine's beside.
	batcher batcher
	runners []*runner

	changing sync.Mutex // held by Reconfigure and Close
	ended    bool       // guarded by changing
	closing  sync.Once
	closed   error
}

// settings are what a configuration says to who handles an event. They are immutable.
type settings struct {
	// What every request looks at comes first, on one cache line. wanted are the kinds that a sink takes; selecting says
	// that there is more to a policy than the default, sample that a sink thins out, network and key what Config says.
	wanted                     [event.NumKinds]bool
	selecting, sample, network bool
	key                        KeyBy
	cfg                        Config
}

func newSettings(cfg Config, local bool) *settings {
	s := &settings{cfg: cfg, network: cfg.ClientNetwork, key: cfg.Key.By, selecting: len(cfg.Selections) > 0 || cfg.Policy.Off || cfg.Policy.OneIn > 1 || !cfg.Policy.Mask.isZero() || cfg.Policy.Filter != nil}
	note := func(modes [event.NumKinds]Mode) {
		for k, m := range modes {
			s.wanted[k] = s.wanted[k] || m != Off
			s.sample = s.sample || m == Sample
		}
	}
	for i := range cfg.Sinks {
		note(cfg.modes(&cfg.Sinks[i]))
	}
	if local {
		note(settle(cfg.Modes))
	}
	return s
}

// ring is a queue between those who observe and the batcher.
type ring struct {
	queue
	produced uint64             // guarded by mu
	dropped  [NumReasons]uint64 // guarded by mu
	latest   latest             // owned by the batcher
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
	t := &Tap{deps: deps, log: deps.Log, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{})}
	src := source(cfg.Source, deps.Node)
	t.batcher = batcher{boot: boot, source: src, seed: t.seed, enc: event.NewEncoder(src, boot), causes: causes{of: map[string]*cause{}}}
	t.live.Store(newSettings(cfg, len(deps.Local) > 0))
	if err := t.addSinks(cfg); err != nil {
		return nil, errors.Join(err, t.giveUp())
	}
	shared := cfg.ringBytes() - noticeBytes - bufBytes
	t.rings = make([]ring, ringCount(shared))
	memory := newPool(shared, len(t.rings)-1)
	for i := range t.rings {
		t.rings[i].pool = memory
	}
	t.notices.pool = newPool(noticeBytes, 0)
	t.batcher.meter = newMeter(deps.Stats)
	t.skipped = t.batcher.meter.tap
	t.forms()
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

// addSinks makes the runners of a configuration.
func (t *Tap) addSinks(cfg Config) error {
	for i := range cfg.Sinks {
		r, err := t.makeSink(&cfg, &cfg.Sinks[i])
		if err != nil {
			return err
		}
		t.runners = append(t.runners, r)
		if err := t.openSpool(&cfg, r); err != nil {
			return err
		}
	}
	for _, l := range t.deps.Local {
		r, err := t.makeRunner(l.Name, l.Sink, cfg.localBytes()/len(t.deps.Local), memoryModes(settle(cfg.Modes)))
		if err != nil {
			return err
		}
		t.runners = append(t.runners, r)
	}
	return nil
}

// memoryModes are the modes of a sink of this process, which needs no disk.
func memoryModes(modes [event.NumKinds]Mode) [event.NumKinds]Mode {
	for k, m := range modes {
		if m == Spool {
			modes[k] = DropNewest
		}
	}
	return modes
}

// makeSink makes a configured sink and its runner.
func (t *Tap) makeSink(cfg *Config, c *SinkConfig) (*runner, error) {
	s, err := t.build(c)
	if err != nil {
		return nil, err
	}
	return t.makeRunner(c.Name, s, cfg.sinkBytes(), cfg.modes(c))
}

// build makes a configured sink.
func (t *Tap) build(c *SinkConfig) (Sink, error) {
	build := t.deps.Builders[c.TypeURL]
	if build == nil {
		return nil, fmt.Errorf("eventtap: sink %q: this program has no sink of type %q", c.Name, c.TypeURL)
	}
	random, err := newRandom(t.deps.Random)
	if err != nil {
		return nil, err
	}
	s, err := build(c.Config, SinkDeps{Log: t.log.With(zap.String("sink", c.Name)), Random: shared(random)})
	if err != nil {
		return nil, fmt.Errorf("eventtap: sink %q: %w", c.Name, err)
	}
	return s, nil
}

func (t *Tap) makeRunner(name string, s Sink, bytes int, modes [event.NumKinds]Mode) (*runner, error) {
	for _, r := range t.runners {
		if r.name == name {
			return nil, fmt.Errorf("eventtap: two sinks have the name %q", name)
		}
	}
	return newRunner(name, s, bytes, modes, t.batcher.boot, t.batcher.source, t.deps)
}

// openSpool opens the spool of a runner, if it has one.
func (t *Tap) openSpool(cfg *Config, r *runner) error {
	if !slices.Contains(r.modes[:], Spool) {
		return nil
	}
	key, err := ReadKey(cfg.Spool.KeyFile)
	if err != nil {
		return fmt.Errorf("eventtap: %w", err)
	}
	return r.useSpool(spool.Config{
		Dir: filepath.Join(cfg.Spool.Dir, r.name), MaxBytes: cmp.Or(cfg.Spool.MaxBytes, DefaultSpoolBytes), Refuse: cfg.Spool.Refuse,
		Commit: cfg.Spool.Commit, Key: key, Tag: t.batcher.boot, OnFlush: t.deps.onFlush,
	}, cmp.Or(cfg.Spool.Every, DefaultCommit))
}

// giveUp gives back what was opened of a tap that does not start.
func (t *Tap) giveUp() error {
	var errs []error
	for _, r := range t.runners {
		if r.sp != nil {
			errs = append(errs, r.closeSpool())
		}
	}
	return errors.Join(errs...)
}

// forms notes which encodings the sinks want. cut must be held, or nothing run yet.
func (t *Tap) forms() {
	t.batcher.json, t.batcher.proto = false, false
	for _, r := range t.runners {
		t.batcher.json = t.batcher.json || r.enc.json
		t.batcher.proto = t.batcher.proto || !r.enc.json
	}
}

// sinks returns the runners of this moment.
func (t *Tap) sinks() []*runner {
	t.cut.Lock()
	defer t.cut.Unlock()
	return t.runners
}

// Observe queues the outcome of a request or connection. It copies what it keeps and never waits for a sink.
func (t *Tap) Observe(o *mesh.Outcome) {
	s := t.live.Load()
	kind := event.Request
	if o.Kind == mesh.OutcomeTCP {
		kind = event.Connection
	}
	if !s.wanted[kind] {
		return
	}
	var trace []byte
	if o.Headers != nil {
		trace = o.Headers.RequestHeader("traceparent")
	}
	m := meta{rate: 1}
	if s.selecting || o.Policy != nil {
		if !t.choose(s, o, trace, &m) {
			return
		}
	} else if s.sample {
		m.keep = s.cfg.Policy.important(o)
	}
	if s.key == KeyByHeader && o.Headers != nil {
		m.part = o.Headers.RequestHeader(s.cfg.Key.Header)
		m.part = m.part[:min(len(m.part), maxPartKey)]
	}
	attempts := 0
	if kind == event.Request && o.Attempts > 0 && s.wanted[event.Attempt] {
		attempts = min(len(o.Tries), event.MaxItems) + 1
	}
	r := t.ringOf(s, o, trace, m.part)
	r.mu.Lock()
	r.produced += 1 + uint64(attempts)
	if b := r.room(maxRing, false); b != nil {
		n := putMeta(b, &m)
		r.commitFiltered(n+putOutcome(b[n:], o, trace, s.network), m.filter)
		if attempts > 0 {
			r.attempts(o, attempts)
		}
	} else {
		r.lose(o.Start+max(o.Duration, 0), 1+uint64(attempts))
	}
	low := r.low
	r.low = false
	r.mu.Unlock()
	t.rouse(low)
}

// choose fills what the policy says of an outcome. It returns false where there is to be no event.
func (t *Tap) choose(s *settings, o *mesh.Outcome, trace []byte, m *meta) bool {
	p := s.selects(o)
	if p.Off {
		t.skipped.Inc(o.Shard, tapOff)
		return false
	}
	m.keep = p.important(o)
	if m.rate = p.rate(o, trace, m.keep); m.rate == 0 {
		t.skipped.Inc(o.Shard, tapThinned)
		return false
	}
	if !p.Mask.isZero() {
		m.mask = &p.Mask
	}
	m.filter = p.Filter
	return true
}

// attempts queues the attempts of an outcome, which stands before them. mu must be held.
func (r *ring) attempts(o *mesh.Outcome, n int) {
	for i := range n {
		if i == n-1 {
			i = len(o.Tries) // the last of all
		}
		if b := r.room(maxAttempt, false); b != nil {
			r.commit(putAttempt(b, o, i))
		} else {
			r.lose(o.Start+max(o.Duration, 0), 1)
		}
	}
}

// ringOf returns the ring of the outcome's partition key.
func (t *Tap) ringOf(s *settings, o *mesh.Outcome, trace, part []byte) *ring {
	if len(t.rings) == 1 {
		return &t.rings[0]
	}
	var h uint64
	if s.key == KeyByCluster && o.Cluster != "" { // as nearly always
		h = maphash.String(t.seed, o.Cluster)
	} else {
		h = s.keyHash(t.seed, o, trace, part)
	}
	return &t.rings[h&uint64(len(t.rings)-1)]
}

// Notify queues a notice, in a ring of its own that outcomes cannot fill. It never waits for a sink.
func (t *Tap) Notify(n *mesh.Notice) {
	if int(n.Kind) >= len(kinds) || !t.live.Load().wanted[kinds[n.Kind]] {
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
		r.lose(n.Time, 1)
	}
	r.mu.Unlock()
	t.rouse(false)
}

// lose counts events that found no room. mu must be held.
func (r *ring) lose(time int64, n uint64) {
	reason := RingFull
	if r.closed {
		reason = Shutdown
	} else {
		r.lost.add(reason, n, time)
	}
	r.dropped[reason] += n
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
	t.changing.Lock()
	defer t.changing.Unlock()
	t.ended = true
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
