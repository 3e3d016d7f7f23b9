// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestKilledUnderLoad ends the server again and again while events are produced faster than the memory holds them. At
// every moment the account adds up; at the end the stream holds exactly what was acknowledged, each event once, and the
// gaps that its reader sees are exactly what was dropped.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(t *testing.T) killable
		batch bool
	}{
		{"shut down", func(t *testing.T) killable { return startBus(t, nil) }, false},
		{"killed", func(t *testing.T) killable { return startProcess(t, server.RANDOM_PORT, t.TempDir()) }, false},
		{"killed, with batches", func(t *testing.T) killable { return startProcess(t, server.RANDOM_PORT, t.TempDir()) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := c.start(t)
			cfg := configAt(b.url())
			cfg.Batch, cfg.Proto, cfg.Create.Duplicates = c.batch, c.batch, 10*time.Minute
			killUnderLoad(t, b, cfg)
		})
	}
}

// killable is a server that can be ended and come back on the same port with the same store on disk.
type killable interface {
	url() string
	stop()
	start(t *testing.T)
}

func killUnderLoad(t *testing.T, b killable, cfg Config) {
	tap := sink.NewTap(t, eventtap.MinMemory, newSink(cfg))
	load := startLoad(tap)
	for range 4 {
		acked := sink.Check(t, tap).Acked
		until(t, tap, func(a eventtap.SinkAccount) bool { return a.Acked > acked+2000 })
		b.stop()
		dropped := sink.Check(t, tap).Dropped[eventtap.SinkFull]
		until(t, tap, func(a eventtap.SinkAccount) bool { return a.Dropped[eventtap.SinkFull] > dropped+2000 })
		b.start(t)
	}
	produced := load.end()
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := sink.Check(t, tap)
	f := sink.Read(t, split(t, cfg, messages(t, b.url(), stream)), true)
	var dropped uint64
	for _, n := range a.Dropped {
		dropped += n
	}
	t.Logf("produced %d, acked %d, dropped %v, retries %d; the reader sees %d and %d in gaps", produced, a.Acked, a.Dropped, a.Retries, f.Came, f.Lost)
	if a.Produced != produced || a.Pending != 0 || f.Came != a.Acked || f.Lost != dropped || f.Came+f.Lost != produced {
		t.Errorf("account %+v, the stream holds %d and tells of %v lost", a, f.Came, f.Reasons)
	}
}

// load is producers that do not stop, of about 150,000 events a second in all.
type load struct {
	stop chan struct{}
	done sync.WaitGroup
	n    [3]uint64
}

func startLoad(tap *eventtap.Tap) *load {
	l := &load{stop: make(chan struct{})}
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
					tap.Observe(sink.Outcome(fmt.Sprint("svc-", l.n[p]%11), int(l.n[p])))
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

// end stops the producers and returns how many events they produced.
func (l *load) end() (n uint64) {
	close(l.stop)
	l.done.Wait()
	for _, v := range l.n {
		n += v
	}
	return n
}

// until holds the account until it is as it should be.
func until(t *testing.T, tap *eventtap.Tap, ok func(eventtap.SinkAccount) bool) {
	t.Helper()
	end := time.After(60 * time.Second)
	for !ok(sink.Check(t, tap)) {
		select {
		case <-end:
			t.Fatalf("still %+v", sink.Check(t, tap))
		case <-time.After(time.Millisecond):
		}
	}
}
