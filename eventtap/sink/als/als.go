// SPDX-License-Identifier: Apache-2.0

// Package als is the event sink that sends to a gRPC access log service, as Envoy's access loggers do. What a collector
// knows of Envoy's entries it finds where it looks for it; the whole event is beside it, as a CloudEvent.
//
// The protocol has no acknowledgements. An event counts as delivered when it was written to the stream, which has
// promised nothing: what is on its way when a connection breaks is gone. The numbers of the events tell a reader.
package als

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/internal/login"
)

// Config is where a Sink sends.
type Config struct {
	// Address is host:port. TLS says how TLS is done; nil is plain text.
	Address, LogName string
	TLS              *login.TLS
}

const (
	dialTimeout = 5 * time.Second
	// messageBytes is how large a message is before the next one begins: services take 4 MiB where they say nothing.
	messageBytes = 1 << 20

	stateKey  = "io.meshtap.event"
	stateType = "io.cloudevents.v1.CloudEvent"
)

// Sink sends to a service. Its methods are called by one goroutine; it has no other.
type Sink struct {
	cfg    Config
	stream *als.Stream // nil before Open
	named  bool        // the stream knows who we are

	event   event.Event
	outcome outcome
	extra   als.Extra
}

// New returns a sink that is not open.
func New(c Config) *Sink {
	return &Sink{cfg: c, extra: als.Extra{StateKey: stateKey, StateType: stateType}}
}

// Caps returns what the sink promises.
func (*Sink) Caps() eventtap.Caps { return eventtap.Caps{Encoding: eventtap.Proto, InFlight: 1} }

// Open connects.
func (s *Sink) Open(ctx context.Context) error {
	s.stream = als.NewStream(als.Target{
		Dial: s.dial, Authority: s.cfg.Address, LogName: s.cfg.LogName,
	})
	s.named = false
	if err := s.stream.Open(ctx); err != nil {
		if advice := s.cfg.TLS.Advice(err); advice != "" {
			return fmt.Errorf("als: %w; %s", err, advice)
		}
		return fmt.Errorf("als: %w", err)
	}
	return nil
}

// dial connects, on a goroutine of gRPC.
func (s *Sink) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil || s.cfg.TLS == nil {
		return c, err
	}
	host, _, _ := net.SplitHostPort(s.cfg.Address) // parse has seen to it
	settings, err := s.cfg.TLS.Client(host)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	settings.NextProtos = []string{"h2"}
	secured := tls.Client(c, settings)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return secured, nil
}

// Send writes the batch to the stream. It waits as long as the service does not read.
func (s *Sink) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	done(s.send(ctx, b.Events))
}

func (s *Sink) send(ctx context.Context, events []eventtap.Event) error {
	var m message
	for i := range events {
		e := &events[i]
		if e.Sent {
			continue
		}
		if err := s.event.DecodeProto(e.Body); err != nil {
			return fmt.Errorf("als: an event of our own: %w", err)
		}
		kind := kindOf(s.event.Kind)
		if m.entries != nil && (kind != m.kind || len(m.entries) > messageBytes) {
			if err := s.write(ctx, &m); err != nil {
				return err
			}
		}
		s.extra.State = e.Body
		m.kind = kind
		m.entries = als.Append(m.entries, kind, s.outcome.of(&s.event), &s.extra)
		m.events = append(m.events, e)
	}
	return s.write(ctx, &m)
}

// message is what goes into one message of the stream.
type message struct {
	kind    als.Kind
	entries []byte
	events  []*eventtap.Event
}

// write sends a message, and makes it ready for the next.
func (s *Sink) write(ctx context.Context, m *message) error {
	if m.entries == nil {
		return nil
	}
	if !s.named {
		s.stream.Names(string(s.event.Source))
		s.named = true
	}
	if err := s.stream.Send(ctx, m.kind, m.entries); err != nil {
		return fmt.Errorf("als: %w: %w", eventtap.ErrReopen, err)
	}
	for _, e := range m.events {
		e.Sent = true // a service does not drop what comes again
	}
	*m = message{}
	return nil
}

// Close ends the stream, so that the service has all of it.
func (s *Sink) Close(ctx context.Context) error {
	if s.stream != nil {
		s.stream.Finish(ctx)
	}
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)
