// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/test/conformance/sink"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestConformance runs the suite in each form, against a server that is killed and comes back.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"json":                func(*Config) {},
		"protobuf in batches": func(c *Config) { c.Proto, c.Batch = true, true },
		"one at a time":       func(c *Config) { c.Proto, c.InFlight = true, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink.Run(t, func(t *testing.T) sink.Bus {
				b := startBus(t, func(o *server.Options) { o.Authorization = "right" })
				cfg := b.config()
				cfg.TokenFile = sink.WriteFile(t, "right\n", 0o600)
				change(&cfg)
				return sink.Bus{
					Sink:   func(*testing.T) eventtap.Sink { return newSink(cfg) },
					Events: func(t *testing.T) [][]byte { return split(t, cfg, b.messages(t, stream, nats.Token("right"))) },
					Kill:   func(*testing.T) { b.stop() },
					Revive: b.start,
					Stranger: func(t *testing.T) eventtap.Sink {
						stranger := cfg
						stranger.TokenFile = sink.WriteFile(t, "wrong", 0o600)
						return newSink(stranger)
					},
					Narrow: narrow(cfg),
					Secure: secure,
				}
			})
		})
	}
}

// narrow returns what starts a server whose stream takes small messages only; nil with batches, which are refused whole.
func narrow(cfg Config) func(*testing.T) sink.Narrow {
	if cfg.Batch {
		return nil
	}
	return func(t *testing.T) sink.Narrow {
		b := startBus(t, nil)
		nc, js := b.connect(t)
		defer nc.Close()
		made := jetstream.StreamConfig{Name: stream, Subjects: []string{"meshtap.events.>"}, MaxMsgSize: sink.NarrowBytes}
		if _, err := js.CreateStream(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		own := cfg
		own.URLs, own.TokenFile = []string{b.url()}, ""
		return sink.Narrow{Sink: newSink(own), Events: func(t *testing.T) [][]byte { return split(t, own, b.messages(t, stream)) }}
	}
}

// secure starts a server that speaks TLS only.
func secure(t *testing.T) (*sink.Authority, func(login.TLS) eventtap.Sink) {
	ca := sink.NewAuthority(t)
	b := startBus(t, func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSTimeout, o.TLSConfig = true, true, 5, ca.Server(t)
	})
	return ca, func(files login.TLS) eventtap.Sink {
		cfg := b.config()
		cfg.TLS = &files
		return newSink(cfg)
	}
}

// split returns the events of messages, and checks what is around them.
func split(t *testing.T, c Config, messages []message) (events [][]byte) {
	t.Helper()
	for _, m := range messages {
		parts, err := event.Split(m.header.Get("Content-Type"), m.body)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, parts...)
		if c.Batch {
			continue
		}
		e := sink.Decode(t, m.body)
		key := string(appendToken(nil, e.PartitionKey))
		if want := strings.Join([]string{c.Prefix, e.Kind.String(), key}, "."); m.subject != want {
			t.Errorf("subject %s, want %s", m.subject, want)
		}
		if id := m.header.Get(jetstream.MsgIDHeader); id != string(e.ID) {
			t.Errorf("message id %s, event id %s", id, e.ID)
		}
	}
	return events
}

