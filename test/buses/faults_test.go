// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// long returns how long a fault lasts: in make soak, where SOAK is set, and otherwise.
func long(soak, short time.Duration) time.Duration {
	if os.Getenv("SOAK") != "" {
		return soak
	}
	return short
}

// broker is a real one that can fail in every way. It stands behind a relay.
type broker struct {
	*server
	relay *relay
	// sink makes a sink that writes to a place of this name, and events reads all that is there, without the relay's faults.
	sink   func(t *testing.T, name string) eventtap.Sink
	events func(t *testing.T, name string) [][]byte
	// eventBytes are what an event takes on the wire, about.
	eventBytes int
	// dedupe says that the broker drops what is sent again.
	dedupe bool
}

// TestFaults has every broker that acknowledges fail in the same ways, and holds every event against the counters: over a
// disk nothing is lost, without one exactly what is counted (F78, F79, F80, F84, F85). SOAK=1 has the faults last as long as
// docs/reliability.md says.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(t *testing.T) *broker
	}{{"NATS", natsBehindRelay}, {"Kafka", kafkaBehindRelay}, {"RabbitMQ", rabbitBehindRelay}} {
		t.Run(c.name, func(t *testing.T) {
			b := c.start(t)
			t.Run("killed, spool", func(t *testing.T) { testKilled(t, b, true) })
			t.Run("killed, drop", func(t *testing.T) { testKilled(t, b, false) })
			t.Run("flaps", func(t *testing.T) { testFlaps(t, b) })
			t.Run("partition", func(t *testing.T) {
				testAway(t, b, func() { b.relay.partition() }, b.relay.heal)
			})
			t.Run("stopped", func(t *testing.T) {
				testAway(t, b, func() { b.pause(t) }, func() { b.resume(t) })
			})
			t.Run("slow", func(t *testing.T) { testSlow(t, b) })
		})
	}
}

// Events a second: L1 of the plan for faults, and a rate that fills the memory soon.
const (
	usual = 2000
	quick = 20000
)

// faulty is one tap over a broker, with producers.
type faulty struct {
	t    *testing.T
	b    *broker
	name string
	tap  *eventtap.Tap
	stop chan struct{}
	made chan uint64
}

// unusual is what not every broker allows in a name.
var unusual = regexp.MustCompile(`[^A-Za-z0-9]+`)

