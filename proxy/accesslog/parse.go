// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filepb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streampb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// Config is the configuration of a logger that writes lines.
type Config struct {
	// Path is a file's, or Stdout or Stderr.
	Path string
	// Text is the format of a text log, JSON that of a JSON log; Text counts where JSON is nil.
	Text mesh.Format
	JSON *format.JSON
	// OmitEmpty leaves unset values out.
	OmitEmpty bool
}

const (
	typeFile   = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
	typeStdout = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
	typeStderr = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"
)

// Rows returns the loggers for the table of extensions.
func Rows() []registry.Row[Builder] {
	row := func(name, typeURL string, parse registry.Parse) registry.Row[Builder] {
		return registry.Row[Builder]{
			Info: registry.Info{
				Category: registry.AccessLogger, Name: name, TypeURLs: []string{typeURL},
				Status: registry.Stable, Posture: "data-plane-agnostic", Example: "accesslog.yaml",
			},
			Parse: parse,
			Build: func(config any, deps Deps) (Logger, error) { return newLine(config.(Config), deps) },
		}
	}
	return append([]registry.Row[Builder]{
		row("envoy.access_loggers.file", typeFile, parseFile),
		row("envoy.access_loggers.stdout", typeStdout, parseStdout),
		row("envoy.access_loggers.stderr", typeStderr, parseStderr),
	}, serviceRows()...)
}

// fields says which fields of the messages are honoured.
var fields = coverage()

func coverage() *protofields.Table {
	t := protofields.New()
	t.Add(&filepb.FileAccessLog{}, protofields.Honour("path", "log_format"), protofields.Opaque("format", "json_format", "typed_json_format"))
	t.Add(&streampb.StdoutAccessLog{}, protofields.Honour("log_format"))
	t.Add(&streampb.StderrAccessLog{}, protofields.Honour("log_format"))
	t.Add(&corepb.SubstitutionFormatString{},
		protofields.Honour("text_format", "text_format_source", "omit_empty_values"),
		protofields.Opaque("json_format"),
		protofields.Ignore("a log has no content type", "content_type"),
		protofields.Ignore("REQ_WITHOUT_QUERY is always there; the operators of other formatters are refused where they are used", "formatters"),
		protofields.Ignore("the members of an object are always sorted", "json_format_options"))
	t.Add(&corepb.DataSource{},
		protofields.Honour("inline_string", "inline_bytes"),
		protofields.Refuse("a format cannot come from a file or the environment; write it inline", "filename", "environment_variable", "watched_directory"))
	return t
}

func parseFile(_ string, b []byte) (registry.Parsed, error) {
	var m filepb.FileAccessLog
	p, err := fields.Decode(b, &m)
	if err != nil {
		return p, err
	}
	c := Config{Path: m.Path}
	switch x := m.AccessLogFormat.(type) {
	case *filepb.FileAccessLog_Format:
		//lint:ignore SA1019 Envoy still reads the deprecated formats.
		err = c.text("format", x.Format, true)
	case *filepb.FileAccessLog_JsonFormat:
		//lint:ignore SA1019 as above
		err = c.json("json_format", x.JsonFormat)
	case *filepb.FileAccessLog_TypedJsonFormat:
		//lint:ignore SA1019 as above
		err = c.json("typed_json_format", x.TypedJsonFormat)
	default:
		err = c.format(m.GetLogFormat())
	}
	return finish(p, c, err)
}

func parseStdout(_ string, b []byte) (registry.Parsed, error) {
	var m streampb.StdoutAccessLog
	p, err := fields.Decode(b, &m)
	if err != nil {
		return p, err
	}
	c := Config{Path: Stdout}
	err = c.format(m.GetLogFormat())
	return finish(p, c, err)
}

func parseStderr(_ string, b []byte) (registry.Parsed, error) {
	var m streampb.StderrAccessLog
	p, err := fields.Decode(b, &m)
	if err != nil {
		return p, err
	}
	c := Config{Path: Stderr}
	err = c.format(m.GetLogFormat())
	return finish(p, c, err)
}

func finish(p registry.Parsed, c Config, err error) (registry.Parsed, error) {
	if err != nil {
		return registry.Parsed{}, err
	}
	p.Config = c
	return p, nil
}

// format reads log_format; nil means Envoy's default text.
func (c *Config) format(m *corepb.SubstitutionFormatString) error {
	if m == nil {
		return c.text("", format.Default, false)
	}
	c.OmitEmpty = m.OmitEmptyValues
	switch x := m.Format.(type) {
	case *corepb.SubstitutionFormatString_TextFormat:
		//lint:ignore SA1019 as above; it is what most control planes send
		return c.text("log_format.text_format", x.TextFormat, false)
	case *corepb.SubstitutionFormatString_TextFormatSource:
		if s, ok := x.TextFormatSource.GetSpecifier().(*corepb.DataSource_InlineBytes); ok {
			return c.text("log_format.text_format_source.inline_bytes", string(s.InlineBytes), false)
		}
		return c.text("log_format.text_format_source.inline_string", x.TextFormatSource.GetInlineString(), false)
	}
	return c.json("log_format.json_format", m.GetJsonFormat())
}

// text reads a text format. The old format field takes the default for "", log_format does not.
func (c *Config) text(path, s string, emptyIsDefault bool) error {
	if s == "" && emptyIsDefault {
		s = format.Default
	}
	f, err := format.Parse(s)
	if err != nil {
		return registry.Errorf(path, "%v", err)
	}
	c.Text = f
	return nil
}

func (c *Config) json(path string, s *structpb.Struct) error {
	j, err := format.ParseJSON(s.AsMap())
	if err != nil {
		return registry.Errorf(path, "%v", err)
	}
	c.JSON = j
	return nil
}
