// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	proxyformat "github.com/meshtap/meshtap/proxy/format"
)

// sinkWriter is a standard stream that remembers its writes, may fail, and may be made to wait.
type sinkWriter struct {
	mu     sync.Mutex
	writes []string
	err    error
	gate   chan struct{} // where it is not nil, each write waits for a value
	began  chan struct{} // where it is not nil, gets a value when a write begins
}

func (w *sinkWriter) Write(p []byte) (int, error) {
	if w.began != nil {
		w.began <- struct{}{}
	}
	if w.gate != nil {
		<-w.gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.writes = append(w.writes, string(p))
	return len(p), nil
}

func (w *sinkWriter) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.writes, "")
}

func (w *sinkWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func text(t testing.TB, s string) mesh.Format {
	t.Helper()
	f, err := format.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func object(t testing.TB, s string) *format.JSON {
	t.Helper()
	var in map[string]any
	if err := json.Unmarshal([]byte(s), &in); err != nil {
		t.Fatal(err)
	}
	j, err := format.ParseJSON(in)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func log(t testing.TB, files *Files, c Config, filter *mesh.LogFilter) *Log {
	t.Helper()
	a := mesh.AccessLog{Extension: mesh.Extension{TypeURL: typeFile, Config: c}, Filter: filter}
	l, err := New([]mesh.AccessLog{a}, registry.Builders(Rows()), Deps{Files: files, Env: &proxyformat.Env{}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFlushAfterInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &sinkWriter{}
		files := NewFiles(Options{Stdout: out, FlushInterval: 3 * time.Second})
		defer files.Close()
		l := log(t, files, Config{Path: Stdout, Text: text(t, "%RESPONSE_CODE%\n")}, nil)
		l.Observe(sample())
		l.Observe(sample())
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		if got := out.all(); got != "" {
			t.Errorf("written early: %q", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := out.writes; len(got) != 1 || got[0] != "204\n204\n" {
			t.Errorf("writes %q, want both lines at once", got)
		}
		if s := files.Stats(); s.Lines != 2 || s.Bytes != 8 || s.Dropped != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestFlushWhenMuchWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &sinkWriter{}
		files := NewFiles(Options{Stdout: out, FlushInterval: time.Hour, FlushBytes: 10})
		defer files.Close()
		l := log(t, files, Config{Path: "/dev/stdout", Text: text(t, "12345678\n")}, nil)
		l.Observe(sample())
		synctest.Wait()
		if got := out.all(); got != "" {
			t.Errorf("written early: %q", got)
		}
		l.Observe(sample())
		synctest.Wait()
		if got := out.all(); got != "12345678\n12345678\n" {
			t.Errorf("written %q", got)
		}
	})
}

// TestFullBufferDrops: while the stream does not take anything, lines are dropped and counted, and nobody waits.
func TestFullBufferDrops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &sinkWriter{gate: make(chan struct{})}
		files := NewFiles(Options{Stdout: out, FlushBytes: 5, BufferBytes: 20})
		l := log(t, files, Config{Path: Stdout, Text: text(t, "1234\n")}, nil)
		l.Observe(sample())
		synctest.Wait() // the first line is on its way and stuck
		for range 6 {
			l.Observe(sample())
		}
		if s := files.Stats(); s.Dropped != 2 {
			t.Errorf("%d dropped, want 2: four lines fit", s.Dropped)
		}
		close(out.gate)
		files.Close()
		if got := out.all(); got != strings.Repeat("1234\n", 5) {
			t.Errorf("written %q", got)
		}
		l.Observe(sample())
		if s := files.Stats(); s.Dropped != 3 || s.Lines != 5 {
			t.Errorf("stats %+v, want a line after Close dropped", s)
		}
	})
}

func TestWriteErrorsAreCountedAndToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, told := observer.New(zap.InfoLevel)
		out := &sinkWriter{err: errors.New("no space left")}
		files := NewFiles(Options{Stderr: out, Logger: zap.New(core)})
		defer files.Close()
		l := log(t, files, Config{Path: Stderr, Text: text(t, "x\ny\n")}, nil)
		for range 3 {
			l.Observe(sample())
			files.Flush()
		}
		if s := files.Stats(); s.WriteErrors != 3 || s.Dropped != 6 || s.Lines != 0 {
			t.Errorf("stats %+v", s)
		}
		out.fail(nil)
		l.Observe(sample())
		files.Flush()
		if got := out.all(); got != "x\ny\n" {
			t.Errorf("written %q after the error", got)
		}
		if n := told.Len(); n != 2 || told.All()[0].Level != zap.WarnLevel || told.All()[1].Level != zap.InfoLevel {
			t.Errorf("told %+v, want one warning and one all-clear", told.All())
		}
	})
}

func TestLoggersShareAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	files := NewFiles(Options{FlushInterval: time.Hour})
	a := log(t, files, Config{Path: path, Text: text(t, "a\n")}, nil)
	b := log(t, files, Config{Path: path, Text: text(t, "b\n")}, nil)
	if len(files.byPath) != 1 {
		t.Errorf("%d writers for one path", len(files.byPath))
	}
	a.Observe(sample())
	b.Observe(sample())
	a.Observe(sample())
	a.Close()
	b.Observe(sample())
	b.Close() // the last user: written and closed
	if len(files.byPath) != 0 {
		t.Error("the writer outlives its loggers")
	}
	if got := read(t, path); got != "a\nb\na\nb\n" {
		t.Errorf("file holds %q", got)
	}
	c := log(t, files, Config{Path: path, Text: text(t, "c\n")}, nil)
	c.Observe(sample())
	files.Close()
	c.Close()
	files.Close()
	if got := read(t, path); got != "a\nb\na\nb\nc\n" {
		t.Errorf("file holds %q, want appended", got)
	}
	if _, err := files.share(path); err == nil {
		t.Error("a file was opened after Close")
	}
}

// TestStandardStreams: the device files and the streams are one writer each.
func TestStandardStreams(t *testing.T) {
	t.Parallel()
	out, errs := &sinkWriter{}, &sinkWriter{}
	files := NewFiles(Options{Stdout: out, Stderr: errs, FlushInterval: time.Hour})
	for _, path := range []string{Stdout, "/dev/stdout", "/proc/self/fd/1", Stderr, "/dev/stderr", "/dev/fd/2"} {
		log(t, files, Config{Path: path, Text: text(t, "x\n")}, nil).Observe(sample())
	}
	if len(files.byPath) != 2 {
		t.Errorf("%d writers, want 2", len(files.byPath))
	}
	files.Close()
	if out.all() != "x\nx\nx\n" || errs.all() != "x\nx\nx\n" {
		t.Errorf("stdout %q, stderr %q", out.all(), errs.all())
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	files := NewFiles(Options{FlushInterval: time.Hour})
	defer files.Close()
	l := log(t, files, Config{Path: path, Text: text(t, "%RESPONSE_CODE%\n")}, nil)
	std := log(t, files, Config{Path: Stdout, Text: text(t, "")}, nil)
	defer std.Close()
	l.Observe(sample())
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := files.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Observe(sample())
	l.Observe(sample())
	files.Flush()
	if old, new := read(t, path+".1"), read(t, path); old != "204\n" || new != "204\n204\n" {
		t.Errorf("old file %q, new file %q", old, new)
	}

	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := files.Reopen(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Reopen says %v, want an error that names %s", err, path)
	}
	if s := files.Stats(); s.ReopenErrors != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	files := NewFiles(Options{MaxFiles: 1})
	defer files.Close()
	deps := Deps{Files: files, Env: &proxyformat.Env{}}
	builders := registry.Builders(Rows())
	logs := func(paths ...string) (out []mesh.AccessLog) {
		for _, p := range paths {
			out = append(out, mesh.AccessLog{Extension: mesh.Extension{TypeURL: typeFile, Config: Config{Path: p}}})
		}
		return out
	}
	tests := []struct {
		name string
		logs []mesh.AccessLog
		want string
	}{
		{"no folder", logs(filepath.Join(dir, "none", "x")), "no such file"},
		{"a folder", logs(dir), "is a directory"},
		{"a socket", logs(socket.Addr().String()), "is a pipe or socket"},
		{"too many", logs(filepath.Join(dir, "a"), filepath.Join(dir, "b")), "access log 1: open access log"},
		{"unknown type", []mesh.AccessLog{{Extension: mesh.Extension{TypeURL: "x.Y"}}}, "access log 0: nothing builds loggers of type x.Y"},
	}
	for _, tt := range tests {
		if _, err := New(tt.logs, builders, deps); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if len(files.byPath) != 0 {
			t.Errorf("%s: a file stays open after the error", tt.name)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLongLines: text is cut at its end and keeps its newline, JSON is cut in its values and stays JSON, and what cannot
// be cut is dropped.
func TestLongLines(t *testing.T) {
	t.Parallel()
	out := &sinkWriter{}
	files := NewFiles(Options{Stdout: out, FlushInterval: time.Hour})
	defer files.Close()
	o := sample()
	o.Path = bytes.Repeat([]byte("é"), MaxLine)
	constant := strings.Repeat("c", MaxLine)
	log(t, files, Config{Path: Stdout, Text: text(t, "%PATH%\n")}, nil).Observe(o)
	log(t, files, Config{Path: Stdout, Text: text(t, "%PATH%%PATH%")}, nil).Observe(o)
	log(t, files, Config{Path: Stdout, JSON: object(t, `{"p":"%PATH%","code":"%RESPONSE_CODE%"}`)}, nil).Observe(o)
	log(t, files, Config{Path: Stdout, JSON: object(t, `{"c":"`+constant+`","p":"%PATH%"}`)}, nil).Observe(o)
	files.Flush()

	got := out.all()
	first, rest := got[:MaxLine], got[MaxLine:]
	if first[:2] != "é" || !strings.HasSuffix(first, "\n") || strings.Count(first, "\n") != 1 {
		t.Errorf("text line ends in %q", first[len(first)-4:])
	}
	second, third := rest[:MaxLine], rest[MaxLine:]
	if strings.Contains(second, "\n") {
		t.Error("a line without newline got one")
	}
	if !json.Valid([]byte(third)) || !strings.HasPrefix(third, `{"code":204,"p":"éé`) || strings.Count(third, "\n") != 1 {
		t.Errorf("JSON line %.60q", third)
	}
	if s := files.Stats(); s.Truncated != 3 || s.Dropped != 1 {
		t.Errorf("stats %+v, want 3 truncated and 1 dropped", s)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	http := func(status int, flags mesh.Flags) *mesh.Outcome {
		return &mesh.Outcome{Status: status, Flags: flags, Duration: 250e6, Headers: headers{"x-debug": "yes", "user-agent": "curl"}}
	}
	ok, failed := http(200, 0), http(503, mesh.FlagUH|mesh.FlagURX)
	tcp := &mesh.Outcome{Kind: mesh.OutcomeTCP, Flags: mesh.FlagNR, Duration: -1}
	status := func(op byte, v uint32) *mesh.LogFilter {
		return &mesh.LogFilter{Status: &mesh.Comparison{Op: op, Value: v}}
	}
	duration := func(op byte, v uint32) *mesh.LogFilter {
		return &mesh.LogFilter{Duration: &mesh.Comparison{Op: op, Value: v}}
	}
	flags := func(f mesh.Flags) *mesh.LogFilter { return &mesh.LogFilter{Flags: f} }
	header := func(name, pattern string, invert bool) *mesh.LogFilter {
		m := &mesh.HeaderMatch{Name: name, Invert: invert}
		m.String = mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile(`\A(?:` + pattern + `)\z`)}
		return &mesh.LogFilter{Header: m}
	}
	missing := &mesh.LogFilter{Header: &mesh.HeaderMatch{Name: "none", Kind: mesh.HeaderPresent}}
	grpc := func(statuses uint32, exclude bool) *mesh.LogFilter {
		return &mesh.LogFilter{GRPC: &mesh.LogGRPC{Statuses: statuses, Exclude: exclude}}
	}
	tests := []struct {
		name            string
		f               *mesh.LogFilter
		ok, failed, tcp bool
	}{
		{"status =", status('=', 200), true, false, false},
		{"status >=", status('>', 500), false, true, false},
		{"status <=", status('<', 200), true, false, true},
		{"status !=", status('!', 200), false, true, true},
		{"duration >= the value", duration('>', 250), true, true, false},
		{"duration >= more", duration('>', 251), false, false, false},
		{"any flag", &mesh.LogFilter{AnyFlag: true}, false, true, true},
		{"one of the flags", flags(mesh.FlagURX | mesh.FlagDC), false, true, false},
		{"Istio's no route", flags(mesh.FlagNR), false, false, true},
		{"flags that nothing sets", &mesh.LogFilter{}, false, false, false},
		{"no health check", &mesh.LogFilter{NotCheck: true}, true, true, true},
		{"header", header("x-debug", "y.*", false), true, true, false},
		{"header inverted", header("x-debug", "n.*", true), true, true, false},
		{"header missing", missing, true, true, true},
		{"gRPC status, of HTTP where there is none", grpc(1<<14, false), false, true, false},
		{"gRPC status Unknown, which no answer is, too", grpc(1<<2, false), true, false, true},
		{"other gRPC statuses", grpc(1<<14, true), true, false, true},
		{"requests", &mesh.LogFilter{HTTP: true}, true, true, false},
		{"connections", &mesh.LogFilter{TCP: true}, false, false, true},
		{"requests and connections", &mesh.LogFilter{HTTP: true, TCP: true}, true, true, true},
		{"and", &mesh.LogFilter{And: []*mesh.LogFilter{status('>', 500), flags(mesh.FlagUH)}}, false, true, false},
		{"and, one fails", &mesh.LogFilter{And: []*mesh.LogFilter{status('>', 500), flags(mesh.FlagDC)}}, false, false, false},
		{"or", &mesh.LogFilter{Or: []*mesh.LogFilter{status('=', 200), flags(mesh.FlagNR)}}, true, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, c := range map[string]struct {
				o    *mesh.Outcome
				want bool
			}{"ok": {ok, tt.ok}, "failed": {failed, tt.failed}, "tcp": {tcp, tt.tcp}} {
				if got := Passes(tt.f, c.o); got != c.want {
					t.Errorf("%s: %v, want %v", name, got, c.want)
				}
			}
		})
	}
}

// numerator is a runtime key that has a number.
type numerator uint64

func (k numerator) Integer(uint64) uint64 { return uint64(k) }
func (numerator) Fraction(num, den uint32) (uint32, uint32) {
	return num, den
}
func (numerator) Double(d float64) float64 { return d }
func (numerator) Bool(b bool) bool         { return b }

// TestShare: a request is in a share by the first eight digits of its id (0x186a1 is 100,001), or by chance.
func TestShare(t *testing.T) {
	t.Parallel()
	const id = "000186a1-1b2c-4d5e-8f90-a1b2c3d4e5f6"
	for name, c := range map[string]struct {
		share mesh.LogShare
		id    string
		want  string // always, never or sometimes
	}{
		"in it":                    {mesh.LogShare{Numerator: 2, Denominator: 100}, id, "always"},
		"not in it":                {mesh.LogShare{Numerator: 1, Denominator: 100}, id, "never"},
		"of a million":             {mesh.LogShare{Numerator: 100_002, Denominator: 1_000_000}, id, "always"},
		"less of a million":        {mesh.LogShare{Numerator: 100_001, Denominator: 1_000_000}, id, "never"},
		"runtime":                  {mesh.LogShare{Denominator: 100, Runtime: numerator(2)}, id, "always"},
		"runtime, of ten thousand": {mesh.LogShare{Numerator: 9000, Denominator: 10_000, Runtime: numerator(1)}, id, "never"},
		"runtime says all":         {mesh.LogShare{Denominator: 100, Runtime: numerator(1 << 40)}, "", "always"},
		"independent":              {mesh.LogShare{Numerator: 50, Denominator: 100, Independent: true}, id, "sometimes"},
		"independent, none":        {mesh.LogShare{Denominator: 100, Independent: true}, id, "never"},
		"no id":                    {mesh.LogShare{Numerator: 50, Denominator: 100}, "", "sometimes"},
		"no hexadecimal id":        {mesh.LogShare{Numerator: 50, Denominator: 100}, "request-1234", "sometimes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			passed := 0
			for range 200 { // of which none or all are in half of them once in 10^60 runs
				if Passes(&mesh.LogFilter{Share: &c.share}, &mesh.Outcome{RequestID: []byte(c.id)}) {
					passed++
				}
			}
			got := "sometimes"
			switch passed {
			case 0:
				got = "never"
			case 200:
				got = "always"
			}
			if got != c.want {
				t.Errorf("%d of 200 pass: %s, want %s", passed, got, c.want)
			}
		})
	}
}

func TestFilterStandsBeforeTheLogger(t *testing.T) {
	t.Parallel()
	out := &sinkWriter{}
	files := NewFiles(Options{Stdout: out, FlushInterval: time.Hour})
	defer files.Close()
	l := log(t, files, Config{Path: Stdout, Text: text(t, "%RESPONSE_CODE%\n")}, &mesh.LogFilter{Status: &mesh.Comparison{Op: '>', Value: 500}})
	l.Observe(&mesh.Outcome{Status: 200})
	l.Observe(&mesh.Outcome{Status: 500})
	files.Flush()
	if got := out.all(); got != "500\n" {
		t.Errorf("written %q", got)
	}
}

// TestConcurrentLoggers: lines of many goroutines stay whole and none is lost, while the file is reopened.
func TestConcurrentLoggers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	files := NewFiles(Options{FlushBytes: 100})
	l := log(t, files, Config{Path: path, Text: text(t, "%REQ(:METHOD)% %PATH%\n")}, nil)
	const workers, lines = 8, 500
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range lines {
				l.Observe(sample())
			}
		})
	}
	for range 20 {
		if err := files.Reopen(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	l.Close()
	files.Close()
	if got, want := read(t, path), strings.Repeat("POST /api/v1/locations\n", workers*lines); got != want {
		t.Errorf("file of %d bytes, want %d whole lines", len(got), workers*lines)
	}
}

func TestObserveAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under -race")
	}
	files := NewFiles(Options{Stdout: discard{}, FlushInterval: time.Hour})
	defer files.Close()
	f, err := format.Parse(format.Default)
	if err != nil {
		t.Fatal(err)
	}
	o := sample()
	o.Headers = fixed{}
	texts := log(t, files, Config{Path: Stdout, Text: f}, &mesh.LogFilter{Status: &mesh.Comparison{Op: '!', Value: 0}})
	objects := log(t, files, Config{Path: Stdout, JSON: object(t, `{"p":"%PATH%","code":"%RESPONSE_CODE%","ua":"%REQ(user-agent)%"}`)},
		&mesh.LogFilter{Share: &mesh.LogShare{Numerator: 100, Denominator: 100}})
	for range 3000 { // both buffers of the file grow to their size
		texts.Observe(o)
		objects.Observe(o)
	}
	n := testing.AllocsPerRun(1000, func() {
		texts.Observe(o)
		objects.Observe(o)
	})
	if n != 0 {
		t.Errorf("%v allocations a line, want 0", n)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

type fixed struct{}

var agent = []byte("agent/1.0")

func (fixed) RequestHeader(string) []byte   { return agent }
func (fixed) ResponseHeader(string) []byte  { return agent }
func (fixed) ResponseTrailer(string) []byte { return nil }

func BenchmarkObserve(b *testing.B) {
	files := NewFiles(Options{Stdout: discard{}})
	defer files.Close()
	f, err := format.Parse(format.Default)
	if err != nil {
		b.Fatal(err)
	}
	l := log(b, files, Config{Path: Stdout, Text: f}, nil)
	o := sample()
	o.Headers = fixed{}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Observe(o)
		}
	})
}

