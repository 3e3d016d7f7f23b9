// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
)

// These tests have no broker: they say what the client would tell, and hold what becomes of batches. Those with a broker
// are in test/buses, since no honest one runs in a process of Go's.

func newSink(c Config) *Sink {
	return New(c, eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }})
}

func event1(key string) *eventtap.Event {
	return &eventtap.Event{ID: []byte("b-1"), Key: []byte(key), Kind: event.Request}
}

// script is a link whose broker is the test.
type script struct {
	*link
	s *Sink
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := newSink(Config{InFlight: 2, AckTimeout: time.Hour, Exchange: "x"})
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	s.link = &link{s: s, raw: here, gone: make(chan struct{}),
		confirms: make(chan amqp091.Confirmation, maxPending), returns: make(chan amqp091.Return, maxPending),
		closes: make(chan *amqp091.Error, 2), blocks: make(chan amqp091.Blocking, 4)}
	return &script{s: s, link: s.link}
}

// batch is one of so many events that are published and not confirmed.
func (x *script) batch(name string, n int) (*eventtap.Batch, chan error) {
	b := &eventtap.Batch{}
	done := make(chan error, 1)
	f := &flight{s: x.s, link: x.link, batch: b, done: func(err error) { done <- err }, left: n}
	if err := x.s.order.Begin(b); err != nil {
		panic(err)
	}
	for i := range n {
		b.Events = append(b.Events, eventtap.Event{ID: fmt.Appendf(nil, "%s-%d", name, i)})
		x.pending = append(x.pending, slot{f, i})
	}
	return b, done
}

func sent(b *eventtap.Batch) (out []bool) {
	for _, e := range b.Events {
		out = append(out, e.Sent)
	}
	return out
}

func TestConfirms(t *testing.T) {
	t.Parallel()
	x := newScript(t)
	a, aDone := x.batch("a", 2)
	b, bDone := x.batch("b", 3)
	for tag := range uint64(5) {
		if tag == 3 {
			x.returns <- amqp091.Return{MessageId: "b-1", ReplyCode: 312, ReplyText: "NO_ROUTE", Exchange: "x", RoutingKey: "k"}
		}
		x.takeReturns()
		x.confirm(amqp091.Confirmation{DeliveryTag: tag + 1, Ack: true})
	}
	if err := <-aDone; err != nil || !slices.Equal(sent(a), []bool{true, true}) {
		t.Errorf("%v, %v", err, sent(a))
	}
	var no *eventtap.RefusedError
	if err := <-bDone; !errors.As(err, &no) || !slices.Equal(no.Events, []int{1}) || !strings.Contains(err.Error(), "NO_ROUTE") {
		t.Errorf("%v", err)
	}
	if !slices.Equal(sent(b), []bool{true, false, true}) {
		t.Errorf("%v", sent(b))
	}
}

// TestNack has a broker that cannot take one message: its batch comes again, without what it did take, and nothing is sent
// before it is known what became of the others.
func TestNack(t *testing.T) {
	t.Parallel()
	x := newScript(t)
	a, aDone := x.batch("a", 3)
	_, bDone := x.batch("b", 1)
	for tag := range uint64(3) {
		x.confirm(amqp091.Confirmation{DeliveryTag: tag + 1, Ack: tag != 1})
	}
	if err := <-aDone; !errors.Is(err, errNack) || errors.Is(err, eventtap.ErrReopen) || !slices.Equal(sent(a), []bool{true, false, true}) {
		t.Errorf("%v, %v", err, sent(a))
	}
	behind := make(chan error, 1)
	x.s.Send(t.Context(), a, func(err error) { behind <- err })
	if err := <-behind; !errors.Is(err, eventtap.ErrBehind) {
		t.Errorf("%v", err)
	}
	x.confirm(amqp091.Confirmation{DeliveryTag: 4, Ack: true})
	if err := <-bDone; err != nil {
		t.Error(err)
	}
}

// TestNothingButNacks has a broker that takes nothing any more over one connection: it is given up, and not before time.
func TestNothingButNacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newScript(t)
		const timeout = 5 * time.Second
		x.s.cfg.AckTimeout = timeout
		_, done := x.batch("a", 7)
		tag := uint64(0)
		for _, step := range []struct {
			after time.Duration
			ack   bool
			gone  bool
		}{{0, false, false}, {timeout, false, false}, {0, true, false}, {timeout, false, false}, {timeout, false, false}, {1, false, true}} {
			time.Sleep(step.after)
			tag++
			x.confirm(amqp091.Confirmation{DeliveryTag: tag, Ack: step.ack})
			if err := x.cause(); (err != nil) != step.gone {
				t.Fatalf("after confirmation %d the connection is gone for %v", tag, err)
			}
		}
		x.fail() // as watch does, once the connection is closed
		if err := <-done; !errors.Is(err, eventtap.ErrReopen) || !errors.Is(err, errNack) {
			t.Errorf("%v", err)
		}
	})
}

