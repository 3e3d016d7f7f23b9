// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// BusConfig says where an event bus is and how to log in.
type BusConfig struct {
	// URL is one or several, separated by commas.
	URL                    string
	TokenFile, Credentials string
	Stream, Subject        string
	token                  string // from a context
}

const (
	defaultStream  = "MESHTAP"
	defaultSubject = "meshtap.events.>"
	dialTime       = 5 * time.Second
	// idleTime is how long the server keeps a reader's place after it has gone.
	idleTime = 30 * time.Second
)

func (c *BusConfig) setDefaults() {
	if c.Stream == "" {
		c.Stream = defaultStream
	}
	if c.Subject == "" {
		c.Subject = defaultSubject
	}
}

// check refuses what is no bus that can be read, so that a mistake is not taken for a bus that is down.
func (c *BusConfig) check() error {
	for _, s := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return Usage("NATS JetStream can be read; give its URL, as nats://127.0.0.1:4222", "this is no address of an event bus: %s", where(s))
		}
	}
	return nil
}

// where returns the part of an address that may be shown: without user, password and token.
func where(urls string) string {
	var out []string
	for _, s := range strings.Split(urls, ",") {
		if at := strings.LastIndexByte(s, '@'); at >= 0 {
			s = s[at+1:]
		} else if _, rest, ok := strings.Cut(s, "://"); ok {
			s = rest
		}
		out = append(out, strings.TrimSpace(s))
	}
	return strings.Join(out, ",")
}

// Bus is a connection to an event bus. One goroutine uses it.
type Bus struct {
	cfg    BusConfig
	conn   *nats.Conn
	stream jetstream.Stream
}

// OpenBus connects to the bus and finds the stream. Close it.
func OpenBus(ctx context.Context, c BusConfig) (*Bus, error) {
	opts := []nats.Option{
		nats.Name("meshtap cli"), nats.Timeout(dialTime), nats.MaxReconnects(-1), nats.SetCustomDialer(dialer(ctx)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the reader gets them as well
	}
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(c.URL, append(opts, login...)...)
	if ctx.Err() != nil {
		conn.Close()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	js, err := jetstream.New(conn)
	if err == nil {
		ask, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		var s jetstream.Stream
		if s, err = js.Stream(ask, c.Stream); err == nil {
			return &Bus{c, conn, s}, nil
		}
	}
	conn.Close()
	return nil, c.failed(ctx, err)
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

func (c *BusConfig) login() ([]nats.Option, error) {
	switch {
	case c.Credentials != "":
		return []nats.Option{nats.UserCredentials(c.Credentials)}, nil
	case c.TokenFile != "":
		b, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, Usage("", "--bus-token-file: %v", err)
		}
		return []nats.Option{nats.Token(strings.TrimSpace(string(b)))}, nil
	case c.token != "":
		return []nats.Option{nats.Token(c.token)}, nil
	}
	return nil, nil
}

func (c *BusConfig) unreachable(err error) error {
	e := Errorf(ExitUnreachable, "the event bus at %s cannot be reached: %v", where(c.URL), err)
	e.Hint = "is the server running, and is this its address?"
	if errors.Is(err, nats.ErrAuthorization) {
		e.Hint = "give the token with --bus-token-file, or credentials with --bus-credentials"
	}
	return e
}

// failed says why the bus did not do what it was asked for.
func (c *BusConfig) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return &Error{Exit: ExitFailure, Msg: fmt.Sprintf("the bus at %s has no stream %q", where(c.URL), c.Stream),
			Hint: "name it with --stream; it is there once a proxy has published to it"}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return Errorf(ExitFailure, "the server at %s has no JetStream, and so no stored events", where(c.URL))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return Errorf(ExitUnreachable, "the bus at %s did not answer in %v", where(c.URL), dialTime)
	case errors.Is(err, jetstream.ErrNoHeartbeat), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		return Errorf(ExitUnreachable, "the bus at %s does not answer any more", where(c.URL))
	}
	return Errorf(ExitFailure, "the bus at %s: %v", where(c.URL), err)
}

// Close disconnects.
func (b *Bus) Close() { b.conn.Close() }

// Last returns the number of the stream's last message, as it was when the bus was opened.
func (b *Bus) Last() uint64 { return b.stream.CachedInfo().State.LastSeq }

// Start is where reading begins: at the first message of a time, with the newest messages, behind a message, or, as the
// zero value, with what comes from now on.
type Start struct {
	Since         time.Time
	Newest, After uint64
}

// Message is one message of the stream, with one event or a batch of them.
type Message struct {
	// Seq is its number in the stream, Stored when it was put there.
	Seq    uint64
	Stored time.Time
	// Type is the media type that it is labelled with, "" where it is not.
	Type string
	Data []byte
}

// Read calls each for the messages from start on, until ctx ends, each returns an error, or, unless it follows, the end of
// the stream as it was at the beginning is reached.
func (b *Bus) Read(ctx context.Context, start Start, follow bool, each func(*Message) error) error {
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{b.cfg.Subject}, InactiveThreshold: idleTime}
	switch last := b.Last(); {
	case !start.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &start.Since
	case start.Newest > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, max(last, start.Newest)-start.Newest+1
	case start.After > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, start.After+1
	default:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	ask, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := b.stream.OrderedConsumer(ask, cfg)
	if err != nil {
		return b.cfg.failed(ctx, err)
	}
	left := c.CachedInfo().NumPending
	if left == 0 && !follow {
		return nil
	}
	messages, err := c.Messages()
	if err != nil {
		return b.cfg.failed(ctx, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return b.cfg.failed(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return b.cfg.failed(ctx, err)
		}
		err = each(&Message{Seq: meta.Sequence.Stream, Stored: meta.Timestamp, Type: m.Headers().Get("Content-Type"), Data: m.Data()})
		if left--; err != nil || left == 0 && !follow {
			return err
		}
	}
}
