// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
)

// ms is a millisecond of the clock that tests hand in.
const ms = int64(time.Millisecond)

// together runs f on n goroutines at once and waits for them.
func together(n int, f func(g int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			<-start
			f(g)
		})
	}
	close(start)
	wg.Wait()
}

// noAllocs fails the test if f allocates. The test must not be parallel.
func noAllocs(t *testing.T, f func()) {
	t.Helper()
	if invariant.On {
		t.Skip("allocations are counted in release builds only")
	}
	if n := testing.AllocsPerRun(1000, f); n != 0 {
		t.Errorf("%v allocations per run, want 0", n)
	}
}
