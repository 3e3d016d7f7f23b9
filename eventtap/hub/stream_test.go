// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink"
	"github.com/meshtap/meshtap/test/conformance/sink/cloudevents"
)

// page is a reader's connection.
type page struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	flushed int // bytes that were there at the last flush
	broken  error
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return 0, p.broken
	}
	return p.buf.Write(b)
}

func (p *page) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushed = p.buf.Len()
	return p.broken
}

// seen is what the reader has.
func (p *page) seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.buf.Bytes()[:p.flushed])
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want, err string
	}{
		{"", "{From:0 Boot: Once:false Wait:0s Kinds:[] Cluster: Failed:false Filter:<nil>}", ""},
		{"from=now&follow=true&failed=false", "{From:0 Boot: Once:false Wait:0s Kinds:[] Cluster: Failed:false Filter:<nil>}", ""},
		{"from=17&follow=false&kind=outcome,circuit&cluster=orders&failed=true",
			"{From:17 Boot: Once:true Wait:0s Kinds:[outcome circuit] Cluster:orders Failed:true Filter:<nil>}", ""},
		{"filter=subject>source", "{From:0 Boot: Once:false Wait:0s Kinds:[] Cluster: Failed:false Filter:subject>source}", ""},
		{"filter=subjct>source", "", `filter: 1:1: an event has no "subjct"; did you mean subject?`},
		{"after=00ff-17&wait=30s", "{From:18 Boot:00ff Once:true Wait:30s Kinds:[] Cluster: Failed:false Filter:<nil>}", ""},
		{"after=&wait=5m", "{From:0 Boot: Once:true Wait:5m0s Kinds:[] Cluster: Failed:false Filter:<nil>}", ""},
		{"after=17", "", "after: "},
		{"after=-17", "", "after: "},
		{"after=00ff-", "", "after: "},
		{"after=00ff-18446744073709551615", "", "after: "},
		{"after=00ff-1&from=3", "", "after: from says"},
		{"wait=0s", "", "wait: "},
		{"wait=-1s", "", "wait: "},
		{"wait=6m", "", "wait: "},
		{"wait=10", "", "wait: "},
		{"wait=10s&follow=true", "", "wait: "},
		{"since=10s", "", `unknown parameter "since"; known are from, after`},
		{"from=0", "", "from: "},
		{"from=-1", "", "from: "},
		{"from=yesterday", "", "from: "},
		{"follow=maybe", "", "follow: "},
		{"failed=1", "", "failed: "},
		{"kind=outcome,unknown", "", `kind: "unknown" is not a kind of event; known are outcome, connection`},
	} {
		parts, err := url.ParseQuery(c.in)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParseQuery(parts)
		switch {
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)):
			t.Errorf("%s: %v, want %q", c.in, err, c.err)
		case c.err == "" && (err != nil || fmt.Sprintf("%+v", q) != c.want):
			t.Errorf("%s: %+v, %v", c.in, q, err)
		}
	}
}

