// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestConformance runs the suite in each mode, against a server that is killed and comes back.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"batched":             func(*Config) {},
		"binary":              func(c *Config) { c.Mode = Binary },
		"structured protobuf": func(c *Config) { c.Mode, c.Proto = Structured, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink.Run(t, func(t *testing.T) sink.Bus { return newBus(t, change) })
		})
	}
}

func newBus(t *testing.T, change func(*Config)) sink.Bus {
	h := startHook(t, nil)
	cfg := h.config(t)
	change(&cfg)
	return sink.Bus{
		Sink:   func(*testing.T) eventtap.Sink { return New(cfg) },
		Events: func(*testing.T) [][]byte { return h.events("/events") },
		Kill:   h.stop, Revive: h.start,
		Stranger: func(t *testing.T) eventtap.Sink {
			stranger := cfg
			stranger.KeyFile = keyFile(t, []byte("another key of thirty-two bytes."))
			return New(stranger)
		},
		Narrow: func(t *testing.T) sink.Narrow {
			h := startHook(t, func(h *hook) { h.limit = sink.NarrowBytes })
			cfg := h.config(t)
			cfg.DeadLetter = cfg.Target
			cfg.DeadLetter.Path = "/dead"
			change(&cfg)
			return sink.Narrow{
				Sink:   New(cfg),
				Events: func(*testing.T) [][]byte { return h.events("/events") },
				Dead:   func(*testing.T) [][]byte { return h.events("/dead") },
			}
		},
		Secure: func(t *testing.T) (*sink.Authority, func(login.TLS) eventtap.Sink) {
			a := sink.NewAuthority(t)
			h := startHook(t, func(h *hook) { h.tls = a.Server(t) })
			return a, func(l login.TLS) eventtap.Sink {
				cfg := h.config(t)
				cfg.TLS = &l
				change(&cfg)
				return New(cfg)
			}
		},
	}
}

// TestKilledUnderLoad ends the server again and again; see sink.KillUnderLoad.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	h := startHook(t, nil)
	sink.KillUnderLoad(t, sink.Killable{Sink: New(h.config(t)), Kill: h.stop, Revive: h.start, Repeats: true, Rounds: 2, Missed: 2000,
		Events: func(*testing.T) [][]byte { return h.events("/events") }})
}

// batch makes a batch of so many events.
func batch(n int) *eventtap.Batch {
	b := &eventtap.Batch{}
	for i := range n {
		var e event.Event
		e.Reset(event.Circuit)
		e.ID, e.Source, e.PartitionKey = fmt.Appendf(nil, "b-%d", i+1), []byte("/s"), []byte("k \"é%")
		e.Sequence, e.StreamSeq = uint64(i+1), uint64(i+1)
		b.Events = append(b.Events, eventtap.Event{ID: e.ID, Key: e.PartitionKey, Kind: e.Kind, Body: e.AppendJSON(nil)})
	}
	return b
}

func send(ctx context.Context, s *Sink, b *eventtap.Batch) error {
	done := make(chan error, 1)
	s.Send(ctx, b, func(err error) { done <- err })
	return <-done
}

// answers has a server give each status of a list once, and the last for ever.
func answers(t *testing.T, list ...func(w http.ResponseWriter)) *hook {
	n := 0
	return startHook(t, func(h *hook) {
		h.script = func(w http.ResponseWriter, _ *http.Request) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			list[min(n, len(list)-1)](w)
			n++
			return true
		}
	})
}

