// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"path/filepath"
	"strings"
	"sync/atomic"

	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/internal/logform"
)

// LogForm is the form of the process' own log, where the operator gives one: on the command line, or in the bootstrap, which
// is read when the log has begun.
type LogForm struct{ form atomic.Pointer[logform.Form] }

// Set changes the form from the next line on.
func (f *LogForm) Set(form *logform.Form) { f.form.Store(form) }

// Core returns a core that writes to out in the form, and as plain does where there is none.
func (f *LogForm) Core(plain zapcore.Core, out zapcore.WriteSyncer) zapcore.Core {
	return &formed{Core: plain, form: f, out: out}
}

// formed is a core with a form. fields are those of With.
type formed struct {
	zapcore.Core
	form   *LogForm
	out    zapcore.WriteSyncer
	fields []zapcore.Field
}

// With implements zapcore.Core.
func (c *formed) With(fields []zapcore.Field) zapcore.Core {
	all := append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return &formed{Core: c.Core.With(fields), form: c.form, out: c.out, fields: all}
}

// Check implements zapcore.Core.
func (c *formed) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// maxLine bounds a line of the log.
const maxLine = 8 << 10

// Write implements zapcore.Core.
func (c *formed) Write(e zapcore.Entry, fields []zapcore.Field) error {
	form := c.form.form.Load()
	if form == nil {
		return c.Core.Write(e, fields)
	}
	// What stands with a message is behind it, as JSON: an encoder without keys of its own writes nothing else.
	b, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{SkipLineEnding: true}).EncodeEntry(zapcore.Entry{},
		append(c.fields[:len(c.fields):len(c.fields)], fields...))
	if err != nil {
		return err
	}
	defer b.Free()
	entry := &logform.Entry{Time: e.Time, Level: levelName(e.Level), Logger: e.LoggerName, Message: e.Message}
	if b.Len() > len("{}") {
		entry.Message += " " + b.String()
	}
	entry.Message = entry.Message[:min(len(entry.Message), maxLine)]
	if e.Caller.Defined {
		entry.File, entry.Line = filepath.ToSlash(e.Caller.TrimmedPath()), e.Caller.Line
		entry.File, _, _ = strings.Cut(entry.File, ":")
		entry.Func = e.Caller.Function[strings.LastIndexByte(e.Caller.Function, '.')+1:]
	}
	if e.Stack != "" {
		entry.Message += " " + string(bytes.TrimSpace([]byte(e.Stack)))
	}
	_, err = c.out.Write(form.Append(nil, entry))
	return err
}

var _ zapcore.Core = (*formed)(nil)
