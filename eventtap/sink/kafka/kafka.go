// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/cloudevent"
	"github.com/meshtap/meshtap/internal/login"
)

// Config is where and how a Sink writes.
type Config struct {
	Brokers []string
	// Topic may hold {class}; DeadLetter is "" or the topic for what Topic refuses.
	Topic, DeadLetter string
	// Create are the settings of topics to create where they do not exist; nil waits for them.
	Create *Create
	// Structured makes the whole event a record's value, Proto in protobuf.
	Structured, Proto bool
	// SASL is how to log in; nil is not at all.
	SASL *SASL
	// Secure has TLS done, as TLS says. Without it only brokers on this machine are connected to, but with Plaintext.
	TLS               *login.TLS
	Secure, Plaintext bool
	Compression       Compression
	Linger            time.Duration
	// BatchBytes bounds an uncompressed batch; 0 is what the topic allows.
	BatchBytes int32
	// InFlight is the number of batches that are not acknowledged, 1 to 8.
	InFlight   int
	AckTimeout time.Duration
}

// SASL is how to log in: with PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
type SASL struct{ Mechanism, User, PasswordFile string }

// Create are the settings of a new topic. What is 0 is the broker's default.
type Create struct {
	Partitions int32
	Replicas   int16
	Retention  time.Duration
}

// Compression is the name of a codec: none, gzip, snappy, lz4 or zstd.
type Compression string

// The bounds of a connection attempt, and of each of the questions that Open has.
const dialTimeout, askTimeout = 3 * time.Second, 5 * time.Second

// Sink writes to topics. Its methods are called by one goroutine; the client's goroutines end with Close.
type Sink struct {
	cfg    Config
	log    *zap.Logger
	topics [event.NumKinds]string

	client *kgo.Client
	split  *cloudevent.Splitter
	free   chan *flight
	limits atomic.Pointer[map[string]int32] // the largest batch of each topic

	out   sync.WaitGroup // flights
	order eventtap.Order
	why   atomic.Pointer[error]
	down  atomic.Bool // the last connection attempt failed
}

// New returns a sink that is not connected.
func New(c Config, deps eventtap.SinkDeps) *Sink {
	s := &Sink{cfg: c, log: deps.Log, split: cloudevent.NewSplitter("ce_"), free: make(chan *flight, c.InFlight)}
	for k := range s.topics {
		s.topics[k] = strings.ReplaceAll(c.Topic, classPlace, event.Kind(k).String())
	}
	for range c.InFlight {
		s.free <- newFlight(s)
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

// Open connects and finds, or creates, the topics.
func (s *Sink) Open(ctx context.Context) error {
	opts, err := s.options()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	if err := s.findTopics(ctx, client); err != nil {
		client.Close()
		return err
	}
	s.client = client
	s.order.Reset()
	return nil
}

// Send hands the batch to the client, and returns before it is acknowledged.
func (s *Sink) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	if err := s.order.Begin(b); err != nil {
		done(fmt.Errorf("kafka: %w", err))
		return
	}
	f := <-s.free // there are as many as the runner has batches
	s.out.Add(1)
	f.send(ctx, b, done)
}

// Close disconnects. What is not acknowledged fails.
func (s *Sink) Close(context.Context) error {
	if s.client == nil {
		return nil
	}
	s.client.Close()
	s.out.Wait()
	s.client = nil
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)