func begin(t *testing.T, b *broker, cfg eventtap.Config, rate int) *faulty {
	t.Helper()
	f := &faulty{t: t, b: b, name: unusual.ReplaceAllString(t.Name(), "-"), stop: make(chan struct{}), made: make(chan uint64)}
	s := b.sink(t, f.name)
	cfg.Sinks = []eventtap.SinkConfig{{Name: "bus", TypeURL: "test"}}
	tap, err := eventtap.New(cfg, eventtap.Deps{
		Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Node: mesh.Node{ID: "proxy"}, Random: rand.Reader,
		Builders: map[string]eventtap.SinkBuilder{"test": func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return s, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.tap = tap
	go f.produce(rate)
	return f
}

// produce makes so many events a second, of eleven keys.
func (f *faulty) produce(rate int) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	n, start := 0, time.Now()
	for {
		select {
		case <-f.stop:
			f.made <- uint64(n)
			return
		case <-pace.C:
		}
		for due := int(time.Since(start).Seconds() * float64(rate)); n < due; n++ {
			f.tap.Observe(sink.Outcome(fmt.Sprint("svc-", n%11), n))
		}
	}
}

// until waits for the account to be right.
func (f *faulty) until(right func(a eventtap.SinkAccount) bool) eventtap.SinkAccount {
	f.t.Helper()
	limit := time.After(5 * time.Minute)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for {
		a := sink.Check(f.t, f.tap)
		if right(a) {
			return a
		}
		select {
		case <-pace.C:
		case <-limit:
			f.t.Fatalf("still %+v", a)
		}
	}
}

// working waits until events arrive.
func (f *faulty) working() eventtap.SinkAccount {
	f.t.Helper()
	acked := sink.Check(f.t, f.tap).Acked
	return f.until(func(a eventtap.SinkAccount) bool { return a.Acked > acked+200 })
}

// caughtUp waits until everything that was produced before is settled, and returns how long that took.
func (f *faulty) caughtUp() time.Duration {
	f.t.Helper()
	start, a := time.Now(), sink.Check(f.t, f.tap)
	want := a.Produced
	f.until(func(a eventtap.SinkAccount) bool { return a.Produced-a.Pending >= want })
	return time.Since(start)
}

// end stops the producers and holds what the broker has against the counters.
func (f *faulty) end(drops bool) (eventtap.SinkAccount, sink.Found) {
	f.t.Helper()
	close(f.stop)
	made := <-f.made
	f.until(func(a eventtap.SinkAccount) bool { return a.Pending == 0 })
	f.tap.Observe(sink.Outcome("svc-0", 0)) // before it, what was lost last is told
	made++
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	if err := f.tap.Close(ctx); err != nil {
		f.t.Fatal(err)
	}
	a := sink.Check(f.t, f.tap)
	found := sink.Read(f.t, f.b.events(f.t, f.name), f.b.dedupe)
	var dropped uint64
	for _, n := range a.Dropped {
		dropped += n
	}
	f.t.Logf("figure: produced %d, acked %d, dropped %d, retries %d; the reader has %d, %d again, %d in gaps",
		made, a.Acked, dropped, a.Retries, found.Came, found.Repeats, found.Lost)
	if a.Produced != made || found.Came != a.Acked || found.Lost != dropped || made != found.Came+found.Lost || (dropped > 0) != drops {
		f.t.Errorf("of %d: account %+v, the broker has %+v", made, a, found)
	}
	return a, found
}

// inMemory has the least memory, so that it is full soon.
func inMemory() eventtap.Config { return eventtap.Config{Memory: eventtap.MinMemory} }

// onDisk has memory for what comes while a slow disk is written to: events that find none there are lost before the disk.
func onDisk(t *testing.T) eventtap.Config {
	cfg := eventtap.Config{Memory: 64 << 20}
	cfg.Modes[event.Request] = eventtap.Spool
	cfg.Spool = eventtap.SpoolConfig{Dir: t.TempDir(), MaxBytes: 512 << 20, Every: eventtap.DefaultCommit, Commit: spool.Interval}
	return cfg
}

// testKilled ends the broker with SIGKILL for a minute (F78, F79).
func testKilled(t *testing.T, b *broker, spooled bool) {
	cfg, rate := inMemory(), usual
	if spooled {
		cfg = onDisk(t)
	} else if long(1, 0) == 0 {
		rate = quick
	}
	f := begin(t, b, cfg, rate)
	before := f.working()
	b.kill(t)
	time.Sleep(long(time.Minute, time.Second)) // the fault lasts so long
	away := f.until(func(a eventtap.SinkAccount) bool { return spooled || a.Dropped[eventtap.SinkFull] > 1000 })
	b.revive(t)
	took := f.caughtUp()
	t.Logf("figure: %d events while the broker was away; caught up %v after it was back", away.Produced-before.Produced, took.Round(time.Millisecond))
	f.working()
	f.end(!spooled)
}

// testFlaps cuts the network every 500 ms for as long again (F84).
func testFlaps(t *testing.T, b *broker) {
	f := begin(t, b, onDisk(t), usual)
	f.working()
	flaps := 0
	for end := time.Now().Add(long(time.Minute, 3*time.Second)); time.Now().Before(end); flaps++ {
		b.relay.refuse()
		time.Sleep(500 * time.Millisecond)
		b.relay.heal()
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("figure: %d flaps", flaps)
	f.caughtUp()
	f.end(false)
}

// testAway has the broker silent, without an end of its connections, and back (F84).
func testAway(t *testing.T, b *broker, away, back func()) {
	f := begin(t, b, onDisk(t), usual)
	f.working()
	away()
	t.Cleanup(back)
	time.Sleep(long(30*time.Second, time.Second))
	back()
	took := f.caughtUp()
	t.Logf("figure: caught up after %v", took.Round(time.Millisecond))
	f.working()
	f.end(false)
}

// testSlow has a network that carries a tenth of what is produced (F80).
func testSlow(t *testing.T, b *broker) {
	rate := usual
	if long(1, 0) == 0 {
		rate = quick
	}
	before := heap()
	f := begin(t, b, eventtap.Config{Memory: eventtap.DefaultMemory}, rate)
	f.working()
	b.relay.slow(rate * b.eventBytes / 10)
	var most int64
	for end := time.Now().Add(long(10*time.Minute, 2*time.Second)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		sink.Check(t, f.tap)
		most = max(most, heap()-before)
	}
	slow := f.until(func(a eventtap.SinkAccount) bool { return a.Dropped[eventtap.SinkFull] > 1000 })
	b.relay.heal()
	t.Logf("figure: the heap grew by at most %.1f MiB; %d of %d were acknowledged while it was slow", float64(most)/(1<<20), slow.Acked, slow.Produced)
	if most > 32<<20 && long(1, 0) == 1 { // the short form shares its heap with other tests
		t.Errorf("the heap grew by %d MiB", most>>20)
	}
	f.caughtUp()
	f.end(true)
}

// heap is what is in use, garbage left out.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
