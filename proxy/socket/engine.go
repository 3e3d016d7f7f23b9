// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/sys"
)

// Engine owns the epoll sets, the workers and the deadlines of one proxy.
type Engine struct {
	// Bufs are the buffers of the data path.
	Bufs bytebuf.Pool

	sets    []*set
	maxIdle int
	next    atomic.Uint32 // round robin over sets: where the next connection goes
	looks   atomic.Uint32 // and where the next look of Worker.Yield does

	mu      sync.Mutex
	idle    []*Worker            // newest last
	unused  int                  // how many of them, the oldest, have not been used since trim looked last
	workers map[*Worker]struct{} // all
	shards  uint32
	closed  bool

	wg sync.WaitGroup

	// The earliest deadlines the sweeper knows of, of workers and of idle connections.
	nextWorker, nextIdle atomic.Int64
	kick                 chan struct{} // one place
	done                 chan struct{}
}

// Options configure an Engine. The zero value is what a proxy wants.
type Options struct {
	// Sets is the number of epoll sets; 0 means one for each processor that Go uses, at most eight.
	Sets int
	// IdleWorkers bounds the goroutines that wait for work for more than a moment; 0 means 64 for each set.
	IdleWorkers int
}

const (
	never      = int64(1) << 62
	workerTick = 10 * time.Millisecond
	idleTick   = 250 * time.Millisecond

	// burst is by how much more workers than IdleWorkers may wait for a moment: a load that comes in waves, as the streams
	// of HTTP/2 connections do, would otherwise make and drop them all the time.
	burst = 4
)

// NewEngine starts an engine. Close ends it.
func NewEngine(o Options) (*Engine, error) {
	if o.Sets == 0 {
		o.Sets = min(runtime.GOMAXPROCS(0), 8)
	}
	if o.IdleWorkers == 0 {
		o.IdleWorkers = 64 * o.Sets
	}
	e := &Engine{
		maxIdle: o.IdleWorkers,
		workers: map[*Worker]struct{}{},
		kick:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	e.nextWorker.Store(never)
	e.nextIdle.Store(never)
	for range o.Sets {
		s, err := newSet(e)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.sets = append(e.sets, s)
	}
	e.wg.Add(1)
	go e.sweep()
	return e, nil
}

// Close ends the engine's goroutines and waits for them. All its connections must have been closed.
func (e *Engine) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	idle := e.idle
	e.idle = nil
	for _, w := range idle {
		delete(e.workers, w)
	}
	e.mu.Unlock()
	close(e.done)
	for _, w := range idle {
		w.jobs <- nil
	}
	for _, s := range e.sets {
		s.close()
	}
	e.wg.Wait()
}

// hurry brings the sweeper's next look forward to t.
func (e *Engine) hurry(next *atomic.Int64, t int64) {
	for {
		old := next.Load()
		if t >= old {
			return
		}
		if next.CompareAndSwap(old, t) {
			select {
			case e.kick <- struct{}{}:
			default:
			}
			return
		}
	}
}

// sweep enforces the deadlines: one goroutine that sleeps until the earliest it knows of. Nothing is registered per
// request; a deadline is a number that its owner stores.
func (e *Engine) sweep() {
	defer e.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := mono.Now()
		if now >= e.nextWorker.Load() {
			e.sweepWorkers(now)
		}
		if now >= e.nextIdle.Load() {
			e.sweepIdle(now)
		}
		next := min(e.nextWorker.Load(), e.nextIdle.Load())
		timer.Reset(time.Duration(max(next-mono.Now(), 0)))
		select {
		case <-e.done:
			return
		case <-e.kick:
		case <-timer.C:
		}
	}
}

// sweepWorkers interrupts the workers whose deadline has passed. A deadline set while it looks is not missed: nextWorker
// is reset first, so whoever sets one then brings it forward again.
func (e *Engine) sweepWorkers(now int64) {
	e.nextWorker.Store(never)
	next := never
	e.mu.Lock()
	for w := range e.workers {
		d := w.deadline.Load()
		if d == 0 {
			continue
		}
		if d <= now && w.deadline.CompareAndSwap(d, 0) {
			w.Interrupt()
			continue
		}
		next = min(next, d)
	}
	e.mu.Unlock()
	if next != never {
		e.hurry(&e.nextWorker, max(next, now+int64(workerTick)))
	}
}

