// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
)

// Config is where and how a Sink publishes.
type Config struct {
	URLs           []string
	Stream, Prefix string
	// At most one of CredentialsFile, User with PasswordFile, and TokenFile is set.
	CredentialsFile, User, PasswordFile, TokenFile string
	// TLS says how TLS is done; nil leaves it to the URLs and the server, but for Secure, which insists on it.
	TLS    *login.TLS
	Secure bool
	// Create is the stream to create where it does not exist; nil waits for it.
	Create *Create
	// Proto publishes protobuf instead of JSON; Batch puts a batch into one message.
	Proto, Batch bool
	// InFlight is the number of batches that are not acknowledged, 1 to 8.
	InFlight   int
	AckTimeout time.Duration
}

// Create are the limits of a new stream. A MaxAge of 0 is no limit.
type Create struct {
	MaxBytes           int64
	MaxAge, Duplicates time.Duration
	Replicas           int
	InMemory           bool
}

const (
	dialTimeout = 5 * time.Second
	// The bounds of the wait before the client tries to reconnect.
	reconnectBase, reconnectMax = 50 * time.Millisecond, 2 * time.Second
	pingInterval, pingsLost     = 10 * time.Second, 2
	// batchRoom is what a server must allow a message to hold for batches: a batch's body with headers.
	batchRoom = 72 << 10
)

// Sink publishes to a stream. Its methods are called by one goroutine; those that wait for acknowledgements are joined
// by Close.
type Sink struct {
	cfg       Config
	log       *zap.Logger
	random    func() float64
	mediaType []string
	expect    []string

	conn    *nats.Conn
	js      jetstream.JetStream
	stop    chan struct{} // closed by Close
	waiting sync.WaitGroup
	order   eventtap.Order
	subject []byte
	conns   uint64                // what connections was at the last Send
	unknown atomic.Int64          // batches that were published and not answered
	why     atomic.Pointer[error] // the connection could not be made again; written by the client
}

// New returns a sink that is not connected.
func New(c Config, deps eventtap.SinkDeps) *Sink {
	s := &Sink{cfg: c, log: deps.Log, random: deps.Random, expect: []string{c.Stream}}
	s.mediaType = []string{map[eventtap.Encoding]string{
		eventtap.JSON: event.TypeJSON, eventtap.JSONBatch: event.TypeJSONBatch,
		eventtap.Proto: event.TypeProto, eventtap.ProtoBatch: event.TypeProtoBatch,
	}[s.Caps().Encoding]}
	return s
}

// Caps returns what the sink promises.
func (s *Sink) Caps() eventtap.Caps {
	c := eventtap.Caps{InFlight: s.cfg.InFlight, Dedupe: true, Keyed: !s.cfg.Batch}
	switch {
	case s.cfg.Proto && s.cfg.Batch:
		c.Encoding = eventtap.ProtoBatch
	case s.cfg.Proto:
		c.Encoding = eventtap.Proto
	case s.cfg.Batch:
		c.Encoding = eventtap.JSONBatch
	}
	return c
}

// Open connects and finds, or creates, the stream. The connection ends with ctx.
func (s *Sink) Open(ctx context.Context) error {
	opts, err := s.options(ctx)
	if err != nil {
		return prefix(err)
	}
	conn, err := nats.Connect(strings.Join(s.cfg.URLs, ","), opts...)
	if err != nil {
		return wrap("connect", s.explain(err))
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncTimeout(s.cfg.AckTimeout),
		jetstream.WithPublishAsyncMaxPending(2*maxInFlight*eventtap.MaxBatch))
	if err == nil {
		err = s.explain(s.findStream(ctx, js))
	}
	if err == nil && s.cfg.Batch && conn.MaxPayload() < batchRoom {
		err = fmt.Errorf("nats: the server's max_payload is %d, batches need %d", conn.MaxPayload(), batchRoom)
	}
	if err != nil {
		conn.Close()
		return err
	}
	s.conn, s.js, s.stop = conn, js, make(chan struct{})
	s.order.Reset()
	return nil
}

func (s *Sink) findStream(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	_, err := js.Stream(ctx, s.cfg.Stream)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return wrap("look up the stream", err)
	}
	if s.cfg.Create == nil {
		return fmt.Errorf("nats: the stream %s does not exist; create it, or set create_stream", s.cfg.Stream)
	}
	c := jetstream.StreamConfig{
		Name: s.cfg.Stream, Description: "Meshtap events", Subjects: []string{s.cfg.Prefix + ".>"},
		MaxBytes: s.cfg.Create.MaxBytes, MaxAge: s.cfg.Create.MaxAge, Duplicates: s.cfg.Create.Duplicates,
		Replicas: s.cfg.Create.Replicas, AllowDirect: true,
	}
	if s.cfg.Create.InMemory {
		c.Storage = jetstream.MemoryStorage
	}
	_, err = js.CreateStream(ctx, c)
	return wrap("create the stream", err)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("nats: %s: %w", what, err)
}

// prefix says of an error where it comes from.
func prefix(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("nats: %w", err)
}

// errAnew is why something is not published: what was published before it may have been lost with the connection.
var errAnew = errors.New("the connection was made anew")

