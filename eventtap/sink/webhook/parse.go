// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net"
	"net/url"
	"time"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.WebhookSink"

// The defaults and limits of a configuration.
const (
	defaultTimeout         = 10 * time.Second
	minTimeout, maxTimeout = 100 * time.Millisecond, 5 * time.Minute
	defaultRetryAfter      = time.Minute
	maxRetryAfter          = time.Hour
	maxURL                 = 2048
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("webhook", TypeURL, parse,
		func(c Config, _ eventtap.SinkDeps) *Sink { return New(c) })}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.WebhookSink{}, protofields.Honour("url", "mode", "format", "signing_key_file", "bearer_token_file", "tls",
		"allow_plaintext", "timeout", "max_retry_after", "dead_letter_url"))
	login.Fields(t)
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.WebhookSink
	return eventtap.ParseSink(b, &m, fields, parseTargets, parseForm, parseTimes)
}

func parseTargets(c *Config, m *tapv1.WebhookSink) (err error) {
	c.KeyFile, c.TokenFile = m.SigningKeyFile, m.BearerTokenFile
	if c.TLS, err = login.ParseTLS(m.Tls); err != nil {
		return err
	}
	if c.Target, err = target("url", m.Url, m.AllowPlaintext); err != nil {
		return err
	}
	if m.DeadLetterUrl == "" {
		return nil
	}
	c.DeadLetter, err = target("dead_letter_url", m.DeadLetterUrl, m.AllowPlaintext)
	if err == nil && c.DeadLetter == c.Target {
		err = registry.Errorf("dead_letter_url", "must not be url")
	}
	return err
}

// target reads a URL.
func target(path, s string, plaintext bool) (Target, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return Target{}, registry.Errorf(path, "must be http://host/path or https://host/path, of at most %d bytes", maxURL)
	}
	if u.User != nil {
		return Target{}, registry.Errorf(path, "must not hold a user or password; use bearer_token_file or signing_key_file")
	}
	t := Target{Host: u.Host, Path: u.RequestURI(), Secure: u.Scheme == "https"}
	if !t.Secure && !login.Local(u.Hostname()) && !plaintext {
		return Target{}, registry.Errorf(path, "%s is not on this machine: use https://, or set allow_plaintext", u.Host)
	}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[t.Secure]
	}
	t.Address = net.JoinHostPort(u.Hostname(), port)
	return t, nil
}

func parseForm(c *Config, m *tapv1.WebhookSink) (err error) {
	if c.Proto, err = login.ParseFormat(m.Format); err != nil {
		return err
	}
	switch m.Mode {
	case tapv1.ContentMode_CONTENT_MODE_UNSPECIFIED, tapv1.ContentMode_BATCHED:
		c.Mode = Batched
	case tapv1.ContentMode_STRUCTURED:
		c.Mode = Structured
	case tapv1.ContentMode_BINARY:
		c.Mode = Binary
		if c.Proto {
			return registry.Errorf("mode", "must be BATCHED or STRUCTURED where the format is PROTOBUF")
		}
	default:
		return registry.Errorf("mode", "%s, must be BATCHED, STRUCTURED or BINARY", m.Mode)
	}
	return nil
}

func parseTimes(c *Config, m *tapv1.WebhookSink) (err error) {
	if c.Timeout, err = login.ParseDuration("timeout", m.Timeout, defaultTimeout, minTimeout, maxTimeout); err != nil {
		return err
	}
	c.MaxRetryAfter, err = login.ParseDuration("max_retry_after", m.MaxRetryAfter, defaultRetryAfter, 0, maxRetryAfter)
	return err
}
