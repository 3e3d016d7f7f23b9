// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/mesh"
)

// Killable is what KillUnderLoad needs of a bus.
type Killable struct {
	Sink eventtap.Sink
	// Kill ends the bus, Revive brings it back with what it had acknowledged.
	Kill, Revive func(t *testing.T)
	// Events returns what the bus holds.
	Events func(t *testing.T) [][]byte
	// Repeats says that an event may be there twice: it is not known what became of those that were in flight.
	Repeats bool
	// Rounds is how often the bus is killed; Missed is how many events must be dropped each time before it is revived.
	Rounds int
	Missed uint64
}

// KillUnderLoad ends a bus again and again while events are produced faster than the memory holds them. At every moment
// the account adds up; at the end the bus holds exactly what was acknowledged, and the gaps that its reader sees are
// exactly what was dropped.
func KillUnderLoad(t *testing.T, k Killable) {
	tap := NewTap(t, eventtap.MinMemory, k.Sink)
	load := StartLoad(tap)
	for range k.Rounds {
		acked := Check(t, tap).Acked
		Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Acked > acked+2000 })
		k.Kill(t)
		dropped := Check(t, tap).Dropped[eventtap.SinkFull]
		Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Dropped[eventtap.SinkFull] > dropped+k.Missed })
		k.Revive(t)
	}
	acked := Check(t, tap).Acked
	Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Acked > acked })
	produced := load.End()
	a := closeTap(t, tap)
	f := Read(t, k.Events(t), !k.Repeats)
	var dropped uint64
	for _, n := range a.Dropped {
		dropped += n
	}
	t.Logf("produced %d, acked %d, dropped %v, retries %d; the reader sees %d, %d again, and %d in gaps",
		produced, a.Acked, a.Dropped, a.Retries, f.Came, f.Repeats, f.Lost)
	if a.Produced != produced || a.Pending != 0 || f.Came != a.Acked || f.Lost != dropped || f.Came+f.Lost != produced {
		t.Errorf("account %+v, the bus holds %d and tells of %v lost", a, f.Came, f.Reasons)
	}
}

// Load is producers that do not stop, of about 150,000 events a second in all.
type Load struct {
	stop chan struct{}
	done sync.WaitGroup
	n    [3]uint64
}

// StartLoad starts the producers.
func StartLoad(tap *eventtap.Tap) *Load {
	l := &Load{stop: make(chan struct{})}
	for p := range l.n {
		l.done.Go(func() {
			rate := time.NewTicker(time.Millisecond)
			defer rate.Stop()
			for {
				select {
				case <-l.stop:
					return
				case <-rate.C:
				}
				for range 50 {
					tap.Observe(Outcome(fmt.Sprint("svc-", l.n[p]%11), int(l.n[p])))
					l.n[p]++
				}
				if l.n[p]%1000 == 0 {
					tap.Notify(&mesh.Notice{Kind: mesh.NoticeCircuit, Cluster: "svc-1", Circuit: &mesh.CircuitNotice{}})
					l.n[p]++
				}
			}
		})
	}
	return l
}

// End stops the producers and returns how many events they produced.
func (l *Load) End() (n uint64) {
	close(l.stop)
	l.done.Wait()
	for _, v := range l.n {
		n += v
	}
	return n
}
