// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type runner func(w *Worker)

func (f runner) Run(w *Worker) { f(w) }

// waiting returns how many workers wait for work.
func (e *Engine) waiting() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.idle)
}

// TestWorkersAfterABurst: the workers of a burst wait for the next for a moment, and are not made anew for it; when none
// comes, as many are left as may be.
func TestWorkersAfterABurst(t *testing.T) {
	t.Parallel()
	const kept, many = 4, 4 * burst
	e, err := NewEngine(Options{Sets: 1, IdleWorkers: kept})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	seen := map[*Worker]bool{}
	var mu sync.Mutex
	for range 3 {
		var begun, done sync.WaitGroup
		begun.Add(many)
		release := make(chan struct{})
		for range many {
			done.Add(1)
			e.Go(runner(func(w *Worker) {
				mu.Lock()
				seen[w] = true
				mu.Unlock()
				begun.Done()
				<-release
				done.Done()
			}))
		}
		begun.Wait()
		close(release)
		done.Wait()
		for end := time.Now().Add(20 * time.Second); e.waiting() < many && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
	}
	if len(seen) > 2*many {
		t.Errorf("%d workers served three bursts of %d", len(seen), many)
	}
	for end := time.Now().Add(20 * time.Second); e.waiting() > kept; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d workers wait still", e.waiting())
		}
	}
}

// TestYieldLooks: workers who yield look for events beside the sets' own goroutines; no edge is lost between them.
func TestYieldLooks(t *testing.T) {
	t.Parallel()
	e := engine(t)
	c := dial(t, serve(t, e, newEcho))
	defer c.Close()
	var looking sync.WaitGroup
	var done atomic.Bool
	for range 2 {
		looking.Add(1)
		e.Go(runner(func(w *Worker) {
			defer looking.Done()
			for !done.Load() {
				w.Yield()
			}
		}))
	}
	var b [1]byte
	for range 2000 {
		if _, err := c.Write(b[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	looking.Wait()
}