// sweepIdle starts a worker for each idle connection whose time is over.
func (e *Engine) sweepIdle(now int64) {
	e.nextIdle.Store(never)
	next := e.trim(now)
	for _, s := range e.sets {
		s.each(func(w *watch) {
			c, ok := w.target.(*Conn)
			if !ok {
				return
			}
			d := c.expire.Load()
			if d == 0 {
				return
			}
			if d > now {
				next = min(next, d)
			} else if !c.expireNow(d) {
				next = now // it is busy: look again soon, in case it goes idle with this deadline
			}
		})
	}
	if next != never {
		e.hurry(&e.nextIdle, max(next, now+int64(idleTick)))
	}
}

// trim ends the idle workers above IdleWorkers that were not needed since it looked last. It returns when to look again.
func (e *Engine) trim(now int64) (next int64) {
	e.mu.Lock()
	n := max(0, min(e.unused, len(e.idle)-e.maxIdle))
	drop := slices.Clone(e.idle[:n])
	e.idle = slices.Delete(e.idle, 0, n)
	for _, w := range drop {
		delete(e.workers, w)
	}
	e.unused = len(e.idle)
	next = never
	if len(e.idle) > e.maxIdle {
		next = now + int64(idleTick)
	}
	e.mu.Unlock()
	for _, w := range drop {
		w.jobs <- nil
	}
	return next
}

// set is an epoll set. Its descriptor is an os.File in the runtime's poller, so the one goroutine that reads it sleeps
// like any other.
type set struct {
	e    *Engine
	ep   int
	file *os.File

	looking sync.Mutex
	evs     [256]sys.Event // guarded by looking

	table [1 << 10]atomic.Pointer[chunk]
	gen   atomic.Uint32
}

// chunk holds what is watched on 1,024 neighbouring descriptors.
type chunk [1 << 10]atomic.Pointer[watch]

// watch ties a descriptor to what its events are for. gen tells an event of an earlier owner of the same descriptor.
type watch struct {
	gen    uint32
	target target
}

type target interface {
	event(ev uint32)
}

func newSet(e *Engine) (*set, error) {
	ep, err := sys.EpollCreate()
	if err != nil {
		return nil, fmt.Errorf("socket: create an epoll set: %w", err)
	}
	s := &set{e: e, ep: ep, file: os.NewFile(uintptr(ep), "epoll")}
	rc, err := s.file.SyscallConn()
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("socket: put the epoll set into the runtime's poller: %w", err)
	}
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		rc.Read(s.poll) // one call for good: an edge that comes during poll ends the next wait
	}()
	return s, nil
}

func (s *set) close() {
	s.file.Close()
}

func (s *set) poll(uintptr) bool {
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.look()
}

// look hands out the events that are there. looking is held.
func (s *set) look() (closed bool) {
	for {
		n, e := sys.EpollPoll(s.ep, s.evs[:])
		if e != 0 || n <= 0 {
			return e == syscall.EBADF
		}
		for i := range s.evs[:n] {
			ev := &s.evs[i]
			data := ev.Data()
			if w := s.at(int(uint32(data))).Load(); w != nil && w.gen == uint32(data>>32) {
				w.target.event(ev.Events)
			}
		}
		if n < len(s.evs) {
			return false
		}
	}
}

// at returns the place of a descriptor.
func (s *set) at(fd int) *atomic.Pointer[watch] {
	p := &s.table[fd>>10]
	c := p.Load()
	for c == nil {
		p.CompareAndSwap(nil, new(chunk))
		c = p.Load()
	}
	return &c[fd&(1<<10-1)]
}

// maxFD bounds the descriptors a set can hold.
const maxFD = 1 << 20

// add watches fd for events; w.target is set already.
func (s *set) add(fd int, w *watch, events uint32) error {
	if fd >= maxFD {
		return fmt.Errorf("socket: descriptor %d is above the greatest that fits, %d", fd, maxFD-1)
	}
	w.gen = s.gen.Add(1)
	s.at(fd).Store(w)
	if e := sys.EpollAdd(s.ep, fd, events, uint64(w.gen)<<32|uint64(uint32(fd))); e != 0 {
		s.at(fd).Store(nil)
		return fmt.Errorf("socket: watch descriptor %d: %w", fd, e)
	}
	return nil
}

// forget ends the watch. Closing the descriptor takes it out of the epoll set.
func (s *set) forget(fd int, w *watch) { s.at(fd).CompareAndSwap(w, nil) }

func (s *set) each(f func(*watch)) {
	for i := range s.table {
		c := s.table[i].Load()
		if c == nil {
			continue
		}
		for j := range c {
			if w := c[j].Load(); w != nil {
				f(w)
			}
		}
	}
}

// pickSet spreads connections over the sets.
func (e *Engine) pickSet() *set { return e.sets[int(e.next.Add(1))%len(e.sets)] }
