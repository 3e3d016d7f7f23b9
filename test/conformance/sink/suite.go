// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink/cloudevents"
)

// Bus is one empty bus with a sink that writes to it.
type Bus struct {
	Sink func(t *testing.T) eventtap.Sink
	// Events returns what the bus holds now, in its order, each event in the sink's form.
	Events func(t *testing.T) [][]byte
	// Kill makes the bus fail, and Revive makes it work again with everything it had; nil where it cannot fail.
	Kill, Revive func(t *testing.T)
	// Stranger returns a sink whose credentials the bus refuses; nil where a bus has none.
	Stranger func(t *testing.T) eventtap.Sink
	// Patient says that the runner sends nothing again before the bus is back: the sink repeats by itself what failed, or
	// must be opened anew.
	Patient bool
	// Narrow starts a bus of its own that never takes an event of more than NarrowBytes; nil where there is no such bus.
	Narrow func(t *testing.T) Narrow
	// Secure starts a bus of its own that speaks TLS only, with certificates of an authority, and returns what makes sinks
	// for it; nil where a bus has no TLS.
	Secure func(t *testing.T) (a *Authority, sink func(login.TLS) eventtap.Sink)
}

// NarrowBytes is what an event may take on a Narrow bus, everything included.
const NarrowBytes = 1800

// Narrow is a bus that refuses large events for good.
type Narrow struct {
	Sink eventtap.Sink
	// Events returns what the bus holds, Dead what was refused; Dead is nil where such events are counted and gone.
	Events, Dead func(t *testing.T) [][]byte
}

// deadline ends a test that hangs.
const deadline = 60 * time.Second

// Run runs the suite. start makes a new bus for each test.
func Run(t *testing.T, start func(t *testing.T) Bus) { runAll(t, start, (*testing.T).Parallel) }

// RunShared runs the suite one test at a time, over buses that are one server.
func RunShared(t *testing.T, start func(t *testing.T) Bus) { runAll(t, start, func(*testing.T) {}) }

func runAll(t *testing.T, start func(t *testing.T) Bus, before func(*testing.T)) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Bus)
	}{
		{"delivers in order per key", testDelivery},
		{"sends again what was sent, once", testRepeat},
		{"takes the largest event", testLargest},
		{"flushes on close", testClose},
		{"loses nothing over an outage", testOutage},
		{"drops what the memory cannot hold, and says so", testBackPressure},
		{"is refused with wrong credentials", testStranger},
		{"puts what is refused for good aside, and counts it", testNarrow},
		{"does TLS with whom it trusts alone", testSecure},
	} {
		t.Run(c.name, func(t *testing.T) {
			before(t)
			c.run(t, start(t))
		})
	}
}

// NewTap makes a tap with one sink, named "bus".
func NewTap(t testing.TB, memory int, s eventtap.Sink) *eventtap.Tap {
	t.Helper()
	tap, err := eventtap.New(
		eventtap.Config{Memory: memory, Sinks: []eventtap.SinkConfig{{Name: "bus", TypeURL: "test"}}},
		eventtap.Deps{
			Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)), Stats: stats.NewRegistry(stats.Options{}),
			Node: mesh.Node{ID: "proxy", Cluster: "test"}, Random: rand.Reader,
			Builders: map[string]eventtap.SinkBuilder{
				"test": func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return s, nil },
			},
		})
	if err != nil {
		t.Fatal(err)
	}
	return tap
}

// Outcome is a request to a cluster; its connection id is n, to find it again.
func Outcome(cluster string, n int) *mesh.Outcome {
	return &mesh.Outcome{Start: time.Now().UnixNano(), Duration: 1e6, Cluster: cluster, ConnectionID: uint64(n),
		Method: []byte("GET"), RouteTemplate: "/", Status: 200, Attempts: 1}
}

// closeTap closes the tap, and holds its account.
func closeTap(t *testing.T, tap *eventtap.Tap) eventtap.SinkAccount {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := tap.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return Check(t, tap)
}

// Check holds the identity of the account, and returns the sink's.
func Check(t *testing.T, tap *eventtap.Tap) eventtap.SinkAccount {
	t.Helper()
	s := tap.Account().Sinks[0]
	sum := s.Acked + s.Pending
	for _, n := range s.Dropped {
		sum += n
	}
	if sum != s.Produced {
		t.Errorf("produced %d, but acked %d + pending %d + dropped %v = %d", s.Produced, s.Acked, s.Pending, s.Dropped, sum)
	}
	return s
}

