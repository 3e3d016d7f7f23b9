// SPDX-License-Identifier: Apache-2.0

package file

import (
	"path/filepath"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.FileSink"

// The defaults and limits of a configuration.
const (
	defaultMaxBytes, minMaxBytes = 64 << 20, 64 << 10
	defaultMaxFiles, maxMaxFiles = 5, 100
)

// Rows returns the sink's row of the extension table.
func Rows() []eventtap.SinkRow {
	return []eventtap.SinkRow{{
		Info: registry.Info{
			Category: registry.EventSink, Name: "meshtap.event_sinks.file", TypeURLs: []string{TypeURL},
			Status: registry.Alpha, Posture: "data-plane-agnostic", Example: "tap.yaml",
		},
		Parse: parse,
		Build: func(c any, _ eventtap.SinkDeps) (eventtap.Sink, error) { return New(c.(Config)), nil },
	}}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.FileSink{}, protofields.Honour("path", "max_bytes", "max_files", "format", "fsync"))
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	var m tapv1.FileSink
	if err := eventtap.Unmarshal(b, &m, fields); err != nil {
		return registry.Parsed{}, err
	}
	c := Config{Path: m.Path, MaxBytes: defaultMaxBytes, MaxFiles: defaultMaxFiles, Fsync: m.Fsync}
	if !filepath.IsAbs(m.Path) {
		return registry.Parsed{}, registry.Errorf("path", "%q, must be an absolute path", m.Path)
	}
	if v := m.MaxBytes; v != nil {
		if v.Value < minMaxBytes || v.Value > 1<<50 {
			return registry.Parsed{}, registry.Errorf("max_bytes", "%d, must be at least %d", v.Value, minMaxBytes)
		}
		c.MaxBytes = int64(v.Value)
	}
	if v := m.MaxFiles; v != nil {
		if v.Value < 1 || v.Value > maxMaxFiles {
			return registry.Parsed{}, registry.Errorf("max_files", "%d, must be 1 to %d", v.Value, maxMaxFiles)
		}
		c.MaxFiles = int(v.Value)
	}
	var err error
	if c.Proto, err = login.ParseFormat(m.Format); err != nil {
		return registry.Parsed{}, err
	}
	return registry.Parsed{Config: c}, nil
}
