// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/cloudevent"
	"github.com/meshtap/meshtap/internal/login"
)

// Config is where and how a Sink publishes.
type Config struct {
	Servers []Server
	VHost   string
	// User is "" for guest, else its password is in PasswordFile.
	User, PasswordFile string
	TLS                *login.TLS
	Exchange           string
	// RoutingKey may hold {class} and {key}.
	RoutingKey string
	// DeadLetter is "" or the exchange for what Exchange refuses.
	DeadLetter string
	// Declare is what to declare; nil expects it to be there.
	Declare *Declare
	// Structured makes the whole event a message's body, Proto in protobuf.
	Structured, Proto bool
	// InFlight is the number of batches that are not confirmed, 1 to 8.
	InFlight   int
	AckTimeout time.Duration
}

// Server is an address, host:port, and whether TLS is done there.
type Server struct {
	Address string
	Secure  bool
}

// Declare is what a sink declares. MaxBytes is 0 for no limit.
type Declare struct {
	Queue, Binding, DeadLetter string
	Classic, RejectWhenFull    bool
	MaxBytes                   int64
}

const (
	dialTimeout = 5 * time.Second
	heartbeat   = 5 * time.Second
	// maxPending is the greatest number of messages without a confirmation: 8 batches. The client's channels have room
	// for that many, since it does not wait long for who does not listen.
	maxPending = 8 * eventtap.MaxBatch
)

// Sink publishes to an exchange. Its methods are called by one goroutine; those of a connection end with Close.
type Sink struct {
	cfg       Config
	log       *zap.Logger
	mediaType string
	split     *cloudevent.Splitter
	key       []byte
	link      *link

	order   eventtap.Order
	largest atomic.Int64   // what the broker has said that a message may have at most; 0 where it has said nothing
	wait    sync.WaitGroup // what brings refused events to the dead letters
}

// New returns a sink that is not connected.
func New(c Config, deps eventtap.SinkDeps) *Sink {
	s := &Sink{cfg: c, log: deps.Log, split: cloudevent.NewSplitter("cloudEvents_"), mediaType: event.TypeJSON}
	if c.Proto {
		s.mediaType = event.TypeProto
	}
	return s
}

// Caps returns what the sink promises.
func (s *Sink) Caps() eventtap.Caps {
	c := eventtap.Caps{InFlight: s.cfg.InFlight, Keyed: true}
	if s.cfg.Proto {
		c.Encoding = eventtap.Proto
	}
	return c
}

// Open connects to the first server that answers, and declares what is to be declared. The connection ends with ctx.
func (s *Sink) Open(ctx context.Context) error {
	var all error
	for _, at := range s.cfg.Servers {
		l, err := s.connect(ctx, at)
		if err == nil {
			if err = s.declare(l); err == nil {
				s.link = l
				s.order.Reset()
				l.watching.Go(l.watch)
				l.watching.Go(l.watchBlocked)
				return nil
			}
			_ = l.conn.CloseDeadline(time.Now().Add(time.Second)) // it is no use any more
			err = s.advise(err)
		}
		all = errors.Join(all, fmt.Errorf("rabbitmq: %s: %w", at.Address, err))
	}
	return all
}

// Send publishes the batch, and returns before it is confirmed. While the broker blocks publishers it waits.
func (s *Sink) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	if err := s.link.admitted(ctx); err != nil {
		done(s.lost(err))
		return
	}
	if err := s.order.Begin(b); err != nil {
		done(fmt.Errorf("rabbitmq: %w", err))
		return
	}
	f := &flight{s: s, link: s.link, batch: b, done: done, left: 1}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Sent {
			continue
		}
		m, err := s.message(e)
		if err == nil {
			err = s.fits(m.Body)
		}
		if err != nil {
			f.refuse(i, err)
			continue
		}
		if !s.link.publish(f, i, s.keyOf(e), m) {
			break
		}
	}
	f.land()
}

// fits tells whether the broker allows a message so large, as far as is known.
func (s *Sink) fits(body []byte) error {
	if most := s.largest.Load(); most > 0 && int64(len(body)) > most {
		return fmt.Errorf("a message of %d bytes, at most %d are allowed by the broker (max_message_size)", len(body), most)
	}
	return nil
}

// message lays an event out as the protocol binding says.
func (s *Sink) message(e *eventtap.Event) (amqp091.Publishing, error) {
	m := amqp091.Publishing{
		ContentType: s.mediaType, DeliveryMode: amqp091.Persistent, MessageId: string(e.ID), AppId: "meshtap", Body: e.Body,
	}
	if s.cfg.Structured {
		return m, nil
	}
	if err := s.split.Split(e.Body); err != nil {
		return m, err
	}
	m.ContentType, m.Body = string(s.split.ContentType), s.split.Data
	m.Headers = make(amqp091.Table, len(s.split.Attributes))
	for _, a := range s.split.Attributes {
		m.Headers[a.Name] = string(a.Value)
	}
	return m, nil
}

// Close disconnects, waits for the goroutines of the connection, and fails what is not confirmed.
func (s *Sink) Close(context.Context) error {
	if s.link == nil {
		return nil
	}
	s.link.end()
	s.wait.Wait()
	s.link = nil
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)
