// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/zmtp"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestConformance runs the suite with a DEALER, which loses nothing.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		proto bool
		every uint64
	}{"json": {false, 1}, "protobuf": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink.Run(t, func(t *testing.T) sink.Bus {
				r := startRouter(t, zmtp.Config{User: "tap", Password: "right"}, c.every)
				cfg := config(Dealer)
				cfg.Connect, cfg.Proto = []string{r.addr}, c.proto
				cfg.User, cfg.PasswordFile = "tap", sink.WriteFile(t, "right\n", 0o600)
				return sink.Bus{
					Sink:   func(*testing.T) eventtap.Sink { return newSink(cfg) },
					Events: r.events, Kill: r.stop, Revive: r.start,
					Stranger: func(t *testing.T) eventtap.Sink {
						stranger := cfg
						stranger.PasswordFile = sink.WriteFile(t, "wrong", 0o600)
						return newSink(stranger)
					},
				}
			})
		})
	}
}

// TestConformanceCurve runs the suite with a DEALER over CURVE. Its stranger is one whose key the peer does not know.
func TestConformanceCurve(t *testing.T) {
	t.Parallel()
	sink.Run(t, func(t *testing.T) sink.Bus {
		server, mine, another := newKey(), newKey(), newKey()
		r := startRouter(t, zmtp.Config{Curve: &zmtp.Curve{Secret: server, Clients: []zmtp.Key{mine.Public()}}}, 1)
		with := func(server, mine zmtp.Key) *Sink {
			cfg := config(Dealer)
			cfg.Connect = []string{r.addr}
			cfg.Curve = &Curve{SecretFile: sink.WriteFile(t, fmt.Sprintf("%x\n", mine[:]), 0o600), Server: server.Public()}
			return newSink(cfg)
		}
		if err := sink.Try(t, with(another, mine)); err == nil || !strings.Contains(err.Error(), "it was told another CURVE key") {
			t.Errorf("with another key of the peer: %v", err)
		}
		return sink.Bus{
			Sink:   func(*testing.T) eventtap.Sink { return with(server, mine) },
			Events: r.events, Kill: r.stop, Revive: r.start,
			Stranger: func(*testing.T) eventtap.Sink { return with(server, another) },
		}
	})
}

// newKey returns a secret key.
func newKey() (k zmtp.Key) {
	_, _ = rand.Read(k[:])
	return k
}

// TestCurveBound has a sink that listens let in the peer that it knows, and no other. Frames as large as events are go through.
func TestCurveBound(t *testing.T) {
	t.Parallel()
	server, known := newKey(), newKey()
	cfg := config(Push)
	cfg.Curve = &Curve{SecretFile: sink.WriteFile(t, fmt.Sprintf("%x", server[:]), 0o600), Clients: []zmtp.Key{known.Public()}}
	s := open(t, cfg)
	dial := func(secret zmtp.Key) (*remote, error) {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return meet(t, c, "PULL", zmtp.Config{Curve: &zmtp.Curve{Secret: secret, Server: server.Public()}})
	}
	if _, err := dial(newKey()); err == nil || !strings.Contains(err.Error(), "its CURVE key is not among those that are let in") {
		t.Errorf("a stranger: %v", err)
	}
	p, err := dial(known)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	until(t, "the peer is there", s.has(1))
	b := batch(1, 1, "k")
	b.Events[0].Body = bytes.Repeat([]byte("x"), event.MaxSize)
	if err := send(t, s, b); err != nil {
		t.Fatal(err)
	}
	if m, err := p.receive(); err != nil || len(m) != 3 || !bytes.Equal(m[2], b.Events[0].Body) {
		t.Errorf("%d parts, %v", len(m), err)
	}
}

// TestCurveSecret does not open with a file that holds no key, and does not say what is in it.
func TestCurveSecret(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"no file":        {"/nowhere/at/all", "no such file"},
		"no key":         {sink.WriteFile(t, "hush", 0o600), "a key of CURVE is 40 characters"},
		"open to others": {sink.WriteFile(t, strings.Repeat("0", 64), 0o644), "mode 0644"},
	} {
		cfg := config(Pub)
		cfg.Bind, cfg.Curve = "127.0.0.1:0", &Curve{SecretFile: c.file}
		if err := newSink(cfg).Open(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestKilledUnderLoad ends the DEALER's peer again and again; see sink.KillUnderLoad.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	r := startRouter(t, zmtp.Config{}, 1)
	cfg := config(Dealer)
	cfg.Connect = []string{r.addr}
	sink.KillUnderLoad(t, sink.Killable{Sink: newSink(cfg), Kill: r.stop, Revive: r.start, Events: r.events, Repeats: true, Rounds: 4, Missed: 2000})
}

// open opens a bound sink.
func open(t *testing.T, c Config) *Sink {
	t.Helper()
	c.Bind = "127.0.0.1:0"
	s := newSink(c)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	return s
}

// until waits for a state that nothing tells of.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("this does not happen: " + what)
		}
	}
}

