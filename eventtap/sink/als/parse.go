// SPDX-License-Identifier: Apache-2.0

package als

import (
	"net"
	"strconv"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.AlsSink"

const (
	defaultLogName = "meshtap"
	maxLogName     = 128
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{eventtap.BusRow("als", TypeURL, parse,
		func(c Config, _ eventtap.SinkDeps) *Sink { return New(c) })}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.AlsSink{}, protofields.Honour("address", "log_name", "tls", "allow_plaintext"))
	login.Fields(t)
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.AlsSink
	return eventtap.ParseSink(b, &m, fields, parseName, parseAddress)
}

func parseName(c *Config, m *tapv1.AlsSink) error {
	if c.LogName = m.LogName; c.LogName == "" {
		c.LogName = defaultLogName
	}
	if len(c.LogName) > maxLogName {
		return registry.Errorf("log_name", "%d bytes, at most %d are allowed", len(c.LogName), maxLogName)
	}
	return nil
}

func parseAddress(c *Config, m *tapv1.AlsSink) (err error) {
	host, port, err := net.SplitHostPort(m.Address)
	if _, number := strconv.ParseUint(port, 10, 16); err != nil || number != nil || host == "" {
		return registry.Errorf("address", "%q, must be host:port", m.Address)
	}
	c.Address = m.Address
	if m.Tls != nil {
		c.TLS, err = login.ParseTLS(m.Tls)
		return err
	}
	if !m.AllowPlaintext && !login.Local(host) {
		return registry.Errorf("address", "%q is not on this machine: set tls, or allow_plaintext", m.Address)
	}
	return nil
}
