// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
)

// spooled is a configuration whose requests go by way of a disk.
func spooled(dir string) Config {
	c := Config{Memory: MinMemory, Spool: SpoolConfig{Dir: dir, MaxBytes: 64 << 20, Every: 5 * time.Millisecond}}
	for k := range c.Modes {
		c.Modes[k] = Spool
	}
	c.Modes[event.Attempt] = Off
	return c
}

// endTap closes a tap with little patience.
func endTap(t testing.TB, tap *Tap, patience time.Duration) Account {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = tap.Close(ctx) // what became of the events is in the account
	a := tap.Account()
	a.check(t)
	return a
}

// pace waits until the rings are empty, so that none of them drops what is meant for a disk.
func pace(t testing.TB, tap *Tap) {
	t.Helper()
	for {
		a := tap.Account()
		a.check(t)
		if a.Pending == 0 {
			return
		}
		runtime.Gosched()
	}
}

// paceDisk waits until everything is on the disk.
func paceDisk(t testing.TB, tap *Tap) {
	t.Helper()
	for {
		a := tap.Account()
		a.check(t)
		if s := a.Sinks[0]; s.Pending == s.Spool.Stored {
			return
		}
		runtime.Gosched()
	}
}

// TestSpoolOverRestarts has a bus that is down for three runs: everything comes in the fourth, in order, each event with
// the numbers of its own run, and nothing is lost (F78).
func TestSpoolOverRestarts(t *testing.T) {
	t.Parallel()
	for _, enc := range []Encoding{JSON, ProtoBatch} {
		dir := t.TempDir()
		const each = 3000
		var produced uint64
		for run := range 3 {
			s := newMemSink(Caps{Encoding: enc, InFlight: 2, Keyed: true})
			s.behave = func(_ *Batch, done func(error)) bool { done(errDown); return false }
			tap := newTap(t, spooled(dir), s)
			for n := range each {
				tap.Observe(outcomeOf(fmt.Sprint("cluster-", n%5), run*each+n))
				produced++
				if n%200 == 0 {
					paceDisk(t, tap)
				}
			}
			paceDisk(t, tap)
			a := endTap(t, tap, 100*time.Millisecond).Sinks[0]
			if a.Recovered != produced-each || a.Pending != produced || a.Dropped != [NumReasons]uint64{} || a.Spool.Stored != produced {
				t.Fatalf("run %d: %+v", run, a)
			}
		}
		s := newMemSink(Caps{Encoding: enc, InFlight: 4, Keyed: true})
		tap := newTap(t, spooled(dir), s)
		tap.Observe(outcomeOf("cluster-0", 3*each))
		a := endTap(t, tap, 20*time.Second).Sinks[0]
		if a.Acked != produced+1 || a.Recovered != produced || a.Pending != 0 {
			t.Errorf("%+v", a)
		}
		checkRuns(t, s.events(t), 3*each+1)
	}
}

// checkRuns holds events of several runs: none is missing or there twice, and each run has its own numbers, from 1 on.
func checkRuns(t *testing.T, events []*event.Event, want int) {
	t.Helper()
	if len(events) != want {
		t.Fatalf("%d events came of %d", len(events), want)
	}
	last, order := map[string]uint64{}, map[string]int64{}
	for _, e := range events {
		boot := string(e.BootID)
		if e.StreamSeq != last[boot]+1 || string(e.ID) != fmt.Sprintf("%s-%d", boot, e.Sequence) {
			t.Fatalf("%s: number %d after %d", e.ID, e.StreamSeq, last[boot])
		}
		last[boot] = e.StreamSeq
		key := string(e.PartitionKey)
		if before, there := order[key]; there && e.Numbers[event.ConnectionID] <= before {
			t.Fatalf("%s: event %d after %d", key, e.Numbers[event.ConnectionID], before)
		}
		order[key] = e.Numbers[event.ConnectionID]
	}
}