func (s *Sink) subscribed(n int) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got := 0
		for _, p := range s.peers {
			p.mu.Lock()
			got += len(p.topics)
			p.mu.Unlock()
		}
		return got == n
	}
}

// has tells whether n peers get events.
func (s *Sink) has(n int) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.peers) == n
	}
}

func batch(from, n int, key string) *eventtap.Batch {
	b := &eventtap.Batch{}
	for i := range n {
		var e event.Event
		e.Reset(event.Circuit)
		e.ID, e.Source, e.PartitionKey = fmt.Appendf(nil, "b-%d", from+i), []byte("/s"), []byte(key)
		e.Sequence, e.StreamSeq = uint64(from+i), uint64(from+i)
		b.Events = append(b.Events, eventtap.Event{ID: e.ID, Key: e.PartitionKey, Kind: e.Kind, Body: e.AppendJSON(nil)})
	}
	return b
}

func send(t *testing.T, s *Sink, b *eventtap.Batch) error {
	t.Helper()
	done := make(chan error, 1)
	s.Send(t.Context(), b, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(60 * time.Second):
		t.Fatal("done was not called")
		return nil
	}
}

// TestSubscriptions has subscribers of both versions of the protocol, one of whom changes its mind.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	s := open(t, config(Pub))
	all, some := dialPeer(t, s, "SUB"), dialPeer(t, s, "SUB")
	if _, err := all.Write(zmtp.AppendFrame(nil, []byte("\x01"), false)); err != nil { // as ZMTP 3.0 does
		t.Fatal(err)
	}
	some.command(zmtp.Subscribe, "meshtap.events.circuit.a")
	until(t, "both subscribe", s.subscribed(2))
	allGot, someGot := collect(all), collect(some)
	for i, key := range []string{"a", "b", "ab"} {
		if err := send(t, s, batch(i+1, 1, key)); err != nil {
			t.Fatal(err)
		}
	}
	some.command(zmtp.Cancel, "meshtap.events.circuit.a")
	until(t, "one unsubscribes", s.subscribed(1))
	if err := send(t, s, batch(4, 1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-allGot.done
	<-someGot.done
	topics := func(keys ...string) (out []string) {
		for _, k := range keys {
			out = append(out, "meshtap.events.circuit."+k)
		}
		return out
	}
	if want := topics("a", "b", "ab", "a"); !slices.Equal(allGot.topics, want) {
		t.Errorf("%q, want %q", allGot.topics, want)
	}
	if want := topics("a", "ab"); !slices.Equal(someGot.topics, want) {
		t.Errorf("%q, want %q", someGot.topics, want)
	}
}

// TestSlowSubscriber has one that does not read: its drops are counted, the other misses nothing, memory is bounded.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	cfg := config(Pub)
	cfg.PeerBytes, cfg.Heartbeat = 1<<20, time.Minute
	s := open(t, cfg)
	slow, quick := dialPeer(t, s, "SUB"), dialPeer(t, s, "SUB")
	slow.command(zmtp.Subscribe, "")
	quick.command(zmtp.Subscribe, "")
	until(t, "both subscribe", s.subscribed(2))
	sent := 0
	for s.Dropped() < 100 {
		if err := send(t, s, batch(sent+1, 64, "k")); err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if _, err := quick.receive(); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	s.mu.Lock()
	p := s.peers[0]
	s.mu.Unlock()
	p.mu.Lock()
	held := len(p.buf) + p.writing
	p.mu.Unlock()
	if p.drops.Load() != s.Dropped() || held > cfg.PeerBytes {
		t.Errorf("%d dropped for the slow one of %d, %d bytes are held", p.drops.Load(), s.Dropped(), held)
	}
	slow.Close()
}

// TestPush spreads events over two peers, and does without one that goes.
func TestPush(t *testing.T) {
	t.Parallel()
	s := open(t, config(Push))
	first := batch(1, 10, "k")
	if err := send(t, s, first); err == nil || !strings.Contains(err.Error(), "no peer is connected") {
		t.Errorf("%v", err)
	}
	a, b := dialPeer(t, s, "PULL"), dialPeer(t, s, "PULL")
	until(t, "both are there", s.has(2))
	aGot := collect(a)
	if err := send(t, s, first); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := b.receive(); err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	until(t, "one goes", s.has(1))
	if err := send(t, s, batch(11, 10, "k")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if <-aGot.done; len(aGot.stored) != 15 {
		t.Errorf("%d events", len(aGot.stored))
	}
}

// TestStandBy has two ROUTERs: what the first did not acknowledge goes to the second when it ends.
func TestStandBy(t *testing.T) {
	t.Parallel()
	s := open(t, config(Dealer))
	first := dialPeer(t, s, "ROUTER")
	until(t, "the first is there", s.has(1)) // and is the first
	second := dialPeer(t, s, "ROUTER")
	b := batch(1, 3, "k")
	done := make(chan error, 1)
	s.Send(t.Context(), b, func(err error) { done <- err })
	for i := range 3 {
		m, err := first.receive()
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 { // which means the first as well
			if err := first.acknowledge(m[0], 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "two are acknowledged", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.peers[0].mu.Lock()
		defer s.peers[0].mu.Unlock()
		return s.peers[0].acked == 2
	})
	first.Close()
	if err := <-done; err == nil || !b.Events[0].Sent || !b.Events[1].Sent || b.Events[2].Sent {
		t.Errorf("%v, %+v", err, b.Events)
	}
	s.Send(t.Context(), b, func(err error) { done <- err })
	m, err := second.receive()
	if err != nil || string(m[4]) != string(b.Events[2].Body) {
		t.Fatalf("%q, %v", m, err)
	}
	if err := second.acknowledge(m[0], 1); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestBadAcknowledgements has peers that acknowledge what they cannot have.
func TestBadAcknowledgements(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ack  func(session []byte) [][]byte
		want string
	}{
		"too high":  {func(s []byte) [][]byte { return [][]byte{s, []byte("\x00\x00\x00\x00\x00\x00\x00\x09")} }, "number 9, which was not sent"},
		"too short": {func(s []byte) [][]byte { return [][]byte{s, []byte("\x01")} }, "two parts of 8 bytes"},
		"one part":  {func(s []byte) [][]byte { return [][]byte{s} }, "two parts of 8 bytes"},
		"many":      {func(s []byte) [][]byte { return [][]byte{s, s, s, s} }, "has two parts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, config(Dealer))
			p := dialPeer(t, s, "ROUTER")
			done := make(chan error, 1)
			until(t, "the peer is there", s.has(1))
			s.Send(t.Context(), batch(1, 1, "k"), func(err error) { done <- err })
			m, err := p.receive()
			if err != nil {
				t.Fatal(err)
			}
			parts := c.ack(m[0])
			var out []byte
			for i, part := range parts {
				out = zmtp.AppendFrame(out, part, i < len(parts)-1)
			}
			if _, err := p.Write(out); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestSilence has peers that answer no PING, or acknowledge nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	cfg := config(Dealer)
	cfg.Heartbeat = 100 * time.Millisecond
	s := open(t, cfg)
	dialPeer(t, s, "ROUTER")
	s2 := open(t, func() Config { c := cfg; c.AckTimeout = 100 * time.Millisecond; return c }())
	alive := dialPeer(t, s2, "ROUTER")
	go func() {
		for {
			if _, err := alive.receive(); err != nil {
				return
			}
		}
	}()
	for _, s := range []*Sink{s, s2} {
		done := make(chan error, 1)
		until(t, "it is sent", func() bool {
			s.Send(t.Context(), batch(1, 1, "k"), func(err error) { done <- err })
			select {
			case err := <-done:
				return errors.Is(err, errSilent)
			case <-time.After(10 * time.Second):
				return false
			}
		})
	}
}

// TestBounds turns away who is one too many, who subscribes to too much, and who is no peer at all.
func TestBounds(t *testing.T) {
	t.Parallel()
	cfg := config(Pub)
	cfg.MaxPeers = 1
	s := open(t, cfg)
	p := dialPeer(t, s, "SUB")
	for i := range maxSubscriptions {
		p.command(zmtp.Subscribe, fmt.Sprint("topic-", i))
	}
	until(t, "all are subscribed", s.subscribed(maxSubscriptions))
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meet(t, c, "SUB", zmtp.Config{}); err == nil {
		t.Error("a second peer was let in")
	}
	p.command(zmtp.Subscribe, "one more")
	if _, err := p.receive(); err == nil {
		t.Error("there are more subscriptions than are allowed")
	}
	until(t, "it is gone", s.subscribed(0))
	if c, err = net.Dial("tcp", s.Addr()); err != nil {
		t.Fatal(err)
	}
	pull, err := meet(t, c, "PULL", zmtp.Config{})
	if err == nil { // the sink has said READY before it hears who it is
		_, err = pull.receive()
	}
	if err == nil {
		t.Error("a PULL was let in")
	}
}
