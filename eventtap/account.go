// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"time"

	"github.com/meshtap/meshtap/internal/stats"
)

// Account says where all events are. It is read under one cut: no event moves while it is taken, so for each sink
//
//	Produced = Acked + Pending + the sum of Dropped
//
// holds exactly, and Pending is counted, not computed.
type Account struct {
	// Produced counts the outcomes and notices for which an event was to be made.
	Produced uint64
	// Pending are those in the rings, that have not reached any sink's queue.
	Pending uint64
	// Dropped counts those that no sink will see.
	Dropped [NumReasons]uint64
	Sinks   []SinkAccount
}

// SinkAccount is an Account from the point of view of one sink. Pending and Dropped contain those of the rings.
type SinkAccount struct {
	Name     string
	Produced uint64
	// Acked are the events that the bus has taken. An event whose acknowledgement was lost is sent again and counts once.
	Acked   uint64
	Pending uint64
	Dropped [NumReasons]uint64
	// Retries counts the batches that were sent again.
	Retries uint64
}

// Account returns the account of this moment. It stops Observe and Notify for as long as it takes to read it.
func (t *Tap) Account() Account {
	t.cut.Lock()
	defer t.cut.Unlock()
	rings := make([]*ring, 0, len(t.rings)+1)
	for i := range t.rings {
		rings = append(rings, &t.rings[i])
	}
	rings = append(rings, &t.notices)
	for _, r := range rings {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	for _, s := range t.runners {
		s.q.mu.Lock()
		defer s.q.mu.Unlock()
	}
	var a Account
	for _, r := range rings {
		a.Produced += r.produced
		a.Pending += r.pending
		for i, n := range r.dropped {
			a.Dropped[i] += n
		}
	}
	for _, s := range t.runners {
		sa := SinkAccount{Name: s.name, Produced: a.Produced, Acked: s.acked, Pending: a.Pending + s.q.pending,
			Dropped: a.Dropped, Retries: s.retries.Load()}
		for i, n := range s.dropped {
			sa.Dropped[i] += n
		}
		a.Sinks = append(a.Sinks, sa)
	}
	return a
}

const (
	publishEvery = 100 * time.Millisecond
	forever      = 24 * time.Hour
)

// What the tap counts as a whole.
const (
	tapProduced = iota
	tapPending
	tapDropped // one for each reason
)

// What it counts for each sink.
const (
	sinkAcked = iota
	sinkPending
	sinkRetries
	sinkDropped // one for each reason
)

var tapSchema = &stats.Schema{Name: "meshtap.tap", Own: true, Defs: append([]stats.Def{
	tapProduced: {Name: "produced", Prom: "produced_total"},
	tapPending:  {Name: "pending", Kind: stats.Gauge},
}, droppedDefs()...)}

var sinkSchema = &stats.Schema{Name: "meshtap.tap.sink", Own: true, Defs: append([]stats.Def{
	sinkAcked:   {Name: "acked", Prom: "acked_total"},
	sinkPending: {Name: "pending", Kind: stats.Gauge},
	sinkRetries: {Name: "retries", Prom: "retries_total"},
}, droppedDefs()...)}

func droppedDefs() (defs []stats.Def) {
	for r := Reason(0); r < NumReasons; r++ {
		tag := stats.Tag{Name: "meshtap.reason", Value: r.String()}
		defs = append(defs, stats.Def{Name: "dropped_" + r.String(), Prom: "dropped_total", Tags: []stats.Tag{tag}})
	}
	return defs
}

// meter publishes the account in the registry. It belongs to the batcher.
type meter struct {
	last time.Time
	seen Account
	tap  *stats.Group
	sink []*stats.Group
}

func newMeter(reg *stats.Registry, runners []*runner) *meter {
	m := &meter{tap: reg.Group(tapSchema, "meshtap.tap"), seen: Account{Sinks: make([]SinkAccount, len(runners))}}
	for _, r := range runners {
		m.sink = append(m.sink, reg.Group(sinkSchema, "meshtap.tap.sink."+r.name, stats.Tag{Name: "meshtap.sink", Value: r.name}))
	}
	return m
}

// tick publishes where publishEvery has passed or the rings are empty, and returns when it wants to be called again if
// nothing happens: not at all once the account is settled.
func (m *meter) tick(t *Tap, idle bool) time.Duration {
	now := time.Now()
	if !idle && now.Sub(m.last) < publishEvery {
		return flushEvery
	}
	m.last = now
	a := t.Account()
	m.publish(a)
	for i := range a.Sinks {
		if a.Sinks[i].Pending > 0 {
			return publishEvery
		}
	}
	return forever
}

// publish sets the numbers of the account.
func (m *meter) publish(a Account) {
	m.tap.Add(0, tapProduced, int64(a.Produced-m.seen.Produced))
	m.tap.Set(tapPending, int64(a.Pending))
	addDropped(m.tap, tapDropped, &a.Dropped, &m.seen.Dropped)
	for i, g := range m.sink {
		s, seen := &a.Sinks[i], &m.seen.Sinks[i]
		g.Add(0, sinkAcked, int64(s.Acked-seen.Acked))
		g.Set(sinkPending, int64(s.Pending))
		g.Add(0, sinkRetries, int64(s.Retries-seen.Retries))
		addDropped(g, sinkDropped, &s.Dropped, &seen.Dropped)
	}
	m.seen = a
}

func addDropped(g *stats.Group, at int, now, seen *[NumReasons]uint64) {
	for i := range now {
		if d := now[i] - seen[i]; d > 0 {
			g.Add(0, at+i, int64(d))
		}
	}
}

// release gives the groups back.
func (m *meter) release() {
	m.tap.Release()
	for _, g := range m.sink {
		g.Release()
	}
}