// TestSpoolTranslates changes the form of a sink between two runs.
func TestSpoolTranslates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	forms := []Encoding{JSON, Proto, JSONLines}
	for i, enc := range forms {
		s := newMemSink(Caps{Encoding: enc, InFlight: 1})
		if i < len(forms)-1 {
			s.behave = func(_ *Batch, done func(error)) bool { done(errDown); return false }
		}
		tap := newTap(t, spooled(dir), s)
		for n := range 100 {
			tap.Observe(outcomeOf("x", i*100+n))
		}
		if i == len(forms)-1 {
			endTap(t, tap, 20*time.Second)
			checkRuns(t, s.events(t), 300)
		} else {
			endTap(t, tap, 50*time.Millisecond)
		}
	}
}

// TestSpoolIsFull fills a spool while the bus is down, and lets it go on: what came and what was told to be lost is
// everything, and the account says the same (F81).
func TestSpoolIsFull(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]bool{"the oldest go": false, "the newest are dropped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			down := true
			s := newMemSink(Caps{Encoding: Proto, InFlight: 2})
			s.behave = func(_ *Batch, done func(error)) bool {
				mu.Lock()
				defer mu.Unlock()
				if down {
					done(errDown)
					return false
				}
				done(nil)
				return true
			}
			cfg := spooled(t.TempDir())
			cfg.Spool.MaxBytes, cfg.Spool.Refuse = spool.MinBytes, refuse
			tap := newTap(t, cfg, s)
			n := 0
			for tap.Account().Sinks[0].Dropped[SpoolFull] < 3000 {
				for range 200 {
					tap.Observe(outcomeOf("x", n))
					n++
				}
				pace(t, tap)
				a := tap.Account()
				if a.Sinks[0].Spool.Bytes > spool.MinBytes {
					t.Fatalf("%+v", a)
				}
			}
			mu.Lock()
			down = false
			mu.Unlock()
			waitFor(t, tap)
			tap.Observe(outcomeOf("x", n)) // what was lost last is told before it
			a := endTap(t, tap, 20*time.Second)
			came, lost, reasons := reconcile(t, s.events(t))
			sa := a.Sinks[0]
			// What stood beside the dropped events and told of others is dropped with them, and told as one with them.
			if came != sa.Acked || came+lost != uint64(n+1) || lost != sa.Dropped[SpoolFull]+sa.Dropped[SinkFull] || sa.Dropped[RingFull] != 0 {
				t.Errorf("of %d came %d, told to be lost %v; %+v", n+1, came, reasons, sa)
			}
			events := s.events(t)
			newest := events[len(events)-1]
			if !refuse && newest.Numbers[event.ConnectionID] != int64(n) {
				t.Errorf("the newest is %s", newest.AppendJSON(nil))
			}
		})
	}
}

// TestDiskIsFull has a real disk without room: events go on to the bus by way of the memory, in order, and the disk is
// used again once it has room (F74).
func TestDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Skip("a small disk needs root:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := newMemSink(Caps{Encoding: JSON, InFlight: 2})
	tap := newTap(t, spooled(dir), s)
	n, failed := 0, false
	observe := func(count int) {
		for range count {
			tap.Observe(outcomeOf("x", n))
			if n++; n%200 == 0 {
				waitFor(t, tap)
			}
		}
		waitFor(t, tap)
		failed = failed || tap.Account().Sinks[0].Spool.Failing
	}
	observe(500)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // what the spool has removed is room again
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, 4096))
		}
		observe(20)
	}
	f.Close()
	if !failed {
		t.Errorf("%+v", tap.Account().Sinks[0])
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for tap.Account().Sinks[0].Spool.Failing && time.Now().Before(deadline) {
		observe(10)
	}
	a := endTap(t, tap, 20*time.Second).Sinks[0]
	if a.Spool.Failing || a.Acked != uint64(n) || a.Spool.Poisoned == 0 {
		t.Errorf("%d events: %+v", n, a)
	}
	if came, lost, _ := reconcile(t, s.events(t)); came != uint64(n) || lost != 0 {
		t.Errorf("%d came and %d were lost of %d", came, lost, n)
	}
}

