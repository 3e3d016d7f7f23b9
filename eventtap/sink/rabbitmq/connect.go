// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
)

// connect makes a connection, which ends with ctx. Files are read each time, so that secrets can change.
func (s *Sink) connect(ctx context.Context, at Server) (*link, error) {
	user, password := "guest", "guest"
	if s.cfg.User != "" {
		var err error
		user = s.cfg.User
		if password, err = login.Secret(s.cfg.PasswordFile); err != nil {
			return nil, err
		}
	}
	raw, err := s.cfg.TLS.Dial(ctx, at.Address, at.Secure, dialTimeout)
	if err != nil {
		return nil, s.advise(err)
	}
	// It holds for the client's handshake, which takes it back.
	if err := raw.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		raw.Close()
		return nil, err
	}
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName("meshtap")
	conn, err := amqp091.Open(raw, amqp091.Config{
		SASL: []amqp091.Authentication{&amqp091.PlainAuth{Username: user, Password: password}}, Vhost: s.cfg.VHost,
		Heartbeat: heartbeat, Properties: properties, Locale: "en_US",
	})
	if err != nil {
		raw.Close()
		return nil, s.advise(err)
	}
	l, err := s.newLink(conn, raw)
	if err != nil {
		raw.Close()
		return nil, s.advise(err)
	}
	return l, nil
}

// declare declares what is configured, or looks whether the exchanges are there.
func (s *Sink) declare(l *link) error {
	d := s.cfg.Declare
	for _, name := range []string{s.cfg.Exchange, s.cfg.DeadLetter} {
		if name == "" {
			continue
		}
		var err error
		if d != nil {
			err = l.channel.ExchangeDeclare(name, amqp091.ExchangeTopic, true, false, false, false, nil)
		} else {
			err = l.channel.ExchangeDeclarePassive(name, amqp091.ExchangeTopic, true, false, false, false, nil)
		}
		if err != nil {
			return err
		}
	}
	if d == nil {
		return nil
	}
	if s.cfg.DeadLetter != "" {
		if err := l.queue(s.cfg.DeadLetter, s.cfg.DeadLetter, "#", amqp091.Table{typeArg: queueType(d)}); err != nil {
			return err
		}
	}
	args := amqp091.Table{typeArg: queueType(d)}
	if d.DeadLetter != "" {
		args["x-dead-letter-exchange"] = d.DeadLetter
	}
	if d.MaxBytes > 0 {
		args["x-max-length-bytes"] = d.MaxBytes
	}
	if d.RejectWhenFull {
		args["x-overflow"] = "reject-publish"
	}
	return l.queue(d.Queue, s.cfg.Exchange, d.Binding, args)
}

const typeArg = "x-queue-type"

func queueType(d *Declare) string {
	if d.Classic {
		return "classic"
	}
	return "quorum"
}

func (l *link) queue(name, exchange, binding string, args amqp091.Table) error {
	if _, err := l.channel.QueueDeclare(name, true, false, false, false, args); err != nil {
		return err
	}
	return l.channel.QueueBind(name, binding, exchange, false, nil)
}

// advise adds what a person can do about an error, where that is known.
func (s *Sink) advise(err error) error {
	advice := s.cfg.TLS.Advice(err)
	var e *amqp091.Error
	switch {
	case advice != "" || !errors.As(err, &e):
	case errors.Is(err, amqp091.ErrCredentials) || e.Code == amqp091.AccessRefused && strings.Contains(strings.ToUpper(e.Reason), "LOGIN"):
		advice = "the broker refused " + s.shown()
	case e.Code == amqp091.AccessRefused:
		advice = "give " + s.shown() + " the permissions configure, write and read there"
	case e.Code == amqp091.NotFound && s.cfg.Declare == nil:
		advice = "create it, or set declare"
	case e.Code == amqp091.NotAllowed:
		advice = fmt.Sprintf("create the virtual host %s, and let the user in, or set virtual_host", s.cfg.VHost)
	case e.Code == amqp091.PreconditionFailed && s.cfg.Declare != nil:
		advice = "what is there was declared with other settings; delete it, or change declare"
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// shown says which credentials the broker was shown, without their secret.
func (s *Sink) shown() string {
	if s.cfg.User == "" {
		return "the user guest, which it lets in from its own machine only: set user and password_file"
	}
	return fmt.Sprintf("the user %s with the password of %s", s.cfg.User, s.cfg.PasswordFile)
}

// maxKey is what AMQP allows a routing key, in bytes.
const maxKey = 255

// keyOf returns the event's routing key. What is longer than a routing key may be is cut.
func (s *Sink) keyOf(e *eventtap.Event) string {
	b, rest := s.key[:0], s.cfg.RoutingKey
	for {
		at := strings.IndexByte(rest, '{')
		if at < 0 {
			break
		}
		b = append(b, rest[:at]...)
		if rest = rest[at:]; strings.HasPrefix(rest, classPlace) {
			b, rest = append(b, e.Kind.String()...), rest[len(classPlace):]
		} else {
			b, rest = appendWord(b, e.Key), rest[len(keyPlace):]
		}
	}
	s.key = append(b, rest...)
	return string(s.key[:min(len(s.key), maxKey)])
}

// appendWord appends s as one word of a routing key: what separates words or stands for some is written %XX.
func appendWord(dst, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		if c <= ' ' || c >= 0x7f || c == '.' || c == '*' || c == '#' || c == '%' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
