// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtap/meshtap/eventtap/spool"
	"github.com/meshtap/meshtap/internal/stats"
)

// alarmWithin is how soon a metric says what is wrong with a spool (F81). Here the clock is synctest's.
const alarmWithin = time.Second

// metricOf returns what is published of the sink "a", 0 where nothing is yet.
func metricOf(reg *stats.Registry, name string) (value int64) {
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == "meshtap.tap.sink.a."+name {
			value = m.Value
		}
		return true
	})
	return value
}

// awaitMetric waits until a metric is, or is not, 0, and no longer than it may take.
func awaitMetric(t *testing.T, reg *stats.Registry, name string, zero bool, limit time.Duration) {
	t.Helper()
	for from := time.Now(); (metricOf(reg, name) == 0) != zero; time.Sleep(10 * time.Millisecond) {
		if time.Since(from) > limit {
			t.Fatalf("after %v %s is %d", limit, name, metricOf(reg, name))
		}
	}
}

// TestAlarmOfAFullSpool fills a spool while the bus is down, until the first event is dropped: the metric says so within a
// second.
func TestAlarmOfAFullSpool(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]bool{"the oldest go": false, "the newest are dropped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := newMemSink(Caps{Encoding: Proto, InFlight: 2})
				s.behave = func(_ *Batch, done func(error)) bool { done(errDown); return false }
				cfg, deps := spooled(dir), testDeps()
				cfg.Spool.MaxBytes, cfg.Spool.Refuse = spool.MinBytes, refuse
				tap := newTapOf(t, cfg, deps, s)
				for n := 0; tap.Account().Sinks[0].Dropped[SpoolFull] == 0; n++ {
					tap.Observe(outcomeOf("x", n))
					if n%100 == 0 {
						synctest.Wait()
					}
				}
				awaitMetric(t, deps.Stats, "dropped_spool_full", false, alarmWithin)
			})
		})
	}
}

// TestAlarmOfASlowDisk has a flush that does not come back, in each commit mode that flushes: a metric says so within a
// second of when it has taken too long, while it still hangs, and until it comes back.
func TestAlarmOfASlowDisk(t *testing.T) {
	t.Parallel()
	for name, commit := range map[string]spool.Commit{"every so often": spool.Interval, "each batch": spool.Batch} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				hung, gate := make(chan struct{}, 1), make(chan struct{})
				cfg, deps := spooled(dir), testDeps()
				cfg.Spool.Commit = commit
				deps.onFlush = func() {
					select {
					case hung <- struct{}{}:
					default:
					}
					<-gate
				}
				tap := newTapOf(t, cfg, deps, newMemSink(Caps{Encoding: Proto, InFlight: 2}))
				tap.Observe(outcomeOf("x", 1))
				<-hung
				time.Sleep(stallAfter / 2)
				if metricOf(deps.Stats, "spool_stalled") != 0 {
					t.Error("the alarm is there too soon")
				}
				awaitMetric(t, deps.Stats, "spool_stalled", false, stallAfter/2+alarmWithin)
				if a := tap.Account().Sinks[0]; !a.Spool.Stalled || a.Spool.Failing || commit == spool.Interval && a.Acked != 1 {
					t.Errorf("%+v", a)
				}
				close(gate)
				awaitMetric(t, deps.Stats, "spool_stalled", true, alarmWithin)
				if a := endTap(t, tap, time.Minute).Sinks[0]; a.Acked != 1 || a.Spool.Stalled {
					t.Errorf("%+v", a)
				}
			})
		})
	}
}