func TestServeOnce(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	publish(h, 1, 6, 10)
	for _, c := range []struct {
		name string
		q    Query
		want string
	}{
		{"all", Query{From: 1}, "1 2 3 4 5 6"},
		{"from the middle", Query{From: 4}, "4 5 6"},
		{"from now", Query{}, ""},
		{"one cluster", Query{From: 1, Cluster: "even"}, "2 4 6"},
		{"failed", Query{From: 1, Failed: true}, "1 3 5"},
		{"a filter", Query{From: 1, Filter: compiled(t, `meshtap.cluster == "even" || id == "b-5"`)}, "2 4 5 6"},
		{"a filter that fails", Query{From: 1, Filter: compiled(t, `1 / http.request.resend_count == 1`)}, ""},
		{"a filter and a kind", Query{From: 1, Kinds: []event.Kind{event.Health}, Filter: compiled(t, "true")}, ""},
		{"a kind", Query{From: 1, Kinds: []event.Kind{event.Health, event.Request}}, "1 2 3 4 5 6"},
		{"another kind", Query{From: 1, Kinds: []event.Kind{event.Health}}, ""},
	} {
		var p page
		c.q.Once = true
		if err := h.ServeStream(t.Context(), &p, p.flush, c.q); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, line := range sink.Lines([]byte(p.seen())) {
			got = append(got, fmt.Sprint(sink.Decode(t, line).Sequence))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func compiled(t *testing.T, text string) *filter.Filter {
	t.Helper()
	f, err := filter.NewCompiler().Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestServeFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(1 << 20)
		var p page
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.ServeStream(ctx, &p, p.flush, Query{}) }()
		synctest.Wait()
		publish(h, 1, 1, 0)
		synctest.Wait()
		got := p.seen()
		if !strings.Contains(got, `"id":"b-1"`) || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "}\n") {
			t.Errorf("%q", got)
		}
		time.Sleep(heartbeat + time.Second)
		synctest.Wait()
		if beat := strings.TrimPrefix(p.seen(), got); beat != "\n" {
			t.Errorf("in silence comes %q", beat)
		}
		publish(h, 2, 2, 0)
		synctest.Wait()
		if !strings.Contains(p.seen(), `"id":"b-2"`) {
			t.Errorf("%q", p.seen())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestServePull has a reader ask again and again, with the id of the last event that it has.
func TestServePull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(4 * blockSize)
		pull := func(after string) (string, time.Duration) {
			q, err := ParseQuery(url.Values{paramAfter: {after}, paramWait: {"10s"}})
			if err != nil {
				t.Fatal(err)
			}
			var p page
			start := time.Now()
			if err := h.ServeStream(t.Context(), &p, p.flush, q); err != nil {
				t.Errorf("after %q: %v", after, err)
			}
			got := []string{}
			for _, line := range sink.Lines([]byte(p.seen())) {
				e := sink.Decode(t, line)
				got = append(got, fmt.Sprintf("%v%d/%d", e.Kind, e.Sequence, e.Uint(event.Count)))
			}
			return strings.Join(got, " "), time.Since(start)
		}
		later := func(first, last uint64, size int) {
			go func() { time.Sleep(3 * time.Second); publish(h, first, last, size) }()
		}
		for _, c := range []struct {
			name, after string
			before      func()
			want        string
			took        time.Duration
		}{
			{"nothing comes", "", func() {}, "", 10 * time.Second},
			{"what comes next", "", func() { later(1, 2, 0) }, "outcome1/0 outcome2/0", 3 * time.Second},
			{"what is there", "b-1", func() {}, "outcome2/0", 0},
			{"behind the end", "b-2", func() { later(3, 3, 0) }, "outcome3/0", 3 * time.Second},
			{"of another run", "a-100", func() {}, "outcome1/0 outcome2/0 outcome3/0", 0},
		} {
			c.before()
			if got, took := pull(c.after); got != c.want || took != c.took {
				t.Errorf("%s: %q after %v, want %q after %v", c.name, got, took, c.want, c.took)
			}
		}
		publish(h, 4, 203, 1000)
		got, _ := pull("b-3")
		if want := fmt.Sprintf("lost0/%d outcome%d/0 ", h.oldest()-4, h.oldest()); h.oldest() <= 4 || !strings.HasPrefix(got, want) {
			t.Errorf("what is gone: %.80s..., want %s...", got, want)
		}
	})
}

// TestServeEnds covers a reader that goes away, and a hub that is closed.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(1 << 20)
		gone := page{}
		done := make(chan error)
		go func() { done <- h.ServeStream(t.Context(), &gone, gone.flush, Query{}) }()
		synctest.Wait()
		gone.mu.Lock()
		gone.broken = errors.New("connection reset")
		gone.mu.Unlock()
		if err := <-done; err == nil { // the heartbeat finds out
			t.Error("a broken connection is not an error")
		}
		var p page
		go func() { done <- h.ServeStream(t.Context(), &p, p.flush, Query{}) }()
		synctest.Wait()
		_ = h.Close(t.Context())
		if err := <-done; err != nil || h.subs != 0 {
			t.Errorf("%v, %d readers are left", err, h.subs)
		}
	})
}

