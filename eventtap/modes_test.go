// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
)

// stuck is a sink whose bus takes nothing until it is freed.
func stuck(caps Caps) (s *memSink, free func()) {
	gate := make(chan struct{})
	s = newMemSink(caps)
	s.behave = func(_ *Batch, done func(error)) bool {
		select {
		case <-gate:
			done(nil)
			return true
		default:
			done(errDown)
			return false
		}
	}
	return s, func() { close(gate) }
}

// crowd observes requests until a reason has cost so many events, with a notice now and then.
func crowd(t *testing.T, tap *Tap, why Reason, enough uint64, change func(*mesh.Outcome)) (requests, told int) {
	t.Helper()
	for tap.Account().Sinks[0].Dropped[why] < enough {
		for range 100 {
			o := outcomeOf(fmt.Sprint("cluster-", requests%3), requests)
			if change != nil {
				change(o)
			}
			tap.Observe(o)
			requests++
		}
		if requests%500 == 0 {
			tap.Notify(&notices[0].n)
			told++
		}
		pace(t, tap)
	}
	return requests, told
}

// TestDropOldest has a bus that is away for long: what comes is the newest, the notices in between are all there, and the
// gaps are told to the event.
func TestDropOldest(t *testing.T) {
	t.Parallel()
	cfg := Config{Memory: MinMemory}
	cfg.Modes[event.Request] = DropOldest
	s, free := stuck(Caps{Encoding: Proto, InFlight: 2})
	tap := newTap(t, cfg, s)
	requests, told := crowd(t, tap, SinkFull, 20000, nil)
	free()
	a := endTap(t, tap, 20*time.Second).Sinks[0]
	events := s.events(t)
	came, lost, _ := reconcile(t, events)
	if came != a.Acked || came+lost != uint64(requests+told) || lost != a.Dropped[SinkFull] {
		t.Errorf("of %d and %d, %d came and %d are told to be lost: %+v", requests, told, came, lost, a)
	}
	newest, heard := int64(0), 0
	for _, e := range events {
		switch e.Kind {
		case event.Request:
			newest = max(newest, e.Numbers[event.ConnectionID])
		case event.Lost:
		default:
			heard++
		}
	}
	if newest != int64(requests-1) || heard != told {
		t.Errorf("the newest is %d of %d, %d notices of %d came", newest, requests, heard, told)
	}
}

// TestEvictAgainstModel fills chunks with random records and evicts from them while a reader reads: what the reader sees is
// what a list of records, from which the droppable ones may be missing, says.
func TestEvictAgainstModel(t *testing.T) {
	t.Parallel()
	var ever uint64
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		q := &queue{pool: newPool((4+r.IntN(6))*chunkSize, 1)}
		var kept, droppable, written uint64 // what the reader must see, or be told of
		var evicted uint64
		next := uint64(0) // the number that the reader expects
		read := func(n int) {
			items := q.next(nil, n)
			for _, it := range items {
				if it.loss.count > 0 {
					if it.loss.firstStream != next+1 {
						t.Fatalf("seed %d: a loss from %d after %d", seed, it.loss.firstStream, next)
					}
					next += it.loss.count
					continue
				}
				if got := numberOf(it.b).stream; got != next+1 {
					t.Fatalf("seed %d: number %d after %d", seed, got, next)
				}
				next++
			}
			q.mu.Lock()
			q.release()
			q.mu.Unlock()
		}
		for range 6000 {
			if r.IntN(40) == 0 {
				read(r.IntN(200))
			}
			what := uint32(isDroppable)
			if r.IntN(10) == 0 {
				what = isRecord
			}
			e := &encoded{seq: written + 1, kind: event.Request}
			body := make([]byte, 150+r.IntN(1500))
			q.mu.Lock()
			b := q.room(sinkHead+len(body), false)
			for b == nil && what == isDroppable {
				n, freed := q.evict(SinkFull, 1)
				evicted += n
				if !freed {
					break
				}
				b = q.room(sinkHead+len(body), false)
			}
			written++
			if b == nil {
				q.lost.merge(loss{reason: SinkFull, count: 1, firstStream: written, lastStream: written})
			} else {
				q.commitAs(putSinkRecord(b, written, 1, e, false, nil, body), what)
				if what == isRecord {
					kept++
				} else {
					droppable++
				}
			}
			if want := kept + droppable - evicted; q.pending != want {
				t.Fatalf("seed %d: %d are pending, want %d", seed, q.pending, want)
			}
			q.mu.Unlock()
		}
		for !q.empty() {
			read(1000)
		}
		if next != written {
			t.Fatalf("seed %d: the reader has seen %d of %d, %d were evicted", seed, next, written, evicted)
		}
		ever += evicted
	}
	if ever < 10000 {
		t.Errorf("only %d records were evicted", ever)
	}
}

// TestSampleMode has a bus that is away: successes are thinned out and carry their weight, everything else is kept as long
// as there is room.
func TestSampleMode(t *testing.T) {
	t.Parallel()
	cfg := Config{Memory: 64 << 20} // 32 MiB, some 80,000 events
	cfg.Modes[event.Request] = Sample
	s, free := stuck(Caps{Encoding: JSON, InFlight: 2})
	tap := newTap(t, cfg, s)
	n := 0
	requests, told := crowd(t, tap, Sampled, 30000, func(o *mesh.Outcome) {
		o.RequestID = fmt.Appendf(nil, "id-%d", n)
		if n++; n%50 == 0 {
			o.Status = 503
		}
	})
	free()
	a := endTap(t, tap, 30*time.Second).Sinks[0]
	var weight, failed, whole int
	for _, e := range s.events(t) {
		if e.Kind != event.Request {
			continue
		}
		if e.Failed() {
			failed++
		}
		whole++
		weight += int(max(e.SampledRate, 1))
	}
	if came, lost, _ := reconcile(t, s.events(t)); lost != 0 || came != a.Acked || a.Dropped[Sampled]+a.Acked != uint64(requests+told) {
		t.Errorf("%d came and %d are told to be lost: %+v", came, lost, a)
	}
	if failed != requests/50 {
		t.Errorf("%d failures came of %d", failed, requests/50)
	}
	if off := float64(weight)/float64(requests) - 1; off > 0.08 || off < -0.08 || whole > requests/2 {
		t.Errorf("%d events came and stand for %d, of %d", whole, weight, requests)
	}
}