// TestJSONBatch is the form that the suite leaves out.
func TestJSONBatch(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	cfg := b.config()
	cfg.Batch = true
	tap := sink.NewTap(t, eventtap.DefaultMemory, newSink(cfg))
	for n := range 500 {
		tap.Observe(sink.Outcome("x", n))
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	messages := b.messages(t, stream)
	if f := sink.Read(t, split(t, cfg, messages), true); f.Came != 500 || len(messages) > 100 || messages[0].subject != "meshtap.events.batch" {
		t.Errorf("%d events in %d messages on %s", f.Came, len(messages), messages[0].subject)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"orders", "orders"},
		{"-", "-"},
		{"outbound|80||payments.shop.svc", "outbound|80||payments%2Eshop%2Esvc"},
		{"a b*c>d%e", "a%20b%2Ac%3Ed%25e"},
		{"\r\n\x00", "%0D%0A%00"},
		{"é", "%C3%A9"},
	} {
		if got := string(appendToken(nil, []byte(c.in))); got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add([]byte("outbound|80||a.b"))
	f.Fuzz(func(t *testing.T, key []byte) {
		token := string(appendToken(nil, key))
		if strings.ContainsAny(token, ".*> \t\r\n\x00") {
			t.Errorf("%q becomes %q", key, token)
		}
	})
}

// TestMissingStream has no stream, then one that somebody else made.
func TestMissingStream(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	cfg := b.config()
	cfg.Create = nil
	s := newSink(cfg)
	if err := s.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "EVENTS does not exist") {
		t.Errorf("%v", err)
	}
	nc, js := b.connect(t)
	defer nc.Close()
	made := jetstream.StreamConfig{Name: stream, Subjects: []string{"meshtap.events.>"}, MaxMsgSize: 400}
	if _, err := js.CreateStream(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := js.Stream(t.Context(), stream)
	if err != nil || info.CachedInfo().Config.MaxMsgSize != 400 {
		t.Errorf("the stream was changed: %+v, %v", info.CachedInfo().Config, err)
	}
}

// TestCreatedStream reads back the limits of a stream that the sink made.
func TestCreatedStream(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	cfg := b.config()
	cfg.Create = &Create{MaxBytes: 1 << 20, MaxAge: 3600e9, Duplicates: 60e9, Replicas: 1, InMemory: true}
	s := newSink(cfg)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	nc, js := b.connect(t)
	defer nc.Close()
	st, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	if c.MaxBytes != 1<<20 || c.MaxAge != 3600e9 || c.Duplicates != 60e9 || c.Storage != jetstream.MemoryStorage ||
		len(c.Subjects) != 1 || c.Subjects[0] != "meshtap.events.>" || c.Discard != jetstream.DiscardOld {
		t.Errorf("%+v", c)
	}
}

// TestOtherStream has the subjects bound to another stream: nothing is published there.
func TestOtherStream(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	nc, js := b.connect(t)
	defer nc.Close()
	for name, subject := range map[string]string{stream: "elsewhere", "OTHER": "meshtap.events.>"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
	}
	s := newSink(b.config())
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	done := make(chan error, 1)
	s.Send(t.Context(), oneEvent(), func(err error) { done <- err })
	if err := <-done; err == nil {
		t.Error("the event went to a stream that was not asked for")
	}
	if got := b.messages(t, "OTHER"); len(got) != 0 {
		t.Errorf("%d messages", len(got))
	}
}

// TestSendsOnlyWhatIsMissing has a stream that takes one class only: when the batch comes again, what was acknowledged is
// not published again.
func TestSendsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	nc, js := b.connect(t)
	defer nc.Close()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{"meshtap.events.circuit.>"}}); err != nil {
		t.Fatal(err)
	}
	wire, err := nc.SubscribeSync("meshtap.events.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.AckTimeout = minAckTimeout
	s := newSink(cfg)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	batch := oneEvent()
	nobody := oneEvent().Events[0]
	nobody.ID, nobody.Kind = []byte("b-2"), event.Health
	batch.Events = append(batch.Events, nobody)
	done := make(chan error, 1)
	for range 2 {
		s.Send(t.Context(), batch, func(err error) { done <- err })
		if err := <-done; err == nil {
			t.Error("an event that no stream takes is acknowledged")
		}
	}
	var got []string
	for range 3 {
		m, err := wire.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Header.Get(jetstream.MsgIDHeader))
	}
	if strings.Join(got, " ") != "b-1 b-2 b-2" {
		t.Errorf("published were %q", got)
	}
}

