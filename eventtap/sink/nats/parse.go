// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.NatsSink"

// The defaults and limits of a configuration.
const (
	defaultPrefix             = "meshtap.events"
	maxPrefix                 = 128
	maxStream                 = 64
	defaultInFlight           = 4
	maxInFlight               = 8
	defaultAckTimeout         = 5 * time.Second
	minAckTimeout             = 100 * time.Millisecond
	maxAckTimeout             = time.Minute
	defaultStreamBytes        = 1 << 30
	defaultDuplicates         = 2 * time.Minute
	minDuplicates             = 100 * time.Millisecond
	maxReplicas        uint32 = 5
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{{
		Info: registry.Info{
			Category: registry.EventSink, Name: "meshtap.event_sinks.nats", TypeURLs: []string{TypeURL},
			Status: registry.Alpha, Posture: "trusted-upstream", Example: "tap-nats.yaml",
		},
		Parse: parse,
		Build: func(c any, deps eventtap.SinkDeps) (eventtap.Sink, error) { return New(c.(Config), deps), nil },
	}}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.NatsSink{}, protofields.Honour("urls", "stream", "subject_prefix", "credentials_file", "user",
		"password_file", "token_file", "tls", "allow_plaintext", "create_stream", "format", "batch", "max_in_flight", "ack_timeout"))
	t.Add(&tapv1.Tls{}, protofields.Honour("ca_file", "certificate_file", "private_key_file", "server_name"))
	t.Add(&tapv1.CreateStream{}, protofields.Honour("max_bytes", "max_age", "replicas", "in_memory", "duplicate_window"))
	return t
}()

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.NatsSink
	if err := eventtap.Unmarshal(b, &m, fields); err != nil {
		return registry.Parsed{}, err
	}
	c := Config{Stream: m.Stream, Prefix: m.SubjectPrefix, Batch: m.Batch, InFlight: defaultInFlight, AckTimeout: defaultAckTimeout}
	for _, step := range []func(*Config, *tapv1.NatsSink) error{parseURLs, parseNames, parseLogin, parseTLS, parseStream, parseSending} {
		if err := step(&c, &m); err != nil {
			return registry.Parsed{}, err
		}
	}
	return registry.Parsed{Config: c}, nil
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
		if u.Scheme == "nats" && !local(u.Hostname()) && !m.AllowPlaintext {
			c.Secure = true
		}
	}
	return nil
}

// local tells whether a host is this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func parseNames(c *Config, m *tapv1.NatsSink) error {
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
	if (m.User == "") != (m.PasswordFile == "") {
		return registry.Errorf("password_file", "must be set together with user")
	}
	c.CredentialsFile, c.User, c.PasswordFile, c.TokenFile = m.CredentialsFile, m.User, m.PasswordFile, m.TokenFile
	return nil
}

func parseTLS(c *Config, m *tapv1.NatsSink) error {
	t := m.Tls
	if t == nil {
		return nil
	}
	if (t.CertificateFile == "") != (t.PrivateKeyFile == "") {
		return registry.Errorf("tls", "certificate_file and private_key_file must be set together")
	}
	c.TLS = &TLS{CAFile: t.CaFile, CertificateFile: t.CertificateFile, KeyFile: t.PrivateKeyFile, ServerName: t.ServerName}
	return nil
}

func parseStream(c *Config, m *tapv1.NatsSink) error {
	s := m.CreateStream
	if s == nil {
		return nil
	}
	c.Create = &Create{MaxBytes: defaultStreamBytes, Replicas: 1, InMemory: s.InMemory, Duplicates: defaultDuplicates}
	if v := s.MaxBytes; v != nil {
		if v.Value < 1<<20 || v.Value > 1<<60 {
			return registry.Errorf("create_stream.max_bytes", "%d, must be at least %d", v.Value, 1<<20)
		}
		c.Create.MaxBytes = int64(v.Value)
	}
	if v := s.Replicas; v != nil {
		if v.Value < 1 || v.Value > maxReplicas {
			return registry.Errorf("create_stream.replicas", "%d, must be 1 to %d", v.Value, maxReplicas)
		}
		c.Create.Replicas = int(v.Value)
	}
	var err error
	if c.Create.MaxAge, err = duration("create_stream.max_age", s.MaxAge, 0, time.Second, 1<<62); err != nil {
		return err
	}
	most := time.Duration(1 << 62)
	if c.Create.MaxAge > 0 {
		most = c.Create.MaxAge // the server refuses a longer one
	}
	c.Create.Duplicates, err = duration("create_stream.duplicate_window", s.DuplicateWindow, min(defaultDuplicates, most), minDuplicates, most)
	return err
}

func parseSending(c *Config, m *tapv1.NatsSink) error {
	switch m.Format {
	case tapv1.Format_FORMAT_UNSPECIFIED, tapv1.Format_JSON:
	case tapv1.Format_PROTOBUF:
		c.Proto = true
	default:
		return registry.Errorf("format", "%s, must be JSON or PROTOBUF", m.Format)
	}
	if v := m.MaxInFlight; v != nil {
		if v.Value < 1 || v.Value > maxInFlight {
			return registry.Errorf("max_in_flight", "%d, must be 1 to %d", v.Value, maxInFlight)
		}
		c.InFlight = int(v.Value)
	}
	var err error
	c.AckTimeout, err = duration("ack_timeout", m.AckTimeout, defaultAckTimeout, minAckTimeout, maxAckTimeout)
	return err
}

// duration reads a duration that has a default and limits.
func duration(path string, d *durationpb.Duration, def, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return def, nil
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < least || v > most {
		return 0, registry.Errorf(path, "%v, must be %v to %v", v, least, most)
	}
	return v, nil
}