// TestThinning: the fuller, the thinner.
func TestThinning(t *testing.T) {
	t.Parallel()
	last := uint(0)
	for used := range 17 {
		got := thinning(used)
		if got < last || got > 4 || (got > 0) != (used >= 8) {
			t.Errorf("at %d sixteenths: %d after %d", used, got, last)
		}
		last = got
	}
}

// TestModesPerSink has one class in three modes at three sinks.
func TestModesPerSink(t *testing.T) {
	t.Parallel()
	all, none := newMemSink(Caps{Encoding: JSON, InFlight: 1}), newMemSink(Caps{Encoding: JSON, InFlight: 1})
	cfg := Config{Memory: DefaultMemory, Sinks: []SinkConfig{sinkOf("all", all), sinkOf("none", none)}}
	cfg.Sinks[1].Modes = &[event.NumKinds]Mode{event.Request: Off}
	tap, err := New(cfg, testDeps())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		tap.Observe(outcomeOf("x", n))
	}
	tap.Notify(&notices[0].n)
	a := endTap(t, tap, 5*time.Second)
	if a.Sinks[0].Acked != 101 || a.Sinks[1].Acked != 1 || a.Sinks[1].Dropped[Unselected] != 100 {
		t.Errorf("%+v", a)
	}
	if e := none.events(t); len(e) != 1 || e[0].StreamSeq != 1 || e[0].Sequence != 101 {
		t.Errorf("%d events, the first is %s", len(e), e[0].AppendJSON(nil))
	}
}

// TestAttempts: each attempt of a request is an event behind the outcome's, and says of which.
func TestAttempts(t *testing.T) {
	t.Parallel()
	cfg := Config{}
	cfg.Modes[event.Attempt] = DropNewest
	s := newMemSink(Caps{Encoding: Proto, InFlight: 1})
	tap := newTap(t, cfg, s)
	retried := outcomes[5]
	if retried.name != "retried" {
		t.Fatal(retried.name)
	}
	o := sampleOutcome()
	retried.change(o)
	tap.Observe(o)
	o.Attempts, o.Tries = 0, nil
	tap.Observe(o) // it got to no host
	o.Kind = mesh.OutcomeTCP
	tap.Observe(o)
	a := endTap(t, tap, 5*time.Second)
	events := s.events(t)
	if a.Produced != 6 || len(events) != 6 {
		t.Fatalf("%d events, %+v", len(events), a)
	}
	for i, want := range []string{
		`"meshtap.attempt":1,"meshtap.cluster":"outbound|80||payments.shop","meshtap.host":"10.1.2.4:8080","meshtap.failure":"connect_failure","meshtap.took_ns":500`,
		`"meshtap.attempt":2,"meshtap.cluster":"outbound|80||payments.shop","meshtap.host":"/run/app.sock","http.response.status_code":503,"meshtap.took_ns":600`,
		`"meshtap.attempt":3,"meshtap.final":true,"meshtap.cluster":"outbound|80||payments.shop","meshtap.host":"10.1.2.3:8080","http.response.status_code":200,"meshtap.took_ns":1190000`,
	} {
		js := string(events[1+i].AppendJSON(nil))
		if !strings.Contains(js, want) || !strings.Contains(js, fmt.Sprintf(`"meshtap.outcome_id":"%s"`, events[0].ID)) {
			t.Errorf("attempt %d is %s", i+1, js)
		}
		if string(events[1+i].PartitionKey) != string(events[0].PartitionKey) {
			t.Errorf("its key is %s", events[1+i].PartitionKey)
		}
	}
}

// TestLinks: a circuit that opens says which outcome failed before, and what versions served it.
func TestLinks(t *testing.T) {
	t.Parallel()
	s := newMemSink(Caps{Encoding: Proto, InFlight: 1})
	tap := newTap(t, Config{}, s)
	for n, status := range []int{200, 503, 200} {
		o := outcomeOf("orders", n)
		o.Status, o.Versions.Clusters = status, fmt.Sprint("v", n)
		tap.Observe(o)
	}
	tap.Observe(outcomeOf("other", 4))
	for _, cluster := range []string{"orders", "other", "unknown"} {
		tap.Notify(&mesh.Notice{Kind: mesh.NoticeCircuit, Cluster: cluster, Circuit: &mesh.CircuitNotice{To: mesh.CircuitIsOpen}})
	}
	endTap(t, tap, 5*time.Second)
	events := s.events(t)
	byCluster := map[string]*event.Event{}
	failed := ""
	for _, e := range events {
		if e.Kind == event.Circuit {
			byCluster[string(e.Texts[event.Cluster])] = e
		} else if e.Failed() {
			failed = string(e.ID)
		}
	}
	for cluster, want := range map[string][2]string{"orders": {failed, "v2"}, "other": {"", "19"}, "unknown": {"", ""}} {
		e := byCluster[cluster]
		if got := [2]string{string(e.Texts[event.OutcomeID]), string(e.Texts[event.ClustersVersion])}; got != want {
			t.Errorf("%s: %q, want %q", cluster, got, want)
		}
	}
}
