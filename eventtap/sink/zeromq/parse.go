// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/zmtp"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.ZeromqSink"

// The defaults and limits of a configuration.
const (
	defaultPrefix    = "meshtap.events"
	maxPrefix        = 128
	maxConnect       = 16
	maxUser          = 255 // PLAIN has one byte for the length
	defaultPeerBytes = 1 << 20
	minPeerBytes     = 64 << 10
	maxPeerBytes     = 64 << 20
	defaultMaxPeers  = 64
	maxMaxPeers      = 1024
	defaultHeartbeat = 10 * time.Second
	defaultAck       = 30 * time.Second
	minTime, maxTime = 100 * time.Millisecond, 10 * time.Minute
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("zeromq", TypeURL, parse, New)}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.ZeromqSink{}, protofields.Honour("pattern", "bind", "connect", "topic_prefix", "format", "user", "password_file",
		"allow_plaintext", "curve", "peer_buffer_bytes", "max_peers", "heartbeat", "ack_timeout"))
	t.Add(&tapv1.Curve{}, protofields.Honour("secret_key_file", "server_key", "client_keys"))
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.ZeromqSink
	return eventtap.ParseSink(b, &m, fields, parsePattern, parseAddresses, parseForm, parseCurve, parseLimits)
}

func parsePattern(c *Config, m *tapv1.ZeromqSink) error {
	switch m.Pattern {
	case tapv1.ZeromqSink_PUB:
		c.Pattern = Pub
	case tapv1.ZeromqSink_PUSH:
		c.Pattern = Push
	case tapv1.ZeromqSink_DEALER:
		c.Pattern = Dealer
	default:
		return registry.Errorf("pattern", "%s, must be PUB, PUSH or DEALER", m.Pattern)
	}
	return nil
}

func parseAddresses(c *Config, m *tapv1.ZeromqSink) (err error) {
	if (m.Bind == "") == (len(m.Connect) == 0) {
		return registry.Errorf("bind", "exactly one of bind and connect must be set")
	}
	if len(m.Connect) > maxConnect {
		return registry.Errorf("connect", "there are %d, at most %d are allowed", len(m.Connect), maxConnect)
	}
	if m.Bind != "" {
		c.Bind, err = address("bind", m.Bind, m.AllowPlaintext || m.Curve != nil)
		return err
	}
	for i, s := range m.Connect {
		at, err := address(fmt.Sprintf("connect[%d]", i), s, m.AllowPlaintext || m.Curve != nil)
		if err != nil {
			return err
		}
		c.Connect = append(c.Connect, at)
	}
	return nil
}

// address reads tcp://host:port.
func address(path, s string, anywhere bool) (string, error) {
	at, ok := strings.CutPrefix(s, "tcp://")
	host, port, err := net.SplitHostPort(at)
	if _, perr := strconv.ParseUint(port, 10, 16); !ok || err != nil || perr != nil || host == "" || strings.ContainsAny(host, "*/@ ") {
		return "", registry.Errorf(path, "%q, must be tcp://host:port", s)
	}
	if !anywhere && !login.Local(host) {
		return "", registry.Errorf(path, "%q is not on this machine: set curve, or allow_plaintext", s)
	}
	return at, nil
}

func parseForm(c *Config, m *tapv1.ZeromqSink) (err error) {
	if c.Prefix = m.TopicPrefix; c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if len(c.Prefix) > maxPrefix {
		return registry.Errorf("topic_prefix", "%d bytes, at most %d are allowed", len(c.Prefix), maxPrefix)
	}
	if c.Proto, err = login.ParseFormat(m.Format); err != nil {
		return err
	}
	c.User, c.PasswordFile = m.User, m.PasswordFile
	if len(c.User) > maxUser {
		return registry.Errorf("user", "%d bytes, at most %d are allowed", len(c.User), maxUser)
	}
	return login.ParseUser(m.User, m.PasswordFile)
}

// parseCurve reads the keys. Which of them there must be follows from who connects, which parseAddresses has found.
func parseCurve(c *Config, m *tapv1.ZeromqSink) (err error) {
	k := m.Curve
	switch {
	case k == nil:
		return nil
	case m.User != "" || m.AllowPlaintext:
		return registry.Errorf("curve", "excludes user and allow_plaintext")
	case k.SecretKeyFile == "":
		return registry.Errorf("curve.secret_key_file", "must be set")
	case c.Bind != "" && k.ServerKey != "":
		return registry.Errorf("curve.server_key", "is that of a peer to connect to, and bind is set")
	case c.Bind == "" && len(k.ClientKeys) > 0:
		return registry.Errorf("curve.client_keys", "are those of peers that connect, and connect is set")
	case c.Bind != "" && (len(k.ClientKeys) == 0 || len(k.ClientKeys) > maxMaxPeers):
		return registry.Errorf("curve.client_keys", "there are %d, must be 1 to %d", len(k.ClientKeys), maxMaxPeers)
	}
	c.Curve = &Curve{SecretFile: k.SecretKeyFile}
	if c.Bind == "" {
		c.Curve.Server, err = key("curve.server_key", k.ServerKey)
		return err
	}
	for i, s := range k.ClientKeys {
		client, err := key(fmt.Sprintf("curve.client_keys[%d]", i), s)
		if err != nil {
			return err
		}
		c.Curve.Clients = append(c.Curve.Clients, client)
	}
	return nil
}

// key reads a public key.
func key(path, s string) (zmtp.Key, error) {
	k, err := zmtp.ParseKey(s)
	if err != nil {
		return k, registry.Errorf(path, "%v", err)
	}
	return k, nil
}

func parseLimits(c *Config, m *tapv1.ZeromqSink) (err error) {
	if c.PeerBytes, err = login.ParseNumber("peer_buffer_bytes", m.PeerBufferBytes, defaultPeerBytes, minPeerBytes, maxPeerBytes); err != nil {
		return err
	}
	if c.MaxPeers, err = login.ParseNumber("max_peers", m.MaxPeers, defaultMaxPeers, 1, maxMaxPeers); err != nil {
		return err
	}
	if c.Heartbeat, err = login.ParseDuration("heartbeat", m.Heartbeat, defaultHeartbeat, minTime, maxTime); err != nil {
		return err
	}
	c.AckTimeout, err = login.ParseDuration("ack_timeout", m.AckTimeout, defaultAck, minTime, maxTime)
	return err
}