// Decode reads an event in either encoding.
func Decode(t *testing.T, b []byte) *event.Event {
	t.Helper()
	e := new(event.Event)
	if len(b) > 0 && b[0] == '{' {
		if err := cloudevents.CheckJSON(b); err != nil {
			t.Fatalf("%v\n%q", err, b)
		}
		if err := e.DecodeJSON(b); err != nil {
			t.Fatalf("%v\n%q", err, b)
		}
	} else if err := e.DecodeProto(b); err != nil {
		t.Fatalf("%v\n%q", err, b)
	}
	return e
}

// Found is what a stream holds.
type Found struct {
	// Came counts events with a number, each once; Repeats those that came again; Lost those that lost events tell of.
	Came, Repeats, Lost uint64
	Reasons             map[string]uint64
}

// Read holds a stream against the tap's promises: numbers rise for each key, no number is there twice on a bus that
// drops repeats, and each gap is what the lost events say.
func Read(t *testing.T, bodies [][]byte, dedupe bool) Found {
	t.Helper()
	f := Found{Reasons: map[string]uint64{}}
	seen := map[string]bool{}
	last := map[string]uint64{}
	var most uint64
	for _, b := range bodies {
		e := Decode(t, b)
		if seen[string(e.ID)] {
			f.Repeats++
			continue
		}
		seen[string(e.ID)] = true
		if e.Kind == event.Lost {
			n := e.Uint(event.Count)
			f.Lost += n
			f.Reasons[string(e.Texts[event.Reason])] += n
			continue
		}
		f.Came++
		most = max(most, e.StreamSeq)
		key := string(e.PartitionKey)
		if e.StreamSeq <= last[key] {
			t.Fatalf("key %s: number %d after %d", key, e.StreamSeq, last[key])
		}
		last[key] = e.StreamSeq
	}
	if dedupe && f.Repeats > 0 {
		t.Errorf("%d events came again", f.Repeats)
	}
	if most > f.Came+f.Lost {
		t.Errorf("the last number is %d, %d came and %d are told to be lost", most, f.Came, f.Lost)
	}
	return f
}

func testDelivery(t *testing.T, b Bus) {
	s := b.Sink(t)
	tap := NewTap(t, eventtap.DefaultMemory, s)
	const keys, each = 7, 150
	for n := range each {
		for k := range keys {
			tap.Observe(Outcome(fmt.Sprintf("outbound|80||svc-%d.shop *>", k), n))
		}
		if n%50 == 0 {
			tap.Notify(&mesh.Notice{Kind: mesh.NoticeStart, Time: time.Now().UnixNano()})
		}
	}
	a := closeTap(t, tap)
	f := Read(t, b.Events(t), s.Caps().Dedupe)
	if want := uint64(keys*each + 3); f.Came != want || a.Acked != want || f.Lost != 0 {
		t.Errorf("%d came, %d are acknowledged, %d lost; %d were produced", f.Came, a.Acked, f.Lost, want)
	}
}