// TestNumbers: what becomes of lines is on /stats, under Envoy's names where it has one.
func TestNumbers(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	path := filepath.Join(t.TempDir(), "access.log")
	files := NewFiles(Options{Stats: reg, FlushInterval: time.Hour, BufferBytes: 10})
	defer files.Close()
	f, err := files.share(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.unshare(f)
	got := func() map[string]int64 {
		m := map[string]int64{}
		reg.Each(func(stats.Kind) bool { return true }, func(x *stats.Metric) bool {
			if x.Value != 0 {
				m[string(x.AppendName(nil))] = x.Value
			}
			return true
		})
		return m
	}
	f.append([]byte("one\n"))
	f.append([]byte("two\n"))
	f.append([]byte("too much\n"))
	if n := got(); n["filesystem.write_buffered"] != 2 || n["filesystem.write_total_buffered"] != 8 || n["meshtap_accesslog_dropped_total"] != 1 {
		t.Errorf("before it is written: %v", n)
	}
	if err := files.Reopen(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"filesystem.write_buffered": 2, "filesystem.write_completed": 1, "meshtap_accesslog_dropped_total": 1,
		"meshtap_accesslog_lines_total": 2, "meshtap_accesslog_bytes_total": 8, "meshtap_accesslog_reopened_total": 1,
	}
	if n := got(); !maps.Equal(n, want) {
		t.Errorf("got %v, want %v", n, want)
	}
}
