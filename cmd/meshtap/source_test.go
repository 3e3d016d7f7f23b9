// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
)

// line returns an event as a hub sends it.
func line(n int) string {
	return fmt.Sprintf(`{"specversion":"1.0","type":"io.meshtap.outcome.v1","source":"/meshtap/web/-/-/web-1","id":"a-%d","time":"2026-03-01T09:00:00Z","sequence":"%020d","data":{"meshtap.cluster":"orders"}}`+"\n", n, n)
}

// missed is what a hub says to a reader that was too slow.
const missed = `{"specversion":"1.0","type":"io.meshtap.lost.v1","source":"/meshtap/hub","id":"l","time":"2026-03-01T09:00:00Z","data":{"meshtap.count":5,"meshtap.reason":"too_slow"}}` + "\n"

// hubOf serves /events with one answer after the other, and keeps what it was asked. Where there are no more answers, it
// waits until the reader leaves.
func hubOf(t *testing.T, answers ...string) (proxy cli.Proxy, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var queries []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(queries)
		queries = append(queries, r.URL.RawQuery)
		mu.Unlock()
		if n < len(answers) {
			_, _ = w.Write([]byte(answers[n]))
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	return cli.Proxy{Admin: s.Listener.Addr().String()}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return queries
	}
}

// follow runs a source until it has told as many things as are wanted, and returns them in words.
func follow(t *testing.T, s *source, want int) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan arrival)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx, out)
	}()
	var got []string
	for len(got) < want {
		select {
		case a := <-out:
			got = append(got, inWords(a))
		case <-done:
			t.Fatalf("it ended after %v", got)
		}
	}
	cancel()
	<-done
	return got
}

func inWords(a arrival) string {
	switch {
	case a.up:
		return "up"
	case a.down != nil:
		return "down"
	case a.unreadable > 0:
		return "unreadable"
	case a.event.Kind == event.Lost:
		return "lost"
	}
	return string(a.event.ID)
}

func TestSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		kinds   []event.Kind
		follow  bool
		answers []string
		want    string
		asked   string
	}{
		{"what comes", nil, true, []string{line(1) + "\n" + line(2)}, "up a-1 a-2 down up", "|"},
		{"some kinds", []event.Kind{event.Request, event.Lost}, true, nil, "up", "kind=outcome%2Clost"},
		{"what is no event is told, and read over", nil, true, []string{"{}\n" + line(2)}, "up unreadable a-2 down", ""},
		{"cut off: it goes on behind the last event", nil, true, []string{line(7) + missed, line(9)}, "up a-7 up a-9 down", "|from=8"},
		{"missed in between is told", nil, true, []string{line(7) + missed + line(13)}, "up a-7 lost a-13 down", ""},
		{"cut off before the first event: it is told, and begun anew", nil, true, []string{missed}, "up lost down up", "|"},
		{"after an outage it begins with what comes", nil, true, []string{line(7)}, "up a-7 down up", "|"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, asked := hubOf(t, c.answers...)
			want := strings.Fields(c.want)
			if got := follow(t, newProxySource(p, c.kinds, "", c.follow), len(want)); strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
			if got := strings.Join(asked(), "|"); c.asked != "" && got != c.asked {
				t.Errorf("asked %q, want %q", got, c.asked)
			}
		})
	}
}

// TestSourceRemembers: without following, a source asks for all there is and ends; what the proxy has forgotten before is
// not missed by anybody.
func TestSourceRemembers(t *testing.T) {
	t.Parallel()
	p, asked := hubOf(t, missed+line(7)+line(8))
	out := make(chan arrival, 10)
	newProxySource(p, nil, "", false).run(t.Context(), out)
	close(out)
	var got []string
	for a := range out {
		got = append(got, inWords(a))
	}
	if strings.Join(got, " ") != "up a-7 a-8" {
		t.Errorf("got %v", got)
	}
	if q := strings.Join(asked(), "|"); q != "follow=false&from=1" {
		t.Errorf("asked %q", q)
	}
}

// TestTapOutages: tap tells of a proxy that goes, once, and goes on with the others; it ends where none was ever there.
func TestTapOutages(t *testing.T) {
	t.Parallel()
	p, _ := hubOf(t, line(1), line(2))
	_, errOut, code := execute(t.Context(), "tap", "--admin", p.Admin, "--admin", "127.0.0.1:1", "-n", "2", "-o", "compact")
	if code != 0 {
		t.Errorf("ended with %d", code)
	}
	for _, want := range []string{
		"127.0.0.1:1 cannot be reached: dial tcp 127.0.0.1:1: connect: connection refused; trying again\n",
		p.Admin + ": the stream has ended; trying again\n",
		"connected to " + p.Admin + " again; what happened in between is not shown\n",
		"2 shown of 2 events\n",
	} {
		if strings.Count(errOut, "meshtap: "+want) != 1 {
			t.Errorf("%q is not told once:\n%s", want, errOut)
		}
	}
	_, errOut, code = execute(t.Context(), "tap", "--admin", "127.0.0.1:1", "--admin", "127.0.0.1:2")
	if code != cli.ExitUnreachable || !strings.Contains(errOut, "cannot be reached") {
		t.Errorf("ended with %d: %s", code, errOut)
	}
	// What is remembered by some is shown, and the code says that it is not all.
	p, _ = hubOf(t, line(1))
	out, _, code := execute(t.Context(), "tap", "-f=false", "--admin", p.Admin, "--admin", "127.0.0.1:1", "-o", "compact", "--no-headers")
	if code != cli.ExitPartial || !strings.Contains(out, "web → orders") {
		t.Errorf("ended with %d: %s", code, out)
	}
}

// TestNames: who called whom, from an event's source and direction and what the context says.
func TestNames(t *testing.T) {
	t.Parallel()
	d := newDirectory([]cli.Proxy{{Name: "shop-1", Service: "shop"}, {Name: "unnamed"}})
	for _, c := range []struct{ source, direction, own, from, to string }{
		{"/meshtap/c/-/-/web-1", "", "", "c", "orders"},
		{"/meshtap/c/ns/workload/web-1", "", "", "workload", "orders"},
		{"/meshtap/-/-/-/web-1", "", "", "web-1", "orders"},
		{"/meshtap/-/-/-/web%2F1", "", "", "web/1", "orders"},
		{"/meshtap/c/-/-/shop-1", "", "", "shop", "orders"},
		{"/meshtap/c/-/-/web-1", "outbound", "mine", "mine", "orders"},
		{"/meshtap/c/-/-/web-1", "inbound", "", "10.0.0.1", "c"},
		{"/meshtap/-/-/-/-", "", "", "/meshtap/-/-/-/-", "orders"},
		{"elsewhere", "", "", "elsewhere", "orders"},
	} {
		e := request().Event
		e.Source = []byte(c.source)
		e.Texts[event.Cluster], e.Texts[event.Direction], e.Texts[event.ClientAddress] = []byte("orders"), []byte(c.direction), []byte("10.0.0.1")
		if got := d.show(e, c.own); got.from != c.from || got.to != c.to {
			t.Errorf("%s %s: %s → %s, want %s → %s", c.source, c.direction, got.from, got.to, c.from, c.to)
		}
	}
}
