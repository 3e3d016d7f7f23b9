// SPDX-License-Identifier: Apache-2.0

// Package stream reads a JetStream stream of NATS: what is stored, what comes, alone or shared with others. It is a package
// of its own so that a program that reads nothing else links no other bus.
package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap/consume"
)

const (
	// DefaultStream and DefaultSubject are where the NATS sink writes if nothing else is configured.
	DefaultStream  = "MESHTAP"
	DefaultSubject = "meshtap.events.>"
	dialTime       = 5 * time.Second
	// idleTime is how long the server keeps a reader's place after it has gone.
	idleTime = 30 * time.Second
)

// Start is where reading begins: at the first message of a time, with the newest messages, behind a message, or, as the
// zero value, with what comes from now on.
type Start struct {
	Since         time.Time
	Newest, After uint64
}

// NATS is a connection to a JetStream stream. One goroutine uses it.
type NATS struct {
	conn   *nats.Conn
	stream jetstream.Stream
}

// ConnectError says that no server could be reached, or that it did not let us in.
type ConnectError struct{ Err error }

// Error returns the reason.
func (e *ConnectError) Error() string { return "stream: NATS: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ConnectError) Unwrap() error { return e.Err }

// Open connects to a server and finds a stream; "" is DefaultStream. Close it.
func Open(ctx context.Context, urls, stream string, opts ...nats.Option) (*NATS, error) {
	opts = append([]nats.Option{
		nats.Name("meshtap"), nats.Timeout(dialTime), nats.MaxReconnects(-1), nats.SetCustomDialer(dialer(ctx)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the reader gets them as well
	}, opts...)
	conn, err := nats.Connect(urls, opts...)
	if ctx.Err() != nil {
		conn.Close()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &ConnectError{err}
	}
	js, err := jetstream.New(conn)
	if err == nil {
		ask, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		var s jetstream.Stream
		if s, err = js.Stream(ask, cmp.Or(stream, DefaultStream)); err == nil {
			return &NATS{conn, s}, nil
		}
	}
	conn.Close()
	return nil, fmt.Errorf("stream: NATS: %w", err)
}

// dialer returns what connects to a server, and whose connections end with ctx also while the server says nothing.
func dialer(ctx context.Context) nats.CustomDialer {
	return dialFunc(func(network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTime}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		return conn, nil
	})
}

type dialFunc func(network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (f dialFunc) Dial(network, address string) (net.Conn, error) { return f(network, address) }

// Close disconnects.
func (n *NATS) Close() { n.conn.Close() }

// Last returns the number of the stream's last message, as it was when it was opened.
func (n *NATS) Last() uint64 { return n.stream.CachedInfo().State.LastSeq }

// Read calls each for the messages with a subject from start on, until ctx ends, each returns an error, or, unless it
// follows, the end of the stream as it was at the beginning is reached.
func (n *NATS) Read(ctx context.Context, subject string, start Start, follow bool, each func(*consume.Message) error) error {
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, InactiveThreshold: idleTime}
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = n.policy(start)
	ask, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := n.stream.OrderedConsumer(ask, cfg)
	if err != nil {
		return err
	}
	return drain(ctx, c, follow, nil, each)
}

// policy says how the server calls a start.
func (n *NATS) policy(start Start) (jetstream.DeliverPolicy, uint64, *time.Time) {
	switch {
	case !start.Since.IsZero():
		return jetstream.DeliverByStartTimePolicy, 0, &start.Since
	case start.Newest > 0:
		return jetstream.DeliverByStartSequencePolicy, max(n.Last(), start.Newest) - start.Newest + 1, nil
	case start.After > 0:
		return jetstream.DeliverByStartSequencePolicy, start.After + 1, nil
	}
	return jetstream.DeliverNewPolicy, 0, nil
}

// Share reads as one of several consumers with the same name, who acknowledge. The first of them says where to start; all
// is with the oldest message.
func (n *NATS) Share(ctx context.Context, group, subject string, start Start, all, follow bool, each func(*consume.Message) error) error {
	cfg := jetstream.ConsumerConfig{Durable: group, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy}
	cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = n.policy(start)
	if all {
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	ask, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := n.stream.Consumer(ask, group)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = n.stream.CreateConsumer(ask, cfg)
	}
	if err != nil {
		return err
	}
	return drain(ctx, c, follow, func(m jetstream.Msg) func() { return func() { _ = m.Ack() } }, each)
}

// drain reads a consumer. ack, where it is not nil, makes what says that a message was handled.
func drain(ctx context.Context, c jetstream.Consumer, follow bool, ack func(jetstream.Msg) func(), each func(*consume.Message) error) error {
	left := c.CachedInfo().NumPending
	if left == 0 && !follow {
		return nil
	}
	messages, err := c.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		out := &consume.Message{Seq: meta.Sequence.Stream, Stored: meta.Timestamp, Type: m.Headers().Get("Content-Type"), Data: m.Data()}
		if ack != nil {
			out.Done = ack(m)
		}
		err = each(out)
		if left--; err != nil || left == 0 && !follow {
			return err
		}
	}
}
