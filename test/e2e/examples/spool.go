// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// tapSpool has the bus away while requests are made, restarts the proxy, and finds everything on the bus afterwards:
// what the policies of the routes leave out excepted.
func tapSpool(t *testing.T, r *Rig) {
	const sink = "meshtap.tap.sink.nats."
	r.Admin.UntilStats(func(s sidecar.Stats) bool { // the start of the proxy is told
		return s["meshtap.tap.produced"] > 0 && s[sink+"acked"] == s["meshtap.tap.produced"]
	})
	r.Bus.Kill()
	r.Do(Request{Name: "a request", Path: "/one", Header: []string{"x-request-id: 7c1f9d7e-0000-4000-8000-000000000001"}})
	r.Do(Request{Name: "no events", Path: "/health"})
	r.Do(Request{Name: "its id is not told", Path: "/private/two", Method: "POST", Header: []string{"x-do: status=500"}})
	// Two outcomes and their attempts.
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s[sink+"spool_events"] == 4 })
	if got := r.Admin.Stats()["meshtap.tap.policy_off"]; got != 1 {
		t.Errorf("%d outcomes are left out by a policy, want 1", got)
	}
	entries, err := os.ReadDir(filepath.Join(r.Files, "meshtap-spool"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "nats" {
		t.Errorf("the spool holds %v, %v", entries, err)
	}
	r.Proxy.Signal(os.Interrupt)
	if code := r.Proxy.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r.Bus.Revive()
	r.Start(r.Read("tap-spool.yaml"), "")
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s[sink+"pending"] == 0 && s[sink+"recovered"] >= 4 })
	checkSpooled(t, spooledEvents(t, r))
}

// spooledEvents reads the events of outcomes and attempts off the bus, by their request's path as the route has it.
func spooledEvents(t *testing.T, r *Rig) (events []map[string]any) {
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
	for range info.NumPending {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		var e map[string]any
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		if typ := e["type"]; typ == requestEvent || typ == "io.meshtap.attempt.v1" {
			events = append(events, e)
		}
	}
	return events
}

func checkSpooled(t *testing.T, events []map[string]any) {
	t.Helper()
	var seen []string
	byID := map[string]map[string]any{}
	for _, e := range events {
		data, _ := e["data"].(map[string]any)
		byID[e["id"].(string)] = data
		if e["type"] == requestEvent {
			id, _ := data["meshtap.request_id"].(string)
			seen = append(seen, e["partitionkey"].(string)+" "+strings.SplitN(id, "=", 2)[0])
			continue
		}
		if of := byID[data["meshtap.outcome_id"].(string)]; of == nil || data["meshtap.final"] != true || of["meshtap.cluster"] != data["meshtap.cluster"] {
			t.Errorf("an attempt of no outcome: %v", e)
		}
	}
	const want = "/ 7c1f9d7e-0000-4000-8000-000000000001, /private [redacted id"
	if got := strings.Join(seen, ", "); got != want || len(events) != 4 {
		t.Errorf("%d events, of %q; want %q", len(events), got, want)
	}
}
