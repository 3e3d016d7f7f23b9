// SPDX-License-Identifier: Apache-2.0

// Package accesslog writes a line for each outcome: to files, to standard output and to standard error, as text or as
// JSON, in Envoy's formats; or sends an entry to an access log service. It is an observer, at the very end of a request.
//
// The request's goroutine formats the line and copies it into the file's buffer; it never waits for a disk. One goroutine
// per file, owned by Files, writes the buffer out. A buffer that is full drops the line and counts it, and so does an
// error of the file: a log that cannot be written must not stop traffic.
package accesslog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
)

// Logger is an access logger. Close gives back what it holds, after the last call of Observe.
type Logger interface {
	mesh.Observer
	Close()
}

// Deps are what loggers are built with.
type Deps struct {
	// Files and Services are shared by all loggers of the process; nil where there are none.
	Files    *Files
	Services *als.Clients
	// Env is what formats can name besides the outcome.
	Env *format.Env
}

// Builder makes a logger of the configuration that the row's Parse returned.
type Builder func(config any, deps Deps) (Logger, error)

// Log is the access logs of one listener, connection manager or TCP proxy, each behind its filter.
type Log struct{ entries []entry }

type entry struct {
	filter *mesh.LogFilter
	logger Logger
}

// New builds the loggers. builders are the building sides of Rows, and of others of the category, by type URL. After an
// error nothing is held.
func New(logs []mesh.AccessLog, builders map[string]Builder, deps Deps) (*Log, error) {
	l := &Log{}
	for i, a := range logs {
		build := builders[a.TypeURL]
		if build == nil {
			l.Close()
			return nil, fmt.Errorf("access log %d: nothing builds loggers of type %s", i, a.TypeURL)
		}
		logger, err := build(a.Config, deps)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("access log %d: %w", i, err)
		}
		l.entries = append(l.entries, entry{a.Filter, logger})
	}
	return l, nil
}

// Observe hands the outcome to each logger whose filter lets it through.
func (l *Log) Observe(o *mesh.Outcome) {
	for i := range l.entries {
		if e := &l.entries[i]; e.filter == nil || Passes(e.filter, o) {
			e.logger.Observe(o)
		}
	}
}

// Close closes the loggers.
func (l *Log) Close() {
	for _, e := range l.entries {
		e.logger.Close()
	}
	l.entries = nil
}

// Passes reports whether a filter lets an outcome through.
func Passes(f *mesh.LogFilter, o *mesh.Outcome) bool {
	switch {
	case f.Status != nil:
		return compare(f.Status, int64(o.Status))
	case f.Duration != nil:
		return o.Duration >= 0 && compare(f.Duration, o.Duration/1e6)
	case f.AnyFlag:
		return o.Flags != 0
	case f.Flags != 0:
		return o.Flags&f.Flags != 0
	case f.NotCheck, f.Always:
		return true // health checks that the proxy itself answers are not outcomes
	case f.Extension != nil:
		return f.Extension.Config.(*Expression).Passes(o)
	case f.Header != nil:
		return route.MatchHeaderValue(f.Header, requestHeader(o, f.Header.Name)) == route.Yes
	case f.Share != nil:
		return shares(f.Share, o)
	case f.GRPC != nil:
		code := format.GRPCStatus(o)
		found := code >= 0 && code < 32 && f.GRPC.Statuses>>code&1 != 0
		return found != f.GRPC.Exclude
	case f.HTTP || f.TCP:
		return f.HTTP && f.TCP || f.TCP == (o.Kind == mesh.OutcomeTCP)
	case f.And != nil:
		return !slices.ContainsFunc(f.And, func(p *mesh.LogFilter) bool { return !Passes(p, o) })
	}
	return slices.ContainsFunc(f.Or, func(p *mesh.LogFilter) bool { return Passes(p, o) })
}

// shares reports whether an outcome is in a share. As in Envoy's RuntimeFilter, what has no request id that begins with
// eight hexadecimal digits takes a random number, and the value of the runtime is a numerator.
func shares(s *mesh.LogShare, o *mesh.Outcome) bool {
	num := uint64(s.Numerator)
	if s.Runtime != nil {
		num = s.Runtime.Integer(num)
	}
	var id [4]byte
	if !s.Independent && len(o.RequestID) >= 8 {
		if _, err := hex.Decode(id[:], o.RequestID[:8]); err == nil {
			return uint64(binary.BigEndian.Uint32(id[:])%s.Denominator) < num
		}
	}
	return uint64(rand.Uint32N(s.Denominator)) < num
}

func requestHeader(o *mesh.Outcome, name string) []byte {
	if o.Headers == nil {
		return nil
	}
	return o.Headers.RequestHeader(name)
}

func compare(c *mesh.Comparison, v int64) bool {
	want := int64(c.Value)
	if c.Runtime != nil {
		want = int64(c.Runtime.Integer(uint64(c.Value)))
	}
	switch c.Op {
	case '>':
		return v >= want
	case '<':
		return v <= want
	case '!':
		return v != want
	}
	return v == want
}

// MaxLine is the greatest length of a line in bytes, its newline included.
const MaxLine = 8 << 10

// line is a logger that formats lines for a file.
type line struct {
	config Config
	env    *format.Env
	style  format.Style
	file   *file
}

func newLine(c Config, deps Deps) (Logger, error) {
	f, err := deps.Files.share(c.Path)
	if err != nil {
		return nil, err
	}
	l := &line{config: c, env: deps.Env, file: f}
	if c.OmitEmpty {
		l.style = format.LogOmitEmpty
	}
	return l, nil
}

// Observe formats the line and hands it to the file.
func (l *line) Observe(o *mesh.Outcome) {
	files := l.file.files
	buf := files.buffer()
	b, ok := l.render((*buf)[:0], o)
	if ok {
		l.file.append(b)
	}
	files.release(buf, b)
}

// Close gives the file back.
func (l *line) Close() { l.file.files.unshare(l.file) }

// render makes the line. What is too long is cut: text at its end, of JSON the values, so that the line stays JSON. ok is
// false where even that is too long, and then the line is counted as dropped.
func (l *line) render(b []byte, o *mesh.Outcome) (_ []byte, ok bool) {
	if l.config.JSON == nil {
		b = l.env.Append(b, l.config.Text, o, l.style)
		if len(b) <= MaxLine {
			return b, true
		}
		l.file.files.counts.Inc(0, metrics.LogTruncated)
		if b[len(b)-1] == '\n' {
			b[MaxLine-1] = '\n'
		}
		return b[:MaxLine], true
	}
	for _, most := range [...]int{0, 512, 64, 8} {
		b = l.env.AppendJSON(b[:0], l.config.JSON, o, l.config.OmitEmpty, most)
		if len(b) <= MaxLine {
			if most != 0 {
				l.file.files.counts.Inc(0, metrics.LogTruncated)
			}
			return b, true
		}
	}
	l.file.files.counts.Inc(0, metrics.LogDropped)
	return b, false
}

// std returns the name under which a path shares a writer: the path as it is, or the name of a standard stream, whose
// device file a process often may not open although it holds the stream itself.
func std(path string) string {
	switch path {
	case "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1":
		return Stdout
	case "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2":
		return Stderr
	}
	return path
}

var _ mesh.Observer = (*Log)(nil)