// testRepeat sends one batch twice, as a runner does whose acknowledgement was lost.
func testRepeat(t *testing.T, b Bus) {
	s := b.Sink(t)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	batch := sampleBatch(s.Caps())
	for range 2 {
		for i := range batch.Events {
			batch.Events[i].Sent = false
		}
		if err := send(t, s, batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := uint64(len(batch.Events))
	f := Read(t, b.Events(t), s.Caps().Dedupe)
	if f.Came != want || !s.Caps().Dedupe && f.Repeats != want {
		t.Errorf("%d events came and %d again, of %d", f.Came, f.Repeats, want)
	}
}

// testLargest sends an event as large as they may be.
func testLargest(t *testing.T, b Bus) {
	tap := NewTap(t, eventtap.DefaultMemory, b.Sink(t))
	o := Outcome("x", 1)
	enlarge(o)
	o.Cluster = o.Details
	for range 20 {
		tap.Observe(o)
	}
	if a := closeTap(t, tap); a.Acked != 20 {
		t.Errorf("%+v", a)
	}
	if f := Read(t, b.Events(t), true); f.Came != 20 {
		t.Errorf("%+v", f)
	}
}

// enlarge gives an outcome texts that are as long as they may be.
func enlarge(o *mesh.Outcome) {
	text := strings.Repeat("\x01", 512)
	o.Listener, o.FilterChain, o.VirtualHost, o.RouteName, o.RouteTemplate = text, text, text, text, text
	o.Details, o.TransportFailure, o.Termination, o.UpstreamHostname = text, text, text, text
	o.Versions = mesh.Versions{Listeners: text, Routes: text, Clusters: text}
	o.UpstreamLocality, o.EndpointVersion, o.Upstream.Pipe = mesh.Locality{Region: text, Zone: text, SubZone: text}, text, text
}

// testClose closes right behind the last event.
func testClose(t *testing.T, b Bus) {
	tap := NewTap(t, eventtap.DefaultMemory, b.Sink(t))
	for n := range 1000 {
		tap.Observe(Outcome("x", n))
	}
	if a := closeTap(t, tap); a.Acked != 1000 || a.Pending != 0 {
		t.Errorf("%+v", a)
	}
	if f := Read(t, b.Events(t), false); f.Came != 1000 {
		t.Errorf("%+v", f)
	}
}

// testOutage kills the bus between events and revives it.
func testOutage(t *testing.T, b Bus) {
	if b.Kill == nil {
		t.Skip("this bus cannot fail")
	}
	s := b.Sink(t)
	tap := NewTap(t, eventtap.DefaultMemory, s)
	n := 0
	observe := func(count int) {
		for range count {
			tap.Observe(Outcome(fmt.Sprint("svc-", n%5), n))
			n++
		}
	}
	for range 3 {
		observe(200)
		Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Acked > 0 })
		b.Kill(t)
		observe(200)
		before := Check(t, tap).Retries
		Await(t, tap, func(a eventtap.SinkAccount) bool { return b.Patient && a.Pending > 0 || a.Retries > before })
		b.Revive(t)
		observe(200)
		Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Pending == 0 })
	}
	a := closeTap(t, tap)
	f := Read(t, b.Events(t), s.Caps().Dedupe)
	if want := uint64(n); f.Came != want || a.Acked != want || f.Lost != 0 {
		t.Errorf("%d came, %d are acknowledged, %d lost; %d were produced", f.Came, a.Acked, f.Lost, want)
	}
}

// testBackPressure produces more than the memory holds while the bus is down.
func testBackPressure(t *testing.T, b Bus) {
	if b.Kill == nil {
		t.Skip("this bus cannot fail")
	}
	s := b.Sink(t)
	tap := NewTap(t, eventtap.MinMemory, s)
	n := 0
	produce := func(until func(eventtap.SinkAccount) bool) {
		for !until(Check(t, tap)) {
			for range 500 {
				tap.Observe(Outcome(fmt.Sprint("svc-", n%5), n))
				n++
			}
		}
	}
	produce(func(a eventtap.SinkAccount) bool { return a.Acked > 500 })
	b.Kill(t)
	produce(func(a eventtap.SinkAccount) bool { return a.Dropped[eventtap.SinkFull] > 500 })
	b.Revive(t)
	Await(t, tap, func(a eventtap.SinkAccount) bool { return a.Pending == 0 })
	produce(func(a eventtap.SinkAccount) bool { return a.Produced >= uint64(n) })
	tap.Observe(Outcome("svc-0", n))
	a := closeTap(t, tap)
	f := Read(t, b.Events(t), s.Caps().Dedupe)
	var dropped uint64
	for _, d := range a.Dropped {
		dropped += d
	}
	if f.Came != a.Acked || f.Lost != dropped || f.Came+f.Lost != uint64(n+1) {
		t.Errorf("produced %d, came %d, told to be lost %v, account %+v", n+1, f.Came, f.Reasons, a)
	}
}

