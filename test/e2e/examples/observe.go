// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

func accessLogs(t *testing.T, r *Rig) {
	var lines []map[string]any
	for _, q := range []Request{
		{Name: "one", Path: "/one", Header: []string{"x-user: me"}},
		{Name: "two", Path: "/two", Method: "POST", Body: "hello", Header: []string{"x-do: status=500"}},
		{Name: "three", Path: "/three", Host: "nowhere.example"},
	} {
		r.Do(q)
		lines = r.jsonLines("meshtap-access.log", len(lines)+1) // a line may come after the answer
	}
	c := r.Dial("tcp")
	greeted(t, c)
	c.Close()

	r.Proxy.Printed(`(?m)^connection database 21 68 -$`)
	r.Proxy.Logged(`(?m)^failed POST /two 500 - via_upstream$`)
	r.Proxy.Logged(`(?m)^failed GET /three 404 NR route_not_found$`)
	r.Proxy.Logged(`(?m)^chosen POST /two$`)
	if log := r.Proxy.Log(); strings.Contains(log, "failed GET /one") || strings.Contains(log, "chosen GET") {
		t.Errorf("a filter let through what it should not: %s", log)
	}
	for i, want := range []map[string]any{
		{"method": "GET", "path": "/one", "code": 200., "flags": "-", "cluster": "web", "who": "me"},
		{"method": "POST", "path": "/two", "code": 500., "flags": "-", "cluster": "web", "who": "example"},
		{"method": "GET", "path": "/three", "code": 404., "flags": "NR", "cluster": nil, "who": "example"},
	} {
		bytes := lines[i]["bytes"].(map[string]any)
		delete(lines[i], "bytes")
		if !maps.Equal(lines[i], want) {
			t.Errorf("line %d: %v, want %v", i, lines[i], want)
		}
		if received := bytes["received"].(float64); received != 0 && i != 1 || received != 5 && i == 1 {
			t.Errorf("line %d: %v bytes were received", i, received)
		}
	}
}

// jsonLines waits until a file has so many lines, and reads them.
func (r *Rig) jsonLines(name string, n int) (out []map[string]any) {
	r.T.Helper()
	var text []byte
	r.Admin.Until("/ready", func(int, string) bool {
		text, _ = os.ReadFile(filepath.Join(r.Files, name))
		return strings.Count(string(text), "\n") >= n
	})
	for line := range strings.Lines(string(text)) {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			r.T.Fatalf("%s: %q: %v", name, line, err)
		}
		out = append(out, doc)
	}
	return out
}

// requestEvent is the type of the event of a request.
const requestEvent = "io.meshtap.outcome.v1"

// methods returns the methods of the events of requests, and checks what every event must have.
func methods(t testing.TB, events []map[string]any) (methods []string) {
	t.Helper()
	for _, e := range events {
		for _, name := range []string{"specversion", "id", "source", "type", "time", "sequence", "streamseq"} {
			if e[name] == nil {
				t.Errorf("an event has no %s: %v", name, e)
			}
		}
		if e["type"] == requestEvent {
			data, _ := e["data"].(map[string]any)
			method, _ := data["http.request.method"].(string)
			methods = append(methods, method)
		}
	}
	return methods
}

// told sends requests with these methods, one when the event of the one before has been produced: a client has its answer
// before the outcome is observed, so the events of two connections may otherwise come in either order.
func (r *Rig) told(methods []string) {
	for _, method := range methods {
		before := r.Admin.Stats()["meshtap.tap.produced"]
		r.Do(Request{Name: method, Method: method})
		r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["meshtap.tap.produced"] > before })
	}
}

func tap(t *testing.T, r *Rig) {
	want := []string{"GET", "POST", "PUT"}
	r.told(want)
	r.Proxy.Signal(os.Interrupt)
	if code := r.Proxy.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	file, err := os.ReadFile(filepath.Join(r.Files, "meshtap-events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"standard output": r.Proxy.Stdout(), "the file": string(file)} {
		var events []map[string]any
		for line := range strings.Lines(text) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %q: %v", name, line, err)
			}
			if src := e["source"]; src != "/meshtap/examples/default/web/"+nodeID(e) {
				t.Errorf("%s: source %v", name, src)
			}
			events = append(events, e)
		}
		if got := methods(t, events); !slices.Equal(got, want) {
			t.Errorf("%s tells of %q, want %q", name, got, want)
		}
	}
}

func nodeID(e map[string]any) string {
	s, _ := e["source"].(string)
	return s[strings.LastIndexByte(s, '/')+1:]
}

func tapNATS(t *testing.T, r *Rig) {
	want := []string{"GET", "POST", "PUT"}
	r.told(want)
	r.Admin.UntilStats(func(s sidecar.Stats) bool {
		return s["meshtap.tap.sink.nats.acked"] == s["meshtap.tap.produced"]
	})
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
	var events []map[string]any
	for range info.NumPending {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		var e map[string]any
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(m.Subject(), "meshtap.events.") {
			t.Errorf("subject %q", m.Subject())
		}
		events = append(events, e)
	}
	if got := methods(t, events); !slices.Equal(got, want) {
		t.Errorf("the stream tells of %q, want %q", got, want)
	}
}