func status(code int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// TestAnswers covers what each answer means for a batch of one event.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code    int
		header  []string
		want    string // of the error
		refused bool
	}{
		{code: 200}, {code: 204}, {code: 299},
		{code: 400, want: "answers 400 Bad Request", refused: true},
		{code: 413, want: "answers 413", refused: true},
		{code: 415, want: "answers 415", refused: true},
		{code: 422, want: "answers 422", refused: true},
		{code: 401, want: "check signing_key_file and bearer_token_file"},
		{code: 403, want: "check signing_key_file and bearer_token_file"},
		{code: 404, want: "check url"}, {code: 410, want: "check url"},
		{code: 408, want: "answers 408"}, {code: 429, want: "answers 429"},
		{code: 500, want: "answers 500"}, {code: 503, want: "answers 503"},
		{code: 302, header: []string{"Location", "http://192.0.2.1/x"}, want: `redirects are not followed: set url to where the server is (it says "http://192.0.2.1/x")`},
		{code: 307, header: []string{"Location", "/elsewhere"}, want: "redirects are not followed"},
	} {
		h := answers(t, status(c.code, c.header...))
		s := New(h.config(t))
		if err := s.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := send(quickly(t), s, batch(1))
		var no *eventtap.RefusedError
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || errors.As(err, &no) != c.refused {
			t.Errorf("%d: %v", c.code, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestRetryAfter waits for as long as the server asks, and no longer than is allowed. The clock is the test's.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999999": 0, "1000000": 1000000 * time.Second,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter([]byte(in), now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	h := answers(t, status(429, "Retry-After", "3600"), status(204))
	cfg := h.config(t)
	cfg.MaxRetryAfter = 10 * time.Minute
	s := New(cfg)
	s.now = func() time.Time { return now }
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	if err := send(quickly(t), s, batch(1)); err == nil {
		t.Error("429 is a success")
	}
	if want := now.Add(10 * time.Minute); !s.notBefore.Equal(want) {
		t.Errorf("not before %v, want %v", s.notBefore, want)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(over, s, batch(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("it does not wait: %v", err)
	}
	now = now.Add(10 * time.Minute)
	if err := send(quickly(t), s, batch(1)); err != nil {
		t.Errorf("it waits for too long: %v", err)
	}
}

// TestHalves has a server that refuses some events of a batch: the others are delivered, in order.
func TestHalves(t *testing.T) {
	t.Parallel()
	h := startHook(t, nil)
	h.limit = len(batch(1).Events[0].Body)
	s := New(h.config(t))
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	b := batch(9)
	for _, i := range []int{0, 4, 5} {
		b.Events[i].Body = append(b.Events[i].Body[:len(b.Events[i].Body)-1], `,"x":"large"}`...)
	}
	err := send(quickly(t), s, b)
	var no *eventtap.RefusedError
	if !errors.As(err, &no) || fmt.Sprint(no.Events) != "[0 4 5]" || !strings.Contains(err.Error(), "413") {
		t.Errorf("%v", err)
	}
	var got []string
	for _, e := range h.events("/events") {
		got = append(got, string(sink.Decode(t, e).ID))
	}
	if fmt.Sprint(got) != "[b-2 b-3 b-4 b-7 b-8 b-9]" {
		t.Errorf("%q", got)
	}
}

// TestRequests looks at what is around an event in each mode.
func TestRequests(t *testing.T) {
	t.Parallel()
	h := startHook(t, nil)
	cfg := h.config(t)
	cfg.TokenFile = sink.WriteFile(t, "t0ken\n", 0o600)
	cfg.KeyFile = keyFile(t, []byte("the key that is to come, of 32 b"), key)
	for i, c := range []struct {
		mode Mode
		want map[string]string
	}{
		{Batched, map[string]string{"Content-Type": event.TypeJSONBatch, "Webhook-Id": "b-1+1", "Ce-Id": ""}},
		{Structured, map[string]string{"Content-Type": event.TypeJSON, "Webhook-Id": "b-1", "Ce-Id": ""}},
		{Binary, map[string]string{"Content-Type": "application/json", "Webhook-Id": "b-1", "Ce-Id": "b-1", "Ce-Specversion": "1.0",
			"Ce-Partitionkey": "k%20%22%C3%A9%25", "Ce-Type": "io.meshtap.circuit.v1"}},
	} {
		cfg.Mode = c.mode
		s := New(cfg)
		if err := s.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := send(quickly(t), s, batch(1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		got := h.requests[i]
		c.want["Authorization"] = "Bearer t0ken"
		for k, v := range c.want {
			if got.Get(k) != v {
				t.Errorf("%s: %s is %q, want %q", c.mode, k, got.Get(k), v)
			}
		}
		if n := len(strings.Fields(got.Get("Webhook-Signature"))); n != 2 {
			t.Errorf("%s: %d signatures", c.mode, n)
		}
	}
}

// TestSign holds a signature against one that was made with openssl:
// printf 'msg_1.1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a key of thirty-two bytes, or so' -binary | base64
func TestSign(t *testing.T) {
	t.Parallel()
	if got, want := sign(key, "msg_1", "1700000000", []byte(`{"a":1}`)), "v1,tOuG4EEYJHCNp3Q32zBofbhWmNjtbXCeg0kGiOa5J0k="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestFiles covers files that hold no usable secret.
func TestFiles(t *testing.T) {
	t.Parallel()
	write := func(s string) string { return sink.WriteFile(t, s, 0o600) }
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no key":                  {Config{KeyFile: "/none"}, "no such file"},
		"a key without a prefix":  {Config{KeyFile: write("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")}, "line 1 of"},
		"a short key":             {Config{KeyFile: write("whsec_c2VjcmV0")}, "24 to 64 bytes"},
		"a second line":           {Config{KeyFile: write("whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\nx")}, "line 2 of"},
		"a token with a space":    {Config{TokenFile: write("a b")}, "holds what no token may"},
		"a token for all to read": {Config{TokenFile: sink.WriteFile(t, "x", 0o644)}, "mode 0644"},
		"no authority":            {Config{TLS: &login.TLS{CAFile: "/none"}}, "no such file"},
	} {
		if err := New(c.cfg).Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestLargeHead has a server, or a proxy before it, that answers with many headers.
func TestLargeHead(t *testing.T) {
	t.Parallel()
	h := startHook(t, func(h *hook) {
		h.script = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("content-security-policy", strings.Repeat("x", 8<<10))
			return false
		}
	})
	s := New(h.config(t))
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := send(quickly(t), s, batch(1)); err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLargeAnswer has a server that answers with more than anybody wants to know.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	h := answers(t, func(w http.ResponseWriter) { fmt.Fprint(w, strings.Repeat("x", 10*maxAnswer)) })
	s := New(h.config(t))
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	for range 2 {
		if err := send(quickly(t), s, batch(3)); err != nil {
			t.Error(err)
		}
	}
}

// TestNoAnswer has a server that does not answer: the time-out, or the end of the sink, ends the wait.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := startHook(t, func(h *hook) {
		h.script = func(http.ResponseWriter, *http.Request) bool { <-release; return true }
	})
	defer close(release)
	cfg := h.config(t)
	cfg.Timeout = minTimeout
	s := New(cfg)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := send(quickly(t), s, batch(1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v", err)
	}
	cfg.Timeout = time.Hour
	s = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Open(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go s.Send(ctx, batch(1), func(err error) { done <- err })
	cancel()
	if err := <-done; err == nil {
		t.Error("it is delivered")
	}
}