// testStranger has a sink with credentials that the bus refuses: it cannot be opened, or delivers nothing.
func testStranger(t *testing.T, b Bus) {
	if b.Stranger == nil {
		t.Skip("this bus has no credentials")
	}
	if err := Try(t, b.Stranger(t)); err == nil {
		t.Error("a stranger was let in")
	}
	s := b.Sink(t)
	if err := s.Open(t.Context()); err != nil {
		t.Errorf("who may was not let in: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// testNarrow produces some events that the bus will never take.
func testNarrow(t *testing.T, b Bus) {
	if b.Narrow == nil {
		t.Skip("this bus refuses no event")
	}
	CheckNarrow(t, b.Narrow(t))
}

// CheckNarrow produces some events that the bus will never take, among others.
func CheckNarrow(t *testing.T, n Narrow) {
	t.Helper()
	tap := NewTap(t, eventtap.DefaultMemory, n.Sink)
	for i := range 100 {
		o := Outcome("x", i)
		if i%10 == 3 {
			enlarge(o)
		}
		tap.Observe(o)
	}
	a := closeTap(t, tap)
	f := Read(t, n.Events(t), n.Sink.Caps().Dedupe)
	if a.Acked != 90 || a.Dropped[eventtap.Refused] != 10 || f.Came != 90 || f.Reasons["refused"] != 10 {
		t.Errorf("account %+v, found %+v", a, f)
	}
	if n.Dead == nil {
		return
	}
	dead := map[uint64]bool{}
	for _, body := range n.Dead(t) {
		dead[Decode(t, body).StreamSeq%10] = true
	}
	if got := len(n.Dead(t)); got != 10 || len(dead) != 1 || !dead[4] {
		t.Errorf("%d events were put aside, with numbers that end in %v", got, dead)
	}
}

// testSecure covers whom a sink trusts, and that it shows its certificate.
func testSecure(t *testing.T, b Bus) {
	if b.Secure == nil {
		t.Skip("this bus has no TLS")
	}
	ca, mine := b.Secure(t)
	other := NewAuthority(t)
	cert, key := ca.Issue(t)
	for _, c := range []struct {
		name string
		tls  login.TLS
	}{
		{"an authority that did not sign", login.TLS{CAFile: other.File, CertificateFile: cert, KeyFile: key}},
		{"another name", login.TLS{CAFile: ca.File, CertificateFile: cert, KeyFile: key, ServerName: "other.test"}},
		{"no client certificate", login.TLS{CAFile: ca.File}},
	} {
		s := mine(c.tls)
		if err := Try(t, s); err == nil {
			t.Errorf("%s: an event was delivered", c.name)
		}
	}
	if err := Try(t, mine(login.TLS{CAFile: ca.File, CertificateFile: cert, KeyFile: key})); err != nil {
		t.Errorf("both trust each other: %v", err)
	}
}

// Try opens a sink, sends a batch, and closes it. It returns the first error.
func Try(t *testing.T, s eventtap.Sink) error {
	t.Helper()
	err := s.Open(t.Context())
	if err == nil {
		err = send(t, s, sampleBatch(s.Caps()))
	}
	if cerr := s.Close(t.Context()); cerr != nil {
		t.Error(cerr)
	}
	return err
}

// Await waits until the account is as it should be.
func Await(t *testing.T, tap *eventtap.Tap, ok func(eventtap.SinkAccount) bool) {
	t.Helper()
	end := time.After(deadline)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(Check(t, tap)) {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("still %+v", Check(t, tap))
		}
	}
}

// send sends a batch and waits for what becomes of it.
func send(t *testing.T, s eventtap.Sink, b *eventtap.Batch) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	done := make(chan error, 1)
	s.Send(ctx, b, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("done was not called")
	}
}

// sampleBatch makes a batch as a runner does.
func sampleBatch(c eventtap.Caps) *eventtap.Batch {
	b := &eventtap.Batch{}
	var boot [8]byte
	_, _ = rand.Read(boot[:])
	for i := range 10 {
		var e event.Event
		e.Reset(event.Request)
		e.ID, e.Source, e.PartitionKey = fmt.Appendf(nil, "%x-%d", boot, i+1), []byte("/meshtap/-/-/-/-"), []byte("key")
		e.Sequence, e.StreamSeq = uint64(i+1), uint64(i+1)
		body := e.AppendProto(nil)
		if c.Encoding <= eventtap.JSONBatch {
			body = e.AppendJSON(nil)
		}
		b.Events = append(b.Events, eventtap.Event{ID: e.ID, Key: e.PartitionKey, Kind: event.Request, Body: body})
	}
	b.Body = wrapBatch(c.Encoding, b.Events)
	return b
}

func wrapBatch(enc eventtap.Encoding, events []eventtap.Event) (out []byte) {
	for i, e := range events {
		switch enc {
		case eventtap.JSONLines:
			out = append(append(out, e.Body...), '\n')
		case eventtap.JSONBatch:
			out = append(append(out, "[,"[min(i, 1)]), e.Body...)
		case eventtap.ProtoDelimited:
			out = append(appendVarint(out, len(e.Body)), e.Body...)
		case eventtap.ProtoBatch:
			out = append(event.AppendProtoBatchHead(out, len(e.Body)), e.Body...)
		}
	}
	if enc == eventtap.JSONBatch {
		out = append(out, ']')
	}
	return out
}

func appendVarint(dst []byte, n int) []byte {
	for n > math.MaxInt8 {
		dst, n = append(dst, byte(n)|0x80), n>>7
	}
	return append(dst, byte(n))
}

// Lines splits JSON lines.
func Lines(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}
