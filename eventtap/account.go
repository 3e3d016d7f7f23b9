// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"time"

	"github.com/meshtap/meshtap/internal/stats"
)

// Account says where all events are. It is read under one cut: no event moves while it is taken, so for each sink
//
//	Produced + Recovered = Acked + Pending + the sum of Dropped
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
	Name string
	// Produced counts since the sink was there.
	Produced uint64
	// Recovered are events of earlier runs that the sink's spool had at the start; they count beside Produced.
	Recovered uint64
	// Acked are the events that the bus has taken. An event whose acknowledgement was lost is sent again and counts once.
	Acked   uint64
	Pending uint64
	Dropped [NumReasons]uint64
	// Retries counts the batches that were sent again.
	Retries uint64
	Spool   SpoolAccount
}

// SpoolAccount is the state of a sink's spool.
type SpoolAccount struct {
	// Stored are those of the pending events that are on the disk, Bytes what they and those before them take there.
	Stored uint64
	Bytes  int64
	// Poisoned counts the segments that are not trusted any more, after a write or an fsync that failed.
	Poisoned uint64
	// Failing says that the disk does not take events.
	Failing bool
	// Stalled says that what is being written to the disk, or flushed, has taken a second or more so far.
	Stalled bool

	due bool // something is to be flushed, or being written
}

// Account returns the account of this moment. It stops Observe and Notify for as long as it takes to read it.
func (t *Tap) Account() Account {
	t.cut.Lock()
	defer t.cut.Unlock()
	rings := t.allRings()
	for _, r := range rings {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	for _, s := range t.runners {
		s.q.mu.Lock()
		defer s.q.mu.Unlock()
	}
	return account(rings, t.runners)
}

// allRings returns the rings, that of the notices last.
func (t *Tap) allRings() []*ring {
	rings := make([]*ring, 0, len(t.rings)+1)
	for i := range t.rings {
		rings = append(rings, &t.rings[i])
	}
	return append(rings, &t.notices)
}

// account adds up. All locks must be held.
func account(rings []*ring, runners []*runner) Account {
	var a Account
	for _, r := range rings {
		a.Produced += r.produced
		a.Pending += r.pending
		for i, n := range r.dropped {
			a.Dropped[i] += n
		}
	}
	for _, s := range runners {
		sa := SinkAccount{Name: s.name, Produced: a.Produced - s.before.Produced, Recovered: s.recovered, Acked: s.acked,
			Pending: a.Pending + s.q.pending, Retries: s.retries.Load()}
		for i, n := range s.dropped {
			sa.Dropped[i] = a.Dropped[i] - s.before.Dropped[i] + n
		}
		if s.sp != nil {
			sa.Spool = SpoolAccount{Bytes: s.sp.usage.Bytes, Poisoned: s.sp.usage.Poisoned, Failing: s.sp.failing,
				Stored: uint64(max(s.sp.stored, 0))}
			sa.Spool.Stalled, sa.Spool.due = s.sp.stalled()
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
	tapOff
	tapThinned
	tapFilterErrors
	tapDropped // one for each reason
)

// What it counts for each sink.
const (
	sinkAcked = iota
	sinkPending
	sinkRetries
	sinkProduced
	sinkRecovered
	sinkStored
	sinkSpoolBytes
	sinkPoisoned
	sinkFailing
	sinkStalled
	sinkDropped // one for each reason
)

var tapSchema = &stats.Schema{Name: "meshtap.tap", Own: true, Defs: append([]stats.Def{
	tapProduced: {Name: "produced", Prom: "produced_total"},
	tapPending:  {Name: "pending", Kind: stats.Gauge},
	tapOff:      {Name: "policy_off", Prom: "policy_off_total"},
	tapThinned:  {Name: "policy_sampled", Prom: "policy_sampled_total"},

	tapFilterErrors: {Name: "filter_errors", Prom: "filter_errors_total"},
}, droppedDefs()...)}

var sinkSchema = &stats.Schema{Name: "meshtap.tap.sink", Own: true, Defs: append([]stats.Def{
	sinkAcked:   {Name: "acked", Prom: "acked_total"},
	sinkPending: {Name: "pending", Kind: stats.Gauge},
	sinkRetries: {Name: "retries", Prom: "retries_total"},

	sinkProduced:   {Name: "produced", Prom: "produced_total"},
	sinkRecovered:  {Name: "recovered", Prom: "recovered_total"},
	sinkStored:     {Name: "spool_events", Kind: stats.Gauge},
	sinkSpoolBytes: {Name: "spool_bytes", Kind: stats.Gauge},
	sinkPoisoned:   {Name: "spool_poisoned", Prom: "spool_poisoned_total"},
	sinkFailing:    {Name: "spool_failing", Kind: stats.Gauge},
	sinkStalled:    {Name: "spool_stalled", Kind: stats.Gauge},
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
	reg  *stats.Registry
	last time.Time
	seen Account
	tap  *stats.Group
	sink map[string]*sinkMeter
}

type sinkMeter struct {
	group *stats.Group
	seen  SinkAccount
}

func newMeter(reg *stats.Registry) *meter {
	return &meter{reg: reg, tap: reg.Group(tapSchema, "meshtap.tap"), sink: map[string]*sinkMeter{}}
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
		if s := &a.Sinks[i]; s.Pending > 0 || s.Spool.due {
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
	m.seen = a
	there := map[string]bool{}
	for i := range a.Sinks {
		s := &a.Sinks[i]
		there[s.Name] = true
		x := m.sink[s.Name]
		if x == nil {
			x = &sinkMeter{group: m.reg.Group(sinkSchema, "meshtap.tap.sink."+s.Name, stats.Tag{Name: "meshtap.sink", Value: s.Name})}
			m.sink[s.Name] = x
		}
		x.publish(s)
	}
	for name, x := range m.sink {
		if !there[name] {
			x.group.Release()
			delete(m.sink, name)
		}
	}
}

func (x *sinkMeter) publish(s *SinkAccount) {
	g, seen := x.group, &x.seen
	g.Add(0, sinkAcked, int64(s.Acked-seen.Acked))
	g.Set(sinkPending, int64(s.Pending))
	g.Add(0, sinkRetries, int64(s.Retries-seen.Retries))
	g.Add(0, sinkProduced, int64(s.Produced-seen.Produced))
	g.Add(0, sinkRecovered, int64(s.Recovered-seen.Recovered))
	g.Set(sinkStored, int64(s.Spool.Stored))
	g.Set(sinkSpoolBytes, s.Spool.Bytes)
	g.Add(0, sinkPoisoned, int64(s.Spool.Poisoned-seen.Spool.Poisoned))
	g.Set(sinkFailing, bit(s.Spool.Failing))
	g.Set(sinkStalled, bit(s.Spool.Stalled))
	addDropped(g, sinkDropped, &s.Dropped, &seen.Dropped)
	*seen = *s
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
	for _, x := range m.sink {
		x.group.Release()
	}
}
