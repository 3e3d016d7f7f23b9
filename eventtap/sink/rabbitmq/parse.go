// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.RabbitmqSink"

// What stands in a routing key for the event's class and partition key.
const classPlace, keyPlace = "{class}", "{key}"

// The defaults and limits of a configuration.
const (
	defaultVHost    = "/"
	defaultExchange = "meshtap.events"
	defaultKey      = classPlace + "." + keyPlace
	defaultBinding  = "#"
	maxName         = 127
	maxKeyTemplate  = 128
	minQueueBytes   = 1 << 20
	defaultInFlight = 4
	maxInFlight     = 8
	defaultAck      = 30 * time.Second
	minAck, maxAck  = 100 * time.Millisecond, 10 * time.Minute
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("rabbitmq", TypeURL, parse, New)}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.RabbitmqSink{}, protofields.Honour("urls", "virtual_host", "user", "password_file", "tls", "allow_plaintext", "exchange",
		"routing_key", "declare", "mode", "format", "dead_letter_exchange", "max_in_flight", "ack_timeout"))
	t.Add(&tapv1.DeclareQueue{}, protofields.Honour("queue", "type", "binding", "dead_letter_exchange", "max_bytes", "reject_when_full"))
	login.Fields(t)
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.RabbitmqSink
	return eventtap.ParseSink(b, &m, fields, parseServers, parseLogin, parseNames, parseDeclare, parseForm, parseSending)
}

func parseServers(c *Config, m *tapv1.RabbitmqSink) (err error) {
	if len(m.Urls) == 0 {
		return registry.Errorf("urls", "must name a server, such as amqp://127.0.0.1:5672")
	}
	if c.TLS, err = login.ParseTLS(m.Tls); err != nil {
		return err
	}
	for i, s := range m.Urls {
		path := fmt.Sprintf("urls[%d]", i)
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" {
			return registry.Errorf(path, "must be amqp://host:port or amqps://host:port; the virtual host has a field of its own")
		}
		if u.User != nil {
			return registry.Errorf(path, "must not hold a user or password; use user and password_file")
		}
		at := Server{Secure: u.Scheme == "amqps" || m.Tls != nil || !login.Local(u.Hostname()) && !m.AllowPlaintext}
		port := u.Port()
		if port == "" {
			port = map[bool]string{false: "5672", true: "5671"}[at.Secure]
		}
		at.Address = net.JoinHostPort(u.Hostname(), port)
		c.Servers = append(c.Servers, at)
	}
	return nil
}

func parseLogin(c *Config, m *tapv1.RabbitmqSink) error {
	if c.VHost = m.VirtualHost; c.VHost == "" {
		c.VHost = defaultVHost
	}
	if len(c.VHost) > maxName {
		return registry.Errorf("virtual_host", "%q, must be at most %d bytes", c.VHost, maxName)
	}
	c.User, c.PasswordFile = m.User, m.PasswordFile
	return login.ParseUser(m.User, m.PasswordFile)
}

// name checks the name of an exchange or queue.
func name(path, s string) error {
	if len(s) > maxName || strings.HasPrefix(s, "amq.") {
		return registry.Errorf(path, "%q, must be a name of at most %d bytes that does not begin with amq.", s, maxName)
	}
	return nil
}

func parseNames(c *Config, m *tapv1.RabbitmqSink) error {
	if c.Exchange = m.Exchange; c.Exchange == "" {
		c.Exchange = defaultExchange
	}
	if err := name("exchange", c.Exchange); err != nil {
		return err
	}
	c.DeadLetter = m.DeadLetterExchange
	if err := name("dead_letter_exchange", c.DeadLetter); err != nil {
		return err
	}
	if c.DeadLetter == c.Exchange {
		return registry.Errorf("dead_letter_exchange", "must not be exchange")
	}
	if c.RoutingKey = m.RoutingKey; c.RoutingKey == "" {
		c.RoutingKey = defaultKey
	}
	plain := strings.NewReplacer(classPlace, "", keyPlace, "").Replace(c.RoutingKey)
	if len(c.RoutingKey) > maxKeyTemplate || strings.ContainsAny(plain, "{}") {
		return registry.Errorf("routing_key", "%q, must be at most %d bytes, with no braces but {class} and {key}", c.RoutingKey, maxKeyTemplate)
	}
	return nil
}

func parseDeclare(c *Config, m *tapv1.RabbitmqSink) error {
	d := m.Declare
	if d == nil {
		return nil
	}
	c.Declare = &Declare{Queue: d.Queue, Binding: d.Binding, DeadLetter: d.DeadLetterExchange, RejectWhenFull: d.RejectWhenFull}
	if c.Declare.Queue == "" {
		c.Declare.Queue = c.Exchange
	}
	if c.Declare.Binding == "" {
		c.Declare.Binding = defaultBinding
	}
	for path, s := range map[string]string{"declare.queue": c.Declare.Queue, "declare.dead_letter_exchange": c.Declare.DeadLetter} {
		if err := name(path, s); err != nil {
			return err
		}
	}
	switch d.Type {
	case tapv1.DeclareQueue_TYPE_UNSPECIFIED, tapv1.DeclareQueue_QUORUM:
	case tapv1.DeclareQueue_CLASSIC:
		c.Declare.Classic = true
	default:
		return registry.Errorf("declare.type", "%s, must be QUORUM or CLASSIC", d.Type)
	}
	if v := d.MaxBytes; v != nil {
		if v.Value < minQueueBytes || v.Value > 1<<60 {
			return registry.Errorf("declare.max_bytes", "%d, must be at least %d", v.Value, minQueueBytes)
		}
		c.Declare.MaxBytes = int64(v.Value)
	}
	if c.Declare.RejectWhenFull && c.Declare.MaxBytes == 0 {
		return registry.Errorf("declare.reject_when_full", "needs max_bytes")
	}
	return nil
}

func parseForm(c *Config, m *tapv1.RabbitmqSink) (err error) {
	c.Structured, c.Proto, err = login.ParseContent(m.Format, m.Mode)
	return err
}

func parseSending(c *Config, m *tapv1.RabbitmqSink) (err error) {
	if c.InFlight, err = login.ParseNumber("max_in_flight", m.MaxInFlight, defaultInFlight, 1, maxInFlight); err != nil {
		return err
	}
	c.AckTimeout, err = login.ParseDuration("ack_timeout", m.AckTimeout, defaultAck, minAck, maxAck)
	return err
}
