// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
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
	// dialTime is what package source waits for a server.
	dialTime = 5 * time.Second
)

func (c *BusConfig) setDefaults() {
	if c.Stream == "" {
		c.Stream = stream.DefaultStream
	}
	if c.Subject == "" {
		c.Subject = stream.DefaultSubject
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
	cfg BusConfig
	*stream.NATS
}

// OpenBus connects to the bus and finds the stream. Close it.
func OpenBus(ctx context.Context, c BusConfig) (*Bus, error) {
	login, err := c.login()
	if err != nil {
		return nil, err
	}
	n, err := stream.Open(ctx, c.URL, c.Stream, append(login, nats.Name("meshtap cli"))...)
	var away *stream.ConnectError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &away):
		return nil, c.unreachable(away.Err)
	case err != nil:
		return nil, c.failed(ctx, err)
	}
	return &Bus{c, n}, nil
}

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

// Read calls each for the messages from start on, until ctx ends, each returns an error, or, unless it follows, the end of
// the stream as it was at the beginning is reached.
func (b *Bus) Read(ctx context.Context, start stream.Start, follow bool, each func(*consume.Message) error) error {
	var own error // of each, which is told as it is
	err := b.NATS.Read(ctx, b.cfg.Subject, start, follow, func(m *consume.Message) error {
		own = each(m)
		return own
	})
	if err == nil || own != nil {
		return own
	}
	return b.cfg.failed(ctx, err)
}