// TestSpoolHole has a disk that turns bits between two runs: what is missing is told, with the numbers of its run.
func TestSpoolHole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	down := func(_ *Batch, done func(error)) bool { done(errDown); return false }
	for range 2 {
		s := newMemSink(Caps{Encoding: Proto, InFlight: 1})
		s.behave = down
		tap := newTap(t, spooled(dir), s)
		for n := range 400 {
			tap.Observe(outcomeOf("x", n))
		}
		endTap(t, tap, 50*time.Millisecond)
	}
	files, err := filepath.Glob(filepath.Join(dir, "a", "*.seg"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := len(b) / 4; at < len(b)/2; at += 3000 {
		b[at] ^= 4
	}
	for at := len(b) - 1000; at < len(b); at += 100 { // the end of the run as well
		b[at] ^= 4
	}
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newMemSink(Caps{Encoding: Proto, InFlight: 4})
	tap := newTap(t, spooled(dir), s)
	a := endTap(t, tap, 20*time.Second).Sinks[0]
	perBoot := map[string]uint64{}
	var came, lost uint64
	for _, e := range s.events(t) {
		if e.Kind == event.Lost {
			if string(e.Texts[event.Reason]) != "spool_corrupt" {
				t.Errorf("%s", e.AppendJSON(nil))
			}
			lost += e.Uint(event.Count)
			perBoot[string(e.BootID)] += e.Uint(event.Count)
			continue
		}
		came++
		perBoot[string(e.BootID)]++
	}
	if a.Recovered != 800 || a.Acked != came || a.Dropped[SpoolCorrupt] != lost || came+lost != 800 || lost < 5 {
		t.Errorf("%d came, %d were told to be lost; %+v", came, lost, a)
	}
	for boot, n := range perBoot {
		if n != 400 {
			t.Errorf("of the run %s, %d events came or were told to be lost", boot, n)
		}
	}
}

// TestSpoolCannotOpen: a spool that cannot be used is an error at the start, not a surprise later.
func TestSpoolCannotOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := newTap(t, spooled(dir), newMemSink(Caps{InFlight: 1}))
	keys := map[string]string{"wide": strings.Repeat("k", 32), "short": "k", "good": strings.Repeat("ab", 32) + "\n"}
	for name, text := range keys {
		mode := os.FileMode(0o600)
		if name == "wide" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		dir, key, want string
	}{
		"it is in use":                 {dir, "", "in use by another process"},
		"the key may be read by all":   {t.TempDir(), filepath.Join(dir, "wide"), "0640 or less"},
		"the key is too short":         {t.TempDir(), filepath.Join(dir, "short"), "64 hexadecimal digits"},
		"the key is not there":         {t.TempDir(), filepath.Join(dir, "none"), "no such file"},
		"the directory cannot be made": {"/dev/null/x", "", "not a directory"},
	} {
		cfg := spooled(c.dir)
		cfg.Spool.KeyFile = c.key
		cfg.Sinks = []SinkConfig{{Name: "a", TypeURL: "test", Config: newMemSink(Caps{InFlight: 1})}}
		if tap, err := New(cfg, testDeps()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
			if tap != nil {
				endTap(t, tap, time.Second)
			}
		}
	}
	endTap(t, open, time.Second)
	// With a key, nothing of the events can be read on the disk.
	cfg := spooled(t.TempDir())
	cfg.Spool.KeyFile = filepath.Join(dir, "good")
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	s.behave = func(_ *Batch, done func(error)) bool { done(errDown); return false }
	tap := newTap(t, cfg, s)
	tap.Observe(outcomeOf("a-secret-cluster", 1))
	endTap(t, tap, 50*time.Millisecond)
	files, _ := filepath.Glob(filepath.Join(cfg.Spool.Dir, "a", "*.seg"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || bytes.Contains(b, []byte("secret")) {
			t.Errorf("%s can be read: %v", f, err)
		}
	}
	s = newMemSink(Caps{Encoding: JSON, InFlight: 1})
	tap = newTap(t, cfg, s)
	if a := endTap(t, tap, 10*time.Second).Sinks[0]; len(files) == 0 || a.Acked != 1 {
		t.Errorf("%+v", a)
	}
}

// everyMode has each mode at the classes of requests, in turn, on three sinks, and attempts on the last of them.
func everyMode(seed uint64, dir string) Config {
	c := spooled(dir)
	c.Spool.MaxBytes = []int64{spool.MinBytes, 4 << 20, 64 << 20}[seed%3]
	c.Spool.Refuse = seed%2 == 0
	c.Spool.Commit = []spool.Commit{spool.None, spool.Interval, spool.None, spool.Batch, spool.None}[seed]
	c.Policy.OneIn = uint32(seed % 2 * 3)
	return c
}

func modesOf(request Mode, seed uint64) *[event.NumKinds]Mode {
	var m [event.NumKinds]Mode
	m[event.Request] = request
	r := rand.New(rand.NewPCG(seed, uint64(request)))
	for _, k := range []event.Kind{event.Circuit, event.Ejection, event.Health, event.Config, event.Attempt} {
		if m[k] = Mode(r.IntN(int(Spool) + 1)); m[k] == Spool && request != Spool {
			m[k] = DropOldest
		}
	}
	return &m
}

// TestAccountHoldsInEveryMode has concurrent producers, buses that fail in all ways, restarts, and a sink for each mode.
// At every moment the identity holds for every sink; over all runs, a bus has each event that counts as acknowledged, and
// what came and what was told to be lost is what the sink was meant to carry.
func TestAccountHoldsInEveryMode(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			request := []Mode{DropNewest, DropOldest, Sample, Spool, Off}
			buses := make([]*flaky, len(request))
			for i := range buses {
				caps := []Caps{{Encoding: JSON, InFlight: 1}, {Encoding: Proto, InFlight: 3, Keyed: true}, {Encoding: ProtoBatch, InFlight: 2}}
				buses[i] = newFlaky(seed*10+uint64(i), caps[(int(seed)+i)%3])
			}
			var total [5]SinkAccount
			const runs = 3
			for run := range runs {
				cfg := everyMode(seed, dir)
				cfg.Memory = 16 << 20
				deps := testDeps()
				for i, m := range request {
					cfg.Sinks = append(cfg.Sinks, SinkConfig{Name: fmt.Sprint("sink-", i), TypeURL: "test", Config: buses[i], Modes: modesOf(m, seed)})
				}
				tap, err := New(cfg, deps)
				if err != nil {
					t.Fatal(err)
				}
				produce(t, tap)
				patience := time.Duration(seed%3) * 30 * time.Millisecond
				if run == runs-1 {
					for _, b := range buses {
						b.calmDown()
					}
					waitFor(t, tap)
					patience = 30 * time.Second
				}
				a := endTap(t, tap, patience)
				for i, s := range a.Sinks {
					buses[i].late.Wait()
					if s.Pending != s.Spool.Stored || request[i] != Spool && s.Pending != 0 {
						t.Errorf("%+v", s)
					}
					total[i].Acked += s.Acked
					total[i].Produced += s.Produced
					for r, n := range s.Dropped {
						total[i].Dropped[r] += n
					}
				}
			}
			for i, s := range total {
				came, told := buses[i].count(t)
				var meant uint64 // to be told
				for r, n := range s.Dropped {
					if Reason(r) < Sampled && Reason(r) != Shutdown {
						meant += n
					}
				}
				// An event can be acknowledged in two runs, and one that came can count as dropped at the end of a run.
				if came > s.Acked+s.Dropped[Shutdown] || came+s.Dropped[Shutdown]+uint64(buses[i].refused) < s.Produced-meant-s.Dropped[Sampled]-s.Dropped[Unselected] {
					t.Errorf("sink %d: came %d, told %d, refused %d; %+v", i, came, told, buses[i].refused, s)
				}
				if request[i] == Spool && seed%2 == 1 && s.Dropped[Shutdown] > 0 {
					t.Errorf("sink %d: a spool dropped at the end of a run: %+v", i, s)
				}
			}
		})
	}
}
