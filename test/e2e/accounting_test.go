// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// The bus is killed and revived while requests are made: no request notices, each of them is one event, and every event is
// where the counters say: acknowledged and in the stream once, or dropped and missing in the reader's numbers (F79, F84).
func TestEventAccounting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		memory string
		rate   int
		drops  bool
		// enough says that the bus was away for long enough, with the counters at its end and now.
		enough func(before, now ledger) bool
	}{
		{"everything fits", "67108864", 1000, false, func(before, now ledger) bool {
			return now.produced > before.produced+1000 && now.retries > before.retries
		}},
		{"more than the memory holds", "4194304", 4000, true, func(before, now ledger) bool {
			return now.dropped > before.dropped+1000 && now.retries > before.retries
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := tapped(t, c.memory)
			l := load.Start(t, load.Options{Workers: 8, Rate: c.rate, Addr: func() string { return r.Addr("") }})
			rounds := 2
			if soak() {
				rounds = 20
			}
			for range rounds {
				acked := readLedger(r.Admin.Stats()).acked
				untilLedger(r, func(now ledger) bool { return now.acked > acked+500 })
				r.Bus.Kill()
				before := readLedger(r.Admin.Stats())
				untilLedger(r, func(now ledger) bool { return c.enough(before, now) })
				r.Bus.Revive()
			}
			res := l.Stop()
			if res.Failed > 0 {
				t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
			}
			made := res.Requests
			untilLedger(r, func(now ledger) bool { return now.produced == made && now.pending == 0 })
			// What was lost last is told in front of one more event, at the latest.
			r.Do(examples.Request{Name: "last"})
			made++
			got := untilLedger(r, func(now ledger) bool { return now.produced == made && now.pending == 0 })
			t.Logf("figure: %v; %+v", res, got)
			if got.produced != got.acked+got.pending+got.dropped || (got.dropped > 0) != c.drops || got.refused+got.shutdown > 0 {
				t.Errorf("the counters do not add up, or not as they should: %+v", got)
			}
			checkStream(t, r, got)
			checkCommand(t, r, got)
		})
	}
}

// tapped starts a proxy with a tap of so many bytes that sends the events of requests, and no others, to a bus.
func tapped(t *testing.T, memory string) *examples.Rig {
	t.Helper()
	r := examples.NewRig(t)
	text := r.Read("tap-nats.yaml")
	for old, now := range map[string]string{
		"memory_bytes: 8388608\n": "memory_bytes: " + memory + "\n    events:\n" + off("CONNECTION", "CIRCUIT", "EJECTION", "HEALTH", "CONFIG", "LIFECYCLE"),
		// A repeat after an outage must find its first in the window, however long a slow machine takes.
		"max_age: 86400s}": "max_age: 86400s, duplicate_window: 3600s}",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("tap-nats.yaml does not have %q any more", old)
		}
		text = strings.Replace(text, old, now, 1)
	}
	r.Start(text, "")
	return r
}

func off(classes ...string) string {
	var b strings.Builder
	for _, c := range classes {
		b.WriteString("    - {class: " + c + ", mode: OFF}\n")
	}
	return b.String()
}

// ledger is what the proxy counts of its events, for the sink.
type ledger struct {
	produced, acked, pending, dropped int64
	// refused and shutdown are parts of dropped.
	refused, shutdown, retries int64
}

func readLedger(s sidecar.Stats) ledger {
	const sink = "meshtap.tap.sink.nats."
	return ledger{
		produced: s["meshtap.tap.produced"], acked: s[sink+"acked"], pending: s[sink+"pending"], dropped: s.Sum(sink+"dropped_", ""),
		refused: s[sink+"dropped_refused"], shutdown: s[sink+"dropped_shutdown"], retries: s[sink+"retries"],
	}
}

func untilLedger(r *examples.Rig, right func(ledger) bool) (l ledger) {
	r.T.Helper()
	r.Admin.UntilStats(func(s sidecar.Stats) bool {
		l = readLedger(s)
		return right(l)
	})
	return l
}

// checkStream reads the stream from its beginning, as a subscriber does, and compares it with the counters.
func checkStream(t *testing.T, r *examples.Rig, want ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
	defer cancel()
	c, err := r.Bus.Connect().OrderedConsumer(ctx, "meshtap", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	ids, numbers := map[string]bool{}, map[uint64]bool{}
	var told, last uint64
	for range info.NumPending {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		var e event.Event
		if err := e.DecodeJSON(m.Data()); err != nil {
			t.Fatal(err)
		}
		id := string(e.ID)
		if ids[id] || m.Headers().Get(jetstream.MsgIDHeader) != id {
			t.Errorf("the event %s is there twice, or has another id than its message", id)
		}
		ids[id] = true
		switch {
		case e.Kind == event.Lost:
			told += e.Uint(event.Count)
		case e.Kind != event.Request || e.StreamSeq == 0 || numbers[e.StreamSeq]:
			t.Errorf("an event that should not be there: %s", m.Data())
		default:
			numbers[e.StreamSeq] = true
			last = max(last, e.StreamSeq)
		}
	}
	came := int64(len(numbers))
	if gaps := int64(last) - came; came != want.acked || gaps != want.dropped || int64(told) != want.dropped || int64(last) != want.produced {
		t.Errorf("the stream has %d events with numbers up to %d, so %d are missing, and tells of %d lost; the proxy says %+v",
			came, last, gaps, told, want)
	}
}

// summary is the last line of "meshtap events ls".
var summary = regexp.MustCompile(`(?m)^meshtap: (\d+) shown of \d+ events(?:, (\d+) \([a-z_ ,0-9]+\) lost)?$`)

// checkCommand asks the command for the stored events: it sees what is there and what is lost, and no gap besides.
func checkCommand(t *testing.T, r *examples.Rig, want ledger) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sidecar.Meshtap(t), "events", "ls", "--bus", r.Bus.URL(), "--stream", "meshtap",
		"--since", "24h", "--limit", "0", "-o", "jsonl")
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	var notes strings.Builder
	cmd.Stderr = &notes
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("meshtap events ls: %v\n%s", err, notes.String())
	}
	m := summary.FindStringSubmatch(notes.String())
	if m == nil {
		t.Fatalf("meshtap events ls says %q", notes.String())
	}
	shown, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	lost := int64(0)
	if m[2] != "" {
		if lost, err = strconv.ParseInt(m[2], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	lines := int64(strings.Count(string(out), `"type":"io.meshtap.outcome.v1"`))
	if shown != want.acked || lines != want.acked || lost != want.dropped {
		t.Errorf("meshtap events ls shows %d events in %d lines and %d lost, the proxy says %+v", shown, lines, lost, want)
	}
}