// Send publishes the batch, and returns before it is acknowledged. It publishes nothing behind an event that could not
// be published, or that may have been lost with a connection.
func (s *Sink) Send(_ context.Context, b *eventtap.Batch, done func(error)) {
	if err := s.order.Begin(b); err != nil {
		done(wrap("publish", err))
		return
	}
	end := func(err error) {
		s.order.End(b, err)
		done(err)
	}
	conns := s.connections()
	switch {
	case s.conn.IsClosed():
		end(s.closed())
		return
	case !s.conn.IsConnected():
		end(s.disconnected())
		return
	case s.unknown.Load() > 0 && conns != s.conns:
		end(wrap("publish", errAnew))
		return
	}
	s.conns = conns
	if s.cfg.Batch {
		ack, err := s.publish(s.cfg.Prefix+".batch", string(b.ID(nil)), b.Body)
		s.answer(end, func() error { return outcome(b, s.wait(ack, err)) })
		return
	}
	acks := make([]jetstream.PubAckFuture, len(b.Events))
	errs := make([]error, len(b.Events))
	for i := range b.Events {
		e := &b.Events[i]
		if e.Sent {
			continue
		}
		if acks[i], errs[i] = nil, errAnew; s.connections() == conns {
			acks[i], errs[i] = s.publish(s.subjectOf(e), string(e.ID), e.Body)
		}
		if errs[i] != nil && !refused(errs[i]) {
			acks, errs = acks[:i+1], errs[:i+1]
			break
		}
	}
	s.answer(end, func() error { return s.collect(b, acks, errs) })
}

// connections counts the connections that the client has made.
func (s *Sink) connections() uint64 { return s.conn.Stats().Reconnects }

// answer calls end with what becomes of a batch that was published.
func (s *Sink) answer(end func(error), wait func() error) {
	s.unknown.Add(1)
	s.waiting.Go(func() {
		err := wait()
		s.unknown.Add(-1)
		end(err)
	})
}

// closed is the error of a batch that comes when the client has given up, because the server does not want us.
func (s *Sink) closed() error {
	if why := s.explain(s.conn.LastError()); why != nil {
		return fmt.Errorf("nats: %w: %w", eventtap.ErrReopen, why)
	}
	return fmt.Errorf("nats: %w", eventtap.ErrReopen)
}

// disconnected is the error of a batch that comes while the client tries to connect again.
func (s *Sink) disconnected() error {
	if why := s.why.Load(); why != nil {
		return wrap("not connected", *why)
	}
	return errors.New("nats: not connected")
}

func (s *Sink) publish(subject, id string, body []byte) (jetstream.PubAckFuture, error) {
	m := &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		jetstream.MsgIDHeader: {id}, jetstream.ExpectedStreamHeader: s.expect, "Content-Type": s.mediaType,
	}}
	// The client's own retry would let later events pass.
	return s.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
}

// collect waits for the acknowledgements of a batch.
func (s *Sink) collect(b *eventtap.Batch, acks []jetstream.PubAckFuture, errs []error) error {
	var first error
	var no []int
	var why error
	for i := range acks {
		if b.Events[i].Sent {
			continue
		}
		switch err := s.wait(acks[i], errs[i]); {
		case err == nil:
			b.Events[i].Sent = true
		case refused(err):
			no, why = append(no, i), err
		case first == nil:
			first = wrap("publish", err)
		}
	}
	if first != nil {
		return first
	}
	if no != nil {
		return &eventtap.RefusedError{Events: no, Err: wrap("publish", why)}
	}
	return nil
}

// outcome is that of a batch in one message.
func outcome(b *eventtap.Batch, err error) error {
	if !refused(err) {
		return wrap("publish", err)
	}
	all := make([]int, len(b.Events))
	for i := range all {
		all[i] = i
	}
	return &eventtap.RefusedError{Events: all, Err: wrap("publish", err)}
}

// wait waits for one acknowledgement. The client answers within the time-out of an acknowledgement.
func (s *Sink) wait(ack jetstream.PubAckFuture, err error) error {
	if err != nil {
		return err
	}
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-s.stop:
		return nats.ErrConnectionClosed
	}
}

// tooLarge is the server's error code for a message that is larger than the stream takes (JSStreamMessageExceedsMaximumErr).
const tooLarge jetstream.ErrorCode = 10054

// refused tells whether the server will never take the message.
func refused(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == tooLarge
}

// subjectOf returns the event's subject.
func (s *Sink) subjectOf(e *eventtap.Event) string {
	b := append(append(s.subject[:0], s.cfg.Prefix...), '.')
	b = append(append(b, e.Kind.String()...), '.')
	s.subject = appendToken(b, e.Key)
	return string(s.subject)
}

// appendToken appends s as one token of a subject: what a token cannot hold is written %XX.
func appendToken(dst, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		if c <= ' ' || c >= 0x7f || c == '.' || c == '*' || c == '>' || c == '%' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// Close disconnects and waits for those that wait for acknowledgements, which then fail.
func (s *Sink) Close(context.Context) error {
	if s.conn == nil {
		return nil
	}
	close(s.stop)
	s.conn.Close()
	s.waiting.Wait()
	s.conn = nil
	return nil
}

// reconnectDelay waits with full jitter, so that many proxies do not return at once.
func (s *Sink) reconnectDelay(tries int) time.Duration {
	bound := reconnectMax
	if tries < 6 {
		bound = min(bound, reconnectBase<<tries)
	}
	return reconnectBase/4 + time.Duration(s.random()*float64(bound))
}

var _ eventtap.Sink = (*Sink)(nil)
