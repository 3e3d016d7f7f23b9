// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
)

// with returns the configuration of a tap with other sinks.
func with(tap *Tap, sinks ...SinkConfig) Config {
	c := tap.live.Load().cfg
	c.Sinks = sinks
	return c
}

func sinkOf(name string, s Sink) SinkConfig {
	return SinkConfig{Name: name, TypeURL: "test", Config: s}
}

// TestReconfigureLosesNothing changes the bus behind a sink over and over while events are produced and buses are down:
// all buses together have every event, and the sink's stream has no gap.
func TestReconfigureLosesNothing(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"memory", "spool"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			caps := Caps{Encoding: Proto, InFlight: 3, Keyed: true}
			cfg := Config{Memory: DefaultMemory}
			if way == "spool" {
				cfg = spooled(t.TempDir())
			}
			first := newMemSink(caps)
			tap := newTap(t, cfg, first)
			buses := []*memSink{first}
			var produced uint64
			for round := range 12 {
				for n := range 200 {
					tap.Observe(outcomeOf(fmt.Sprint("cluster-", n%3), n))
					produced++
				}
				if way == "spool" {
					paceDisk(t, tap)
				}
				next := newMemSink(caps)
				switch round % 4 {
				case 0: // it takes nothing
					next.behave = func(_ *Batch, done func(error)) bool { done(errDown); return false }
				case 1: // it does not open
					next.open = func() error { return errDown }
				case 2: // it takes everything and says so later, or when it is closed
					next.behave = func(_ *Batch, done func(error)) bool {
						time.AfterFunc(5*time.Millisecond, func() { done(nil) })
						return true
					}
				}
				buses = append(buses, next)
				if err := tap.Reconfigure(t.Context(), with(tap, sinkOf("a", next))); err != nil {
					t.Fatal(err)
				}
				tap.Account().check(t)
			}
			a := endTap(t, tap, 20*time.Second).Sinks[0]
			if a.Acked != produced || a.Produced != produced {
				t.Errorf("%d events: %+v", produced, a)
			}
			seen := map[uint64]bool{}
			for _, b := range buses {
				for _, e := range b.events(t) {
					if e.Kind == event.Lost {
						t.Errorf("%s", e.AppendJSON(nil))
					}
					seen[e.StreamSeq] = true
				}
			}
			for n := uint64(1); n <= produced; n++ {
				if !seen[n] {
					t.Fatalf("number %d of %d came to no bus", n, produced)
				}
			}
		})
	}
}

