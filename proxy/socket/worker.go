// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/mono"
)

// ErrInterrupted is returned by an operation whose worker was interrupted and whose owner gave no better reason.
var ErrInterrupted = errors.New("socket: interrupted")

// Owner is asked, on the worker's own goroutine, whether an interrupted operation is to end. A nil error lets it go on.
type Owner interface {
	Interrupted() error
}

// Runner is a piece of work for a worker.
type Runner interface {
	Run(w *Worker)
}

// Worker is a goroutine that serves one connection, or one half of a stream, at a time; and what others need to end its
// sleep. It is reused from job to job, so that its stack has grown already.
type Worker struct {
	// Shard is a small number that differs between workers that run at the same time, as far as possible; it selects
	// the cache lines on which the worker counts.
	Shard uint32

	engine *Engine
	jobs   chan Runner // one place: the worker takes nothing else before it has served the last

	wake     chan struct{} // one place: a token means "look again"
	poked    atomic.Bool
	at       atomic.Pointer[sleeper] // what it sleeps on in the runtime's poller
	deadline atomic.Int64            // mono; 0 for none

	owner Owner // the worker's own goroutine
}

// Own makes o the one that is asked about interrupts, and returns the previous owner.
func (w *Worker) Own(o Owner) (previous Owner) {
	previous, w.owner = w.owner, o
	return previous
}

// Interrupt ends the worker's sleep, now or the next time it goes to sleep. It may be called from any goroutine, and for
// a worker that has gone on to something else.
func (w *Worker) Interrupt() {
	w.poked.Store(true)
	if s := w.at.Load(); s != nil {
		s.poke()
	}
	w.signal()
}

func (w *Worker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// SetDeadline interrupts the worker at t (of mono.Now), or a little later; 0 means never.
func (w *Worker) SetDeadline(t int64) {
	w.deadline.Store(t)
	if t != 0 && t < w.engine.nextWorker.Load() {
		w.engine.hurry(&w.engine.nextWorker, t)
	}
}

// Sleep waits until Signal, an event or an interrupt. It may return for no reason. The error is the owner's.
func (w *Worker) Sleep() error {
	<-w.wake
	return w.interrupted()
}

// Signal ends a Sleep. It may be called from any goroutine.
func (w *Worker) Signal() { w.signal() }

// Yield lets others run that have something to do, and looks for those itself: the runtime asks the kernel for events only
// when no goroutine is ready, and one who yields and goes on always is. The caller holds no lock.
func (w *Worker) Yield() {
	e := w.engine
	if s := e.sets[e.looks.Add(1)%uint32(len(e.sets))]; s.looking.TryLock() {
		s.look()
		s.looking.Unlock()
	}
	runtime.Gosched()
}

// interrupted takes an interrupt, if there is one, and returns the owner's reason to stop.
func (w *Worker) interrupted() error {
	if !w.poked.Load() {
		return nil
	}
	w.poked.Store(false)
	if w.owner == nil {
		return nil
	}
	return w.owner.Interrupted()
}

// Go runs r on another worker.
func (w *Worker) Go(r Runner) { w.engine.Go(r) }

// Go runs r on a worker, a new one where none is idle. The number of running workers is not bounded here: connections
// and requests are, by whoever admits them.
func (e *Engine) Go(r Runner) {
	e.mu.Lock()
	if n := len(e.idle); n > 0 {
		w := e.idle[n-1]
		e.idle = e.idle[:n-1]
		e.unused = min(e.unused, n-1)
		e.mu.Unlock()
		w.jobs <- r
		return
	}
	w := &Worker{engine: e, jobs: make(chan Runner, 1), wake: make(chan struct{}, 1)}
	w.Shard = e.shards % maxShards
	e.shards++
	e.workers[w] = struct{}{}
	e.mu.Unlock()
	e.wg.Add(1)
	go w.run(r)
}

// maxShards bounds Worker.Shard; internal/stats takes it modulo its own number of shards.
const maxShards = 256

// run serves jobs until there are enough idle workers without this one.
func (w *Worker) run(r Runner) {
	defer w.engine.wg.Done()
	for r != nil {
		r.Run(w)
		w.owner = nil
		w.deadline.Store(0)
		r = w.next()
	}
}

// next returns the worker to the idle ones, newest first so that the stack is still warm, and waits there. It returns
// nil when the goroutine is to end.
func (w *Worker) next() Runner {
	e := w.engine
	e.mu.Lock()
	if e.closed || len(e.idle) >= e.maxIdle*burst {
		delete(e.workers, w)
		e.mu.Unlock()
		return nil
	}
	e.idle = append(e.idle, w)
	over := len(e.idle) > e.maxIdle
	e.mu.Unlock()
	if over {
		e.hurry(&e.nextIdle, mono.Now()+int64(idleTick))
	}
	return <-w.jobs
}
