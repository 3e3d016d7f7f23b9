// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/proxy/metrics"
)

// file is an open log with its writing goroutine, which runs from newFile to stop.
type file struct {
	// Immutable.
	files *Files
	path  string
	wake  chan struct{} // capacity 1: a wake-up that is already pending is enough
	tasks chan func()   // what else the goroutine is asked to do; unbuffered, the asker waits
	quit  chan struct{} // closed by stop
	done  chan struct{} // closed by the goroutine at its end
	ended sync.Once     // of quit

	users int // guarded by Files.mu

	mu      sync.Mutex
	pending []byte // guarded by mu: whole lines
	closed  bool   // guarded by mu

	// Owned by the goroutine.
	out     io.WriteCloser
	spare   []byte
	failing bool
}

func newFile(files *Files, path string, out io.WriteCloser) *file {
	f := &file{
		files: files, path: path, users: 1, out: out,
		wake: make(chan struct{}, 1), tasks: make(chan func()), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go f.run()
	return f
}

// append hands a line over, or drops it where there is no room. It never waits for the file.
func (f *file) append(line []byte) {
	opt := &f.files.opt
	f.mu.Lock()
	if f.closed || len(f.pending)+len(line) > opt.BufferBytes {
		f.mu.Unlock()
		f.files.counts.Inc(0, metrics.LogDropped)
		return
	}
	f.pending = append(f.pending, line...)
	due := len(f.pending) >= opt.FlushBytes
	f.mu.Unlock()
	f.files.system.Inc(0, metrics.FileWriteBuffered)
	f.files.system.Add(0, metrics.FileWriteTotalBuffered, int64(len(line)))
	if due {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (f *file) run() {
	defer close(f.done)
	tick := time.NewTicker(f.files.opt.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-f.wake:
			f.flush()
		case <-tick.C:
			if f.flush() {
				f.files.system.Inc(0, metrics.FileFlushedByTimer)
			}
		case task := <-f.tasks:
			task()
		case <-f.quit:
			f.flush()
			if err := f.out.Close(); err != nil {
				f.report(err)
			}
			return
		}
	}
}

// do runs a task on the goroutine and waits for it; after stop it does nothing.
func (f *file) do(task func()) {
	finished := make(chan struct{})
	select {
	case f.tasks <- func() { task(); close(finished) }:
		<-finished
	case <-f.done:
	}
}

// stop ends the goroutine after it has written what waits.
func (f *file) stop() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.ended.Do(func() { close(f.quit) })
	<-f.done
}

// flush writes what waits, and reports whether there was anything. The two buffers change places, so that lines keep
// coming meanwhile.
func (f *file) flush() (some bool) {
	f.mu.Lock()
	batch := f.pending
	f.pending = f.spare[:0]
	f.mu.Unlock()
	f.spare = batch
	if len(batch) == 0 {
		return false
	}
	f.files.system.Add(0, metrics.FileWriteTotalBuffered, -int64(len(batch)))
	n, err := f.out.Write(batch)
	lines, all := int64(bytes.Count(batch[:n], newline)), int64(bytes.Count(batch, newline))
	f.files.counts.Add(0, metrics.LogLines, lines)
	f.files.counts.Add(0, metrics.LogBytes, int64(n))
	if err != nil {
		f.files.system.Inc(0, metrics.FileWriteFailed)
		f.files.counts.Add(0, metrics.LogDropped, all-lines)
		f.report(err)
		return true
	}
	f.files.system.Inc(0, metrics.FileWriteCompleted)
	if f.failing {
		f.failing = false
		f.files.opt.Logger.Info("access log is written again", zap.String("path", f.path))
	}
	return true
}

var newline = []byte{'\n'}

// report tells of an error once, until the file works again.
func (f *file) report(err error) {
	if !f.failing {
		f.failing = true
		f.files.opt.Logger.Warn("access log cannot be written; lines are dropped and counted",
			zap.String("path", f.path), zap.Error(err))
	}
}

// reopen writes what waits to the old file and goes on with a new one of the same path.
func (f *file) reopen() (err error) {
	f.do(func() {
		f.flush()
		out, openErr := f.files.sink(f.path)
		if openErr != nil {
			f.files.system.Inc(0, metrics.FileReopenFailed)
			err = fmt.Errorf("reopen access log: %w", openErr)
			return
		}
		err = f.out.Close()
		f.out = out
		f.files.counts.Inc(0, metrics.LogReopened)
	})
	return err
}
