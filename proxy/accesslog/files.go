// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// The names of the standard streams, in place of a path.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Options configure Files. A zero field takes its default.
type Options struct {
	// FlushInterval is how long a line waits at most before it is written. The default is 1 s (Envoy's is 10 s).
	FlushInterval time.Duration
	// FlushBytes is how many bytes wait before they are written at once. The default is 64 KiB, as Envoy's.
	FlushBytes int
	// BufferBytes is how many bytes may wait for each file; what comes on top is dropped. The default is 1 MiB.
	BufferBytes int
	// MaxFiles bounds the number of files that are open at a time. The default is 128.
	MaxFiles int
	// Stdout and Stderr are the standard streams; the defaults are those of the process.
	Stdout, Stderr io.Writer
	// Stats gets the counts; nil counts where nobody looks.
	Stats *stats.Registry
	// Logger is told when a file begins to fail, and when it works again.
	Logger *zap.Logger
}

// Stats are the counts of all files since the start.
type Stats struct {
	// Lines and Bytes were handed to the system.
	Lines, Bytes int64
	// Dropped lines found no room, were too long even when cut, or met a write error. Truncated lines were cut.
	Dropped, Truncated int64
	WriteErrors        int64
	ReopenErrors       int64
}

// Files holds the open files of all access loggers, each once, with its writing goroutine. It may be used by several
// goroutines.
type Files struct {
	opt     Options
	buffers sync.Pool // of *[]byte: lines being formatted

	mu     sync.Mutex
	byPath map[string]*file // guarded by mu
	closed bool             // guarded by mu

	system *metrics.Filesystem
	counts *metrics.AccessLog
}

// NewFiles returns Files without any file. Close has to be called in the end.
func NewFiles(opt Options) *Files {
	opt.FlushInterval = cmp.Or(opt.FlushInterval, time.Second)
	opt.FlushBytes = cmp.Or(opt.FlushBytes, 64<<10)
	opt.BufferBytes = cmp.Or(opt.BufferBytes, 1<<20)
	opt.MaxFiles = cmp.Or(opt.MaxFiles, 128)
	if opt.Stdout == nil {
		opt.Stdout = os.Stdout
	}
	if opt.Stderr == nil {
		opt.Stderr = os.Stderr
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	if opt.Stats == nil {
		opt.Stats = stats.NewRegistry(stats.Options{Shards: 1})
	}
	return &Files{
		opt: opt, byPath: map[string]*file{},
		system: metrics.NewFilesystem(opt.Stats), counts: metrics.NewAccessLog(opt.Stats),
	}
}

// Stats returns the counts.
func (f *Files) Stats() Stats {
	return Stats{
		Lines: f.counts.Value(metrics.LogLines), Bytes: f.counts.Value(metrics.LogBytes),
		Dropped: f.counts.Value(metrics.LogDropped), Truncated: f.counts.Value(metrics.LogTruncated),
		WriteErrors: f.system.Value(metrics.FileWriteFailed), ReopenErrors: f.system.Value(metrics.FileReopenFailed),
	}
}

// Reopen opens every file again by its path, after a tool has moved it away: what SIGUSR1 asks for. It returns when that
// is done. A file that cannot be opened stays as it is, is counted, and is named in the error.
func (f *Files) Reopen() error {
	f.mu.Lock()
	open := slices.Collect(maps.Values(f.byPath))
	f.mu.Unlock()
	var errs []error
	for _, w := range open {
		errs = append(errs, w.reopen())
	}
	return errors.Join(errs...)
}

// Flush writes out what waits in all files, and returns when that is done.
func (f *Files) Flush() {
	f.mu.Lock()
	open := slices.Collect(maps.Values(f.byPath))
	f.mu.Unlock()
	for _, w := range open {
		w.do(func() { w.flush() })
	}
}

// Close writes out what waits, closes all files and waits for their goroutines. Loggers that are used afterwards drop
// their lines.
func (f *Files) Close() {
	f.mu.Lock()
	f.closed = true
	open := slices.Collect(maps.Values(f.byPath))
	clear(f.byPath)
	f.mu.Unlock()
	for _, w := range open {
		w.stop()
	}
}

// share returns the writer of a path, the same for everyone. Each call is matched by one of unshare.
func (f *Files) share(path string) (*file, error) {
	path = std(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.byPath[path]; w != nil {
		w.users++
		return w, nil
	}
	switch {
	case f.closed:
		return nil, fmt.Errorf("open access log %s: the process is stopping", path)
	case len(f.byPath) == f.opt.MaxFiles:
		return nil, fmt.Errorf("open access log %s: %d files are open, which is the most", path, f.opt.MaxFiles)
	}
	out, err := f.sink(path)
	if err != nil {
		return nil, fmt.Errorf("open access log: %w", err)
	}
	w := newFile(f, path, out)
	f.byPath[path] = w
	return w, nil
}

// unshare gives a writer back; the last one to do so stops it.
func (f *Files) unshare(w *file) {
	f.mu.Lock()
	w.users--
	last := w.users == 0 && f.byPath[w.path] == w
	if last {
		delete(f.byPath, w.path)
	}
	f.mu.Unlock()
	if last {
		w.stop()
	}
}

// sink opens a path for appending. The mode is Envoy's: log shippers run under other users.
func (f *Files) sink(path string) (io.WriteCloser, error) {
	switch path {
	case Stdout:
		return stream{f.opt.Stdout}, nil
	case Stderr:
		return stream{f.opt.Stderr}, nil
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		return nil, fmt.Errorf("%s is a pipe or socket; use a file or /dev/stdout", path)
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// stream is a standard stream, which is not closed.
type stream struct{ io.Writer }

func (stream) Close() error { return nil }

// buffer returns memory for one line; release takes it back, as what it has grown into.
func (f *Files) buffer() *[]byte {
	if b, ok := f.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, MaxLine)
	return &b
}

func (f *Files) release(buf *[]byte, line []byte) {
	if cap(line) > 16*MaxLine {
		return // grown by one giant request
	}
	*buf = line
	f.buffers.Put(buf)
}
