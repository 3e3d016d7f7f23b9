// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"fmt"
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
const TypeURL = "meshtap.tap.v1.NatsSink"

// The defaults and limits of a configuration.
const (
	defaultPrefix      = "meshtap.events"
	maxPrefix          = 128
	maxStream          = 64
	defaultInFlight    = 4
	maxInFlight        = 8
	defaultAckTimeout  = 5 * time.Second
	minAckTimeout      = 100 * time.Millisecond
	maxAckTimeout      = time.Minute
	defaultStreamBytes = 1 << 30
	defaultDuplicates  = 2 * time.Minute
	minDuplicates      = 100 * time.Millisecond
	maxReplicas        = 5
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("nats", TypeURL, parse, New)}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.NatsSink{}, protofields.Honour("urls", "stream", "subject_prefix", "credentials_file", "user",
		"password_file", "token_file", "tls", "allow_plaintext", "create_stream", "format", "batch", "max_in_flight", "ack_timeout"))
	t.Add(&tapv1.CreateStream{}, protofields.Honour("max_bytes", "max_age", "replicas", "in_memory", "duplicate_window"))
	login.Fields(t)
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.NatsSink
	return eventtap.ParseSink(b, &m, fields, parseURLs, parseNames, parseLogin, parseTLS, parseStream, parseSending)
}

func parseURLs(c *Config, m *tapv1.NatsSink) error {
	if len(m.Urls) == 0 {
		return registry.Errorf("urls", "must name a server, such as nats://127.0.0.1:4222")
	}
	for i, s := range m.Urls {
		path := fmt.Sprintf("urls[%d]", i)
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" {
			return registry.Errorf(path, "must be nats://host:port or tls://host:port")
		}
		if u.User != nil {
			return registry.Errorf(path, "must not hold a user or password; use user and password_file, or another file")
		}
		c.URLs = append(c.URLs, s)
		if u.Scheme == "nats" && !login.Local(u.Hostname()) && !m.AllowPlaintext {
			c.Secure = true
		}
	}
	return nil
}

func parseNames(c *Config, m *tapv1.NatsSink) error {
	c.Stream, c.Prefix = m.Stream, m.SubjectPrefix
	if m.Stream == "" || len(m.Stream) > maxStream || strings.ContainsFunc(m.Stream, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`.*>/\`, r)
	}) {
		return registry.Errorf("stream", "%q, must be a name of at most %d bytes, without spaces and without . * > / \\", m.Stream, maxStream)
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	bad := len(c.Prefix) > maxPrefix || c.Prefix[0] == '$'
	for _, token := range strings.Split(c.Prefix, ".") {
		bad = bad || token == "" || string(appendToken(nil, []byte(token))) != token
	}
	if bad {
		return registry.Errorf("subject_prefix", "%q, must be a subject of at most %d bytes without wildcards", c.Prefix, maxPrefix)
	}
	return nil
}

func parseLogin(c *Config, m *tapv1.NatsSink) error {
	ways := 0
	for _, set := range []bool{m.CredentialsFile != "", m.User != "", m.TokenFile != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return registry.Errorf("", "at most one of credentials_file, user and token_file is allowed")
	}
	if err := login.ParseUser(m.User, m.PasswordFile); err != nil {
		return err
	}
	c.CredentialsFile, c.User, c.PasswordFile, c.TokenFile = m.CredentialsFile, m.User, m.PasswordFile, m.TokenFile
	return nil
}

func parseTLS(c *Config, m *tapv1.NatsSink) (err error) {
	c.TLS, err = login.ParseTLS(m.Tls)
	return err
}

func parseStream(c *Config, m *tapv1.NatsSink) (err error) {
	s := m.CreateStream
	if s == nil {
		return nil
	}
	c.Create = &Create{MaxBytes: defaultStreamBytes, InMemory: s.InMemory, Duplicates: defaultDuplicates}
	if v := s.MaxBytes; v != nil {
		if v.Value < 1<<20 || v.Value > 1<<60 {
			return registry.Errorf("create_stream.max_bytes", "%d, must be at least %d", v.Value, 1<<20)
		}
		c.Create.MaxBytes = int64(v.Value)
	}
	if c.Create.Replicas, err = login.ParseNumber("create_stream.replicas", s.Replicas, 1, 1, maxReplicas); err != nil {
		return err
	}
	if c.Create.MaxAge, err = login.ParseDuration("create_stream.max_age", s.MaxAge, 0, time.Second, 1<<62); err != nil {
		return err
	}
	most := time.Duration(1 << 62)
	if c.Create.MaxAge > 0 {
		most = c.Create.MaxAge // the server refuses a longer one
	}
	c.Create.Duplicates, err = login.ParseDuration("create_stream.duplicate_window", s.DuplicateWindow, min(defaultDuplicates, most), minDuplicates, most)
	return err
}

func parseSending(c *Config, m *tapv1.NatsSink) (err error) {
	c.Batch = m.Batch
	if c.Proto, err = login.ParseFormat(m.Format); err != nil {
		return err
	}
	if c.InFlight, err = login.ParseNumber("max_in_flight", m.MaxInFlight, defaultInFlight, 1, maxInFlight); err != nil {
		return err
	}
	c.AckTimeout, err = login.ParseDuration("ack_timeout", m.AckTimeout, defaultAckTimeout, minAckTimeout, maxAckTimeout)
	return err
}