// stuck is a reader that takes nothing until it is let go.
type stuck struct {
	page
	once    sync.Once
	entered chan struct{}
	let     chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.entered) })
	<-s.let
	return s.page.Write(b)
}

// TestServeSlow has a reader that stands still while others read on: it is cut off, and its last event says how many
// events it missed.
func TestServeSlow(t *testing.T) {
	t.Parallel()
	h := New(4 * blockSize)
	slow := &stuck{entered: make(chan struct{}), let: make(chan struct{})}
	done := make(chan error)
	publish(h, 1, 10, 100)
	go func() { done <- h.ServeStream(t.Context(), slow, slow.flush, Query{From: 1}) }()
	<-slow.entered
	publish(h, 11, 1000, 1000)
	close(slow.let)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines := sink.Lines([]byte(slow.seen()))
	last := sink.Decode(t, lines[len(lines)-1])
	before := sink.Decode(t, lines[len(lines)-2])
	if last.Kind != event.Lost || last.Uint(event.Count) != h.oldest()-before.Sequence-1 {
		t.Errorf("read to %d, the oldest is %d, the last event is %s", before.Sequence, h.oldest(), lines[len(lines)-1])
	}
}

// TestLateReader asks for what is gone: it is told how much, and goes on.
func TestLateReader(t *testing.T) {
	t.Parallel()
	h := New(4 * blockSize)
	publish(h, 1, 1000, 1000)
	var p page
	if err := h.ServeStream(t.Context(), &p, p.flush, Query{From: 1, Once: true}); err != nil {
		t.Fatal(err)
	}
	lines := sink.Lines([]byte(p.seen()))
	first, second := sink.Decode(t, lines[0]), sink.Decode(t, lines[1])
	if first.Kind != event.Lost || first.Uint(event.Count) != second.Sequence-1 || len(lines) != int(1001-first.Uint(event.Count)) {
		t.Errorf("%d lines, the first is %s", len(lines), lines[0])
	}
}

// TestNoPersonalData sends a request full of secrets through a tap to a reader.
func TestNoPersonalData(t *testing.T) {
	t.Parallel()
	h := New(1 << 20)
	tap := sink.NewTap(t, eventtap.DefaultMemory, h)
	const secret = "s3cr3t"
	o := sink.Outcome("orders", 1)
	o.Path, o.UpstreamPath = []byte("/u/"+secret+"?t="+secret), []byte("/"+secret)
	o.Authority, o.RequestID, o.Method, o.Scheme = []byte(secret), []byte(secret+"@"), []byte(secret), []byte(secret)
	o.ServerName, o.Remote = secret, netip.MustParseAddrPort("198.51.100.23:1")
	o.Headers = every(secret)
	tap.Observe(o)
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var p page
	if err := h.ServeStream(t.Context(), &p, p.flush, Query{From: 1, Once: true}); err != nil {
		t.Fatal(err)
	}
	if got := p.seen(); !strings.Contains(got, "orders") || strings.Contains(got, secret) || strings.Contains(got, "198.51") {
		t.Errorf("%s", got)
	}
	if err := cloudevents.CheckJSON(sink.Lines([]byte(p.seen()))[0]); err != nil {
		t.Error(err)
	}
}

// every answers each look-up of a header with itself.
type every string

func (h every) RequestHeader(string) []byte   { return []byte(h) }
func (h every) ResponseHeader(string) []byte  { return []byte(h) }
func (h every) ResponseTrailer(string) []byte { return []byte(h) }

var _ mesh.Headers = every("")
