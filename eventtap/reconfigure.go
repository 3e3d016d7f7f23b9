// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Reconfigure changes what the tap does while it runs, and loses no event by that. What a sink has queued stays with it
// when its bus or its modes change: batches that are on their way to the old bus and not acknowledged go to the new one. A
// sink that is new gets the events from then on, also those that are still in the rings; one that is not there any more
// sends what it has until ctx ends, and what it could not send counts as Shutdown, or stays in its spool.
//
// On an error nothing has changed, unless only a sink that was removed did not deliver everything. What cannot be changed
// without a loss is refused: the memory, the source, and of a sink of the same name its form, its batches in flight, and
// whether and where it has a spool.
func (t *Tap) Reconfigure(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.ended {
		return errors.New("eventtap: the tap is closed")
	}
	c, err := t.plan(&cfg)
	if err != nil {
		return errors.Join(err, c.giveUp())
	}
	t.apply(&cfg, c)
	for _, r := range c.added {
		r.start()
	}
	for r, s := range c.swapped {
		r.replace(s)
	}
	var errs []error
	for _, r := range c.removed {
		r.end()
		errs = append(errs, r.close(ctx))
	}
	return errors.Join(errs...)
}

// change is what a new configuration means for the sinks.
type change struct {
	runners []*runner // all of them, in order
	modes   map[*runner][event.NumKinds]Mode
	added   []*runner
	swapped map[*runner]Sink
	removed []*runner
}

// giveUp gives back what plan has opened.
func (c *change) giveUp() error {
	var errs []error
	for _, r := range c.added {
		if r.sp != nil {
			errs = append(errs, r.closeSpool())
		}
	}
	return errors.Join(errs...)
}

// plan makes what is new, and refuses what cannot be changed.
func (t *Tap) plan(cfg *Config) (*change, error) {
	old := &t.live.Load().cfg
	c := &change{modes: map[*runner][event.NumKinds]Mode{}, swapped: map[*runner]Sink{}}
	if cfg.Memory != old.Memory || cfg.Source != old.Source {
		return c, errors.New("eventtap: the memory and the source cannot be changed while the tap runs")
	}
	running := slices.Clone(t.sinks())
	for i := range cfg.Sinks {
		s := &cfg.Sinks[i]
		at := slices.IndexFunc(running, func(r *runner) bool { return r.name == s.Name })
		if at < 0 {
			if err := t.addTo(c, cfg, s); err != nil {
				return c, err
			}
			continue
		}
		r := running[at]
		running = slices.Delete(running, at, at+1)
		before := slices.IndexFunc(old.Sinks, func(o SinkConfig) bool { return o.Name == s.Name })
		if before < 0 {
			return c, fmt.Errorf("eventtap: %q is the name of a sink of this process", s.Name)
		}
		if err := t.keepIn(c, cfg, r, &old.Sinks[before], s); err != nil {
			return c, err
		}
	}
	for _, r := range running {
		if slices.ContainsFunc(t.deps.Local, func(l LocalSink) bool { return l.Name == r.name }) {
			c.runners, c.modes[r] = append(c.runners, r), memoryModes(settle(cfg.Modes))
		} else {
			c.removed = append(c.removed, r)
		}
	}
	return c, nil
}

// addTo makes a sink that was not there.
func (t *Tap) addTo(c *change, cfg *Config, s *SinkConfig) error {
	if slices.ContainsFunc(c.runners, func(r *runner) bool { return r.name == s.Name }) {
		return fmt.Errorf("eventtap: two sinks have the name %q", s.Name)
	}
	sink, err := t.build(s)
	if err != nil {
		return err
	}
	r, err := newRunner(s.Name, sink, cfg.sinkBytes(), cfg.modes(s), t.batcher.boot, t.batcher.source, t.deps)
	if err != nil {
		return err
	}
	if err := t.openSpool(cfg, r); err != nil {
		return err
	}
	c.runners, c.added = append(c.runners, r), append(c.added, r)
	c.modes[r] = r.modes
	return nil
}

// keepIn keeps a sink, with another bus behind it where its configuration says so.
func (t *Tap) keepIn(c *change, cfg *Config, r *runner, before, now *SinkConfig) error {
	modes := cfg.modes(now)
	if spooled := slices.Contains(modes[:], Spool); spooled != (r.sp != nil) || spooled && cfg.Spool != t.live.Load().cfg.Spool {
		return fmt.Errorf("eventtap: sink %q: whether it has a spool, and which, cannot be changed while the tap runs; "+
			"a sink of another name can have it", now.Name)
	}
	c.runners, c.modes[r] = append(c.runners, r), modes
	if before.TypeURL == now.TypeURL && reflect.DeepEqual(before.Config, now.Config) {
		return nil
	}
	sink, err := t.build(now)
	if err != nil {
		return err
	}
	if caps := sink.Caps(); caps != r.enc.caps {
		return fmt.Errorf("eventtap: sink %q: how it wants its events (%+v, and %+v before) cannot be changed while the tap runs; "+
			"a sink of another name can have it", now.Name, caps, r.enc.caps)
	}
	c.swapped[r] = sink
	return nil
}

// apply brings a change into force, between two slices of events.
func (t *Tap) apply(cfg *Config, c *change) {
	t.cut.Lock()
	defer t.cut.Unlock()
	now := t.rung()
	for _, r := range c.added {
		r.before = now
	}
	t.runners = c.runners
	for _, r := range t.runners {
		r.modes = c.modes[r]
		r.sample = slices.Contains(r.modes[:], Sample)
		if !slices.ContainsFunc(t.deps.Local, func(l LocalSink) bool { return l.Name == r.name }) {
			r.q.pool.resize(cfg.sinkBytes() - r.fixed)
		}
	}
	t.forms()
	t.live.Store(newSettings(*cfg, len(t.deps.Local) > 0))
}

// rung returns what the rings have counted and given to the sinks. cut must be held.
func (t *Tap) rung() Account {
	var a Account
	for _, r := range t.allRings() {
		r.mu.Lock()
		a.Produced += r.produced - r.pending
		for i, n := range r.dropped {
			a.Dropped[i] += n
		}
		r.mu.Unlock()
	}
	return a
}

// replace gives the runner another sink. It lets go of the old one at once, and sends to the new one what that has not
// acknowledged.
func (r *runner) replace(s Sink) {
	select {
	case <-r.swap: // it never got to that one
	default:
	}
	r.swap <- s
	r.q.mu.Lock()
	stop := r.stop
	r.q.mu.Unlock()
	if stop != nil {
		stop()
	}
}