// TestNothingOvertakesAConnection sends while it is not known what became of a batch that went out on an earlier
// connection.
func TestNothingOvertakesAConnection(t *testing.T) {
	t.Parallel()
	s := newSink(startBus(t, nil).config())
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	done := make(chan error, 1)
	send := func(b *eventtap.Batch) error {
		s.Send(t.Context(), b, func(err error) { done <- err })
		return <-done
	}
	if err := send(oneEvent()); err != nil {
		t.Fatal(err)
	}
	s.unknown.Add(1)
	if err := send(oneEvent()); err != nil {
		t.Errorf("on the same connection: %v", err)
	}
	s.conns++ // as if the one that is there were another
	failed := oneEvent()
	if err := send(failed); !errors.Is(err, errAnew) {
		t.Errorf("on another connection: %v", err)
	}
	if err := send(oneEvent()); !errors.Is(err, eventtap.ErrBehind) {
		t.Errorf("behind one that failed: %v", err)
	}
	s.unknown.Add(-1)
	if err := send(failed); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

func oneEvent() *eventtap.Batch {
	var e event.Event
	e.Reset(event.Circuit)
	e.ID, e.Source, e.PartitionKey, e.Sequence = []byte("b-1"), []byte("/s"), []byte("k"), 1
	return &eventtap.Batch{Events: []eventtap.Event{{ID: e.ID, Key: e.PartitionKey, Kind: e.Kind, Body: e.AppendJSON(nil)}}}
}

// TestBatchNeedsRoom has a server whose messages are too small for batches.
func TestBatchNeedsRoom(t *testing.T) {
	t.Parallel()
	b := startBus(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	cfg := b.config()
	cfg.Batch = true
	if err := newSink(cfg).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "max_payload is 65536") {
		t.Errorf("%v", err)
	}
}

// TestLoginRevoked changes the credentials under a live connection: the server ends it, the sink says that it has to be
// opened again, and with the new secret in the file that succeeds.
func TestLoginRevoked(t *testing.T) {
	t.Parallel()
	b := startBus(t, func(o *server.Options) { o.Username, o.Password = "tap", "old" })
	cfg := b.config()
	cfg.User, cfg.PasswordFile = "tap", sink.WriteFile(t, "old\n", 0o640)
	s := newSink(cfg)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := s.conn.StatusChanged(nats.CLOSED)
	b.stop()
	b.opts.Password = "new"
	b.start(t)
	<-gone
	done := make(chan error, 1)
	s.Send(t.Context(), oneEvent(), func(err error) { done <- err })
	if err := <-done; !errors.Is(err, eventtap.ErrReopen) {
		t.Errorf("%v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	s.cfg.PasswordFile = sink.WriteFile(t, "new\n", 0o640)
	if err := s.Open(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSecrets covers files that hold no usable secret.
func TestSecrets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, want string }{
		"missing":        {t.TempDir() + "/none", "no such file"},
		"empty":          {sink.WriteFile(t, "\n", 0o600), "is empty"},
		"open to others": {sink.WriteFile(t, "x", 0o644), "mode 0644"},
	} {
		for _, cfg := range []Config{{TokenFile: c.path}, {User: "u", PasswordFile: c.path}, {CredentialsFile: c.path}} {
			cfg.URLs = []string{"nats://127.0.0.1:1"}
			if err := newSink(cfg).Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
}

// TestHeaders reads one message as a consumer without any of our code would.
func TestHeaders(t *testing.T) {
	t.Parallel()
	b := startBus(t, nil)
	tap := sink.NewTap(t, eventtap.DefaultMemory, newSink(b.config()))
	tap.Observe(sink.Outcome("orders", 7))
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := b.messages(t, stream)
	if len(got) != 1 || got[0].subject != "meshtap.events.outcome.orders" {
		t.Fatalf("%+v", got)
	}
	var ce struct {
		ID, Type, Sequence, StreamSeq string
		Data                          map[string]any
	}
	if err := json.Unmarshal(got[0].body, &ce); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(ce.Data["http.response.status_code"]) != "200" || ce.Type != "io.meshtap.outcome.v1" ||
		ce.Sequence != "00000000000000000001" || ce.StreamSeq != ce.Sequence || got[0].header.Get("Nats-Msg-Id") != ce.ID {
		t.Errorf("%+v, headers %v", ce, got[0].header)
	}
}
