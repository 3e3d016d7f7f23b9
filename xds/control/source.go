// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

const (
	// settle is how long a file must be quiet before it is read again: some editors write it in pieces.
	settle = 50 * time.Millisecond
	// settleMost bounds that for a file that is written on and on.
	settleMost = time.Second
)

// SourceStatus is what became of the mesh's file.
type SourceStatus struct {
	File string `json:"file"`
	// Loaded is when the mesh in force was read.
	Loaded time.Time `json:"loaded"`
	// Problem is why the file as it is now is not in force, "" where it is.
	Problem string `json:"problem,omitempty"`
}

// Source is a mesh.yaml that is read again whenever it changes. A file that cannot be used changes nothing.
type Source struct {
	path    string
	log     *zap.Logger
	watcher *fsnotify.Watcher
	reload  chan struct{}

	// text is what was read last, owned by Run.
	text []byte

	mu     sync.Mutex
	status SourceStatus // guarded by mu
}

// Open reads a mesh.yaml and begins to watch it. The error is an *Invalid where the file cannot be used. The Source must be
// run or closed.
func Open(path string, log *zap.Logger) (*Source, *Mesh, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, nil, fmt.Errorf("watch %s: %w; there may be too many watchers: see sysctl fs.inotify.max_user_instances", path, err)
	}
	s := &Source{path: path, log: log, watcher: w, reload: make(chan struct{}, 1), status: SourceStatus{File: path}}
	// Watched before it is read, so that no change goes by; by its directory, since a file that is replaced is another.
	if err := s.watch(); err != nil {
		w.Close()
		return nil, nil, err
	}
	text, err := read(path)
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	m, err := Parse(path, text)
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	s.text, s.status.Loaded = text, time.Now()
	return s, m, nil
}

// Close ends a Source that is not run.
func (s *Source) Close() error { return s.watcher.Close() }

// watch adds the directory of the file and, where the file is a link, that of what it leads to.
func (s *Source) watch() error {
	real, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return err
	}
	for _, p := range []string{s.path, real} {
		dir := filepath.Dir(p)
		if slices.Contains(s.watcher.WatchList(), dir) {
			continue
		}
		if err := s.watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return nil
}

// read reads a file, and one byte more than may be in it.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}

// Reload asks Run to read the file again, as after SIGHUP.
func (s *Source) Reload() {
	select {
	case s.reload <- struct{}{}:
	default:
	}
}

// Status returns what became of the file.
func (s *Source) Status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run calls apply with each new mesh until ctx ends, and returns nil then.
func (s *Source) Run(ctx context.Context, apply func(*Mesh)) error {
	defer s.watcher.Close()
	quiet, most := time.NewTimer(0), time.NewTimer(0)
	quiet.Stop()
	most.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-s.watcher.Events:
			if !ok {
				return errors.New("control: the file watcher has ended")
			}
			if !s.concerns(ev.Name) {
				continue
			}
			quiet.Reset(settle)
			if !waiting {
				most.Reset(settleMost)
			}
			waiting = true
			continue
		case err := <-s.watcher.Errors:
			s.log.Warn("a change of the mesh's file may have gone by; SIGHUP reads it again", zap.Error(err))
			continue
		case <-s.reload:
		case <-quiet.C:
		case <-most.C:
		}
		waiting = false
		quiet.Stop()
		most.Stop()
		s.update(apply)
	}
}

// concerns says whether a change in a watched directory may be one of the file: it has its name, or that of what it leads
// to, or it is the link that Kubernetes turns when a ConfigMap changes.
func (s *Source) concerns(name string) bool {
	real, err := filepath.EvalSymlinks(s.path)
	return filepath.Clean(name) == filepath.Clean(s.path) || err == nil && filepath.Clean(name) == real || filepath.Base(name) == "..data"
}

// update reads the file again.
func (s *Source) update(apply func(*Mesh)) {
	text, err := read(s.path)
	if err != nil {
		s.fail(err.Error(), "")
		return
	}
	if err := s.watch(); err != nil { // a link may lead elsewhere now
		s.log.Warn("the mesh's file is not watched any more; SIGHUP reads it again", zap.Error(err))
	}
	if bytes.Equal(text, s.text) {
		s.tell("", time.Time{})
		return
	}
	m, err := Parse(s.path, text)
	var invalid *Invalid
	if errors.As(err, &invalid) {
		s.fail(invalid.Error(), invalid.Summary())
		return
	}
	s.text = text
	s.tell("", time.Now())
	s.log.Info("the mesh has changed", zap.String("file", s.path), zap.Int("services", len(m.Services)))
	apply(m)
}

// fail says once why the file is not in force.
func (s *Source) fail(problem, summary string) {
	if s.Status().Problem == problem {
		return
	}
	if summary == "" {
		summary = problem
	}
	s.tell(problem, time.Time{})
	s.log.Error("the mesh's file cannot be used; the last one stays in force", zap.String("problem", summary))
}

func (s *Source) tell(problem string, loaded time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Problem = problem
	if !loaded.IsZero() {
		s.status.Loaded = loaded
	}
}