// TestConnectionGone ends a connection with messages that are not confirmed, for a reason that tells how large one may be.
func TestConnectionGone(t *testing.T) {
	t.Parallel()
	x := newScript(t)
	a, done := x.batch("a", 2)
	x.confirm(amqp091.Confirmation{DeliveryTag: 1, Ack: true})
	x.closes <- &amqp091.Error{Code: 406, Reason: "PRECONDITION_FAILED - message size 5000 is larger than configured max size 1800"}
	x.fail()
	if err := <-done; !errors.Is(err, eventtap.ErrReopen) || !strings.Contains(err.Error(), "max size 1800") || !slices.Equal(sent(a), []bool{true, false}) {
		t.Errorf("%v, %v", err, sent(a))
	}
	if err := x.s.fits(make([]byte, 1800)); err != nil {
		t.Error(err)
	}
	if err := x.s.fits(make([]byte, 1801)); err == nil || !strings.Contains(err.Error(), "at most 1800") {
		t.Errorf("%v", err)
	}
	if err := x.admitted(t.Context()); err == nil {
		t.Error("a link that is gone lets publish")
	}
}

// TestBlocked has a broker that lets nobody publish for a while.
func TestBlocked(t *testing.T) {
	t.Parallel()
	x := newScript(t)
	x.watching.Go(x.watchBlocked)
	x.blocks <- amqp091.Blocking{Active: true, Reason: "low on disk"}
	for {
		x.mu.Lock()
		blocked := x.blocked
		x.mu.Unlock()
		if blocked != nil {
			break
		}
		time.Sleep(time.Microsecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	admitted := make(chan error, 1)
	go func() { admitted <- x.admitted(ctx) }()
	cancel()
	if err := <-admitted; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	go func() { admitted <- x.admitted(t.Context()) }()
	x.blocks <- amqp091.Blocking{}
	if err := <-admitted; err != nil {
		t.Errorf("%v", err)
	}
	close(x.blocks)
	x.watching.Wait()
}

// unconfirmed is a dead letter, answered when its channel is closed.
type unconfirmed struct {
	done chan struct{}
	ack  bool
}

func (u unconfirmed) Done() <-chan struct{} { return u.done }
func (u unconfirmed) Acked() bool           { return u.ack }

// TestDeadLetters has a broker that confirms dead letters, or does not, or is silent.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	close(closed)
	x := newScript(t)
	if err := x.buried(unconfirmed{closed, true}); err != nil {
		t.Error(err)
	}
	if err := x.buried(unconfirmed{closed, false}); err == nil || !strings.Contains(err.Error(), "did not confirm") {
		t.Errorf("%v", err)
	}
	x.s.cfg.AckTimeout = time.Millisecond
	if err := x.buried(unconfirmed{make(chan struct{}), false}); !errors.Is(err, errSilent) || !errors.Is(x.cause(), errSilent) {
		t.Errorf("%v, the link is gone for %v", err, x.cause())
	}
}

func TestRoutingKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ template, key, want string }{
		{defaultKey, "orders", "outcome.orders"},
		{defaultKey, "outbound|80||payments.shop.svc", "outcome.outbound|80||payments%2Eshop%2Esvc"},
		{"{key}", "a b*c#d%\x00é", "a%20b%2Ac%23d%25%00%C3%A9"},
		{"all", "orders", "all"},
		{"x.{class}.y.{key}.z.{class}", "k", "x.outcome.y.k.z.outcome"},
	} {
		if got := newSink(Config{RoutingKey: c.template}).keyOf(event1(c.key)); got != c.want {
			t.Errorf("%s of %q: %s, want %s", c.template, c.key, got, c.want)
		}
	}
}

// TestMessage reads messages as a consumer without any of our code would.
func TestMessage(t *testing.T) {
	t.Parallel()
	var e event.Event
	e.Reset(event.Circuit)
	e.ID, e.Source, e.PartitionKey, e.Sequence = []byte("b-1"), []byte("/s"), []byte("k"), 1
	one := &eventtap.Event{ID: e.ID, Key: e.PartitionKey, Kind: e.Kind, Body: e.AppendJSON(nil)}
	m, err := newSink(Config{}).message(one)
	if err != nil || m.ContentType != "application/json" || m.MessageId != "b-1" || m.DeliveryMode != amqp091.Persistent || string(m.Body) != "{}" {
		t.Errorf("%+v, %v", m, err)
	}
	for name, want := range map[string]string{"cloudEvents_id": "b-1", "cloudEvents_specversion": "1.0", "cloudEvents_source": "/s",
		"cloudEvents_type": "io.meshtap.circuit.v1", "cloudEvents_sequence": "00000000000000000001"} {
		if m.Headers[name] != want {
			t.Errorf("%s is %v", name, m.Headers[name])
		}
	}
	if m, err = newSink(Config{Structured: true}).message(one); err != nil || m.ContentType != event.TypeJSON || m.Headers != nil || string(m.Body) != string(one.Body) {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestNobodyThere has no server.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	s := newSink(Config{Servers: []Server{{Address: "127.0.0.1:1"}, {Address: "127.0.0.1:2", Secure: true}}})
	err := s.Open(t.Context())
	if err == nil || strings.Count(err.Error(), "connection refused") != 2 {
		t.Errorf("%v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