// TestReconfigureSinks adds a sink and takes one away: the new one has everything from then on, the old one what was
// produced before, and each has its own account.
func TestReconfigureSinks(t *testing.T) {
	t.Parallel()
	a, b := newMemSink(Caps{Encoding: JSON, InFlight: 1}), newMemSink(Caps{Encoding: Proto, InFlight: 1})
	tap := newTap(t, Config{}, a)
	observe := func(n int) {
		for i := range n {
			tap.Observe(outcomeOf("x", i))
		}
		pace(t, tap)
	}
	observe(100)
	cfg := with(tap, sinkOf("a", a), sinkOf("b", b))
	if err := tap.Reconfigure(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	observe(50)
	waitFor(t, tap)
	if acc := tap.Account(); len(acc.Sinks) != 2 || acc.Sinks[0].Acked != 150 || acc.Sinks[1].Produced != 50 || acc.Sinks[1].Acked != 50 {
		t.Errorf("%+v", acc)
	}
	if err := tap.Reconfigure(t.Context(), with(tap, sinkOf("b", b))); err != nil {
		t.Fatal(err)
	}
	observe(25)
	acc := endTap(t, tap, 5*time.Second)
	if len(a.ids) != 150 || len(b.ids) != 75 || a.closed != 1 {
		t.Errorf("the first has %d events and was closed %d times, the second has %d", len(a.ids), a.closed, len(b.ids))
	}
	if acc.Produced != 175 || len(acc.Sinks) != 1 || acc.Sinks[0].Produced != 75 || acc.Sinks[0].Acked != 75 {
		t.Errorf("%+v", acc)
	}
	if came, lost, _ := reconcile(t, b.events(t)); came != 75 || lost != 0 {
		t.Errorf("%d came, %d lost", came, lost)
	}
	if err := tap.Reconfigure(t.Context(), cfg); err == nil {
		t.Error("a closed tap was changed")
	}
}

// TestReconfigureModes changes what happens to classes, and which requests there are events of.
func TestReconfigureModes(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: JSON, InFlight: 1})
	tap := newTap(t, Config{}, s)
	try := func(change func(*Config), want int) {
		t.Helper()
		cfg := with(tap, sinkOf("a", s))
		change(&cfg)
		if err := tap.Reconfigure(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		before := len(s.events(t))
		o := outcomeOf("x", 1)
		tap.Observe(o)
		waitFor(t, tap)
		if got := len(s.events(t)) - before; got != want {
			t.Errorf("%d events came, want %d", got, want)
		}
	}
	try(func(c *Config) { c.Modes[event.Request] = Off }, 0)
	try(func(c *Config) { c.Modes[event.Request] = DropOldest }, 1)
	try(func(c *Config) { c.Modes[event.Attempt] = DropNewest }, 2)
	try(func(c *Config) { c.Modes[event.Attempt] = Default; c.Policy.Off = true }, 0)
	try(func(c *Config) { c.Policy.Off = false }, 1)
	// Nothing of these is possible, and nothing changes.
	other := newMemSink(Caps{Encoding: Proto, InFlight: 1})
	for want, change := range map[string]func(*Config){
		"memory":            func(c *Config) { c.Memory++ },
		"source":            func(c *Config) { c.Source.Cluster = "other" },
		"how it wants":      func(c *Config) { c.Sinks[0].Config = other },
		"whether it has":    func(c *Config) { c.Modes[event.Request], c.Spool.Dir = Spool, t.TempDir() },
		"there is no spool": func(c *Config) { c.Modes[event.Request] = Spool },
		"no sink of type":   func(c *Config) { c.Sinks = append(c.Sinks, SinkConfig{Name: "b", TypeURL: "none"}) },
		"two sinks":         func(c *Config) { c.Sinks = append(c.Sinks, sinkOf("b", other), sinkOf("b", other)) },
	} {
		cfg := with(tap, sinkOf("a", s))
		change(&cfg)
		if err := tap.Reconfigure(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	try(func(*Config) {}, 1)
}

// TestReconfigureUnderLoad changes everything that can be changed while several goroutines produce.
func TestReconfigureUnderLoad(t *testing.T) {
	t.Parallel()
	stay, come := newMemSink(Caps{Encoding: JSON, InFlight: 2}), newMemSink(Caps{Encoding: ProtoBatch, InFlight: 2})
	tap := newTap(t, Config{}, stay)
	stop := make(chan struct{})
	var done sync.WaitGroup
	for p := range 3 {
		done.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					tap.Observe(outcomeOf(fmt.Sprint("cluster-", n%5), p))
					tap.Account().check(t)
				}
			}
		})
	}
	for round := range 60 {
		cfg := with(tap, sinkOf("a", stay))
		if round%2 == 0 {
			cfg.Sinks = append(cfg.Sinks, sinkOf(fmt.Sprint("b", round), come))
		}
		cfg.Modes[event.Attempt] = Mode(round % 3)
		cfg.Key.By = KeyBy(round % 5)
		cfg.Policy.OneIn = uint32(round % 3)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := tap.Reconfigure(ctx, cfg); err != nil {
			t.Error(err)
		}
		cancel()
	}
	close(stop)
	done.Wait()
	a := endTap(t, tap, 20*time.Second)
	came, lost, _ := reconcile(t, stay.events(t))
	if s := a.Sinks[0]; came != s.Acked || came+lost+s.Dropped[Unselected] != a.Produced {
		t.Errorf("%d came and %d were told to be lost: %+v", came, lost, a)
	}
}
