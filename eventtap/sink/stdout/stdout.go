// SPDX-License-Identifier: Apache-2.0

// Package stdout is the event sink that writes one CloudEvents JSON event per line to a writer, which is the standard
// output. An event counts as delivered once the writer has taken it; whoever reads at the other end may still lose it.
package stdout

import (
	"context"
	"fmt"
	"io"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// TypeURL is the type of the sink's configuration.
const TypeURL = "meshtap.tap.v1.StdoutSink"

// Rows returns the sink's row of the extension table. w is the standard output.
func Rows(w io.Writer) []eventtap.SinkRow {
	return []eventtap.SinkRow{{
		Info: registry.Info{
			Category: registry.EventSink, Name: "meshtap.event_sinks.stdout", TypeURLs: []string{TypeURL},
			Status: registry.Alpha, Posture: "data-plane-agnostic", Example: "tap.yaml",
		},
		Parse: parse,
		Build: func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return New(w), nil },
	}}
}

var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&tapv1.StdoutSink{})
	return t
}()

// Fields returns the table of the fields that the sink honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	return registry.Parsed{}, eventtap.Unmarshal(b, new(tapv1.StdoutSink), fields)
}

// Sink writes lines. Its methods are called by one goroutine.
type Sink struct {
	w       io.Writer
	written int // of the batch that is being written
}

// New returns a sink that writes to w.
func New(w io.Writer) *Sink { return &Sink{w: w} }

// Caps returns what the sink promises.
func (*Sink) Caps() eventtap.Caps {
	return eventtap.Caps{Encoding: eventtap.JSONLines, InFlight: 1}
}

// Open does nothing.
func (*Sink) Open(context.Context) error { return nil }

// Send writes the batch. It waits as long as the writer does. After an error it goes on where the writer stopped, so
// that no line is torn.
func (s *Sink) Send(_ context.Context, b *eventtap.Batch, done func(error)) {
	n, err := s.w.Write(b.Body[s.written:])
	s.written += n
	if err != nil {
		done(fmt.Errorf("stdout: %w", err))
		return
	}
	s.written = 0
	done(nil)
}

// Close does nothing: the writer is not the sink's.
func (*Sink) Close(context.Context) error { return nil }

var _ eventtap.Sink = (*Sink)(nil)
