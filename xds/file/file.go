// SPDX-License-Identifier: Apache-2.0

// Package file reads a file again whenever it changes. It knows nothing of what is in it: package xds makes resources of
// the text, for config sources that are files.
//
// A change is noticed by the directories: of the file, of each link on the way to it and of what that leads to, and the
// one that the configuration names. So it does not matter whether the file is written in place, is replaced by another that is renamed
// over it, or stands below a link that Kubernetes turns when a ConfigMap changes (..data). What is read is told once the
// file has been quiet for a moment, since some editors write it in pieces.
//
// A File has one goroutine, the one in Run, and one of the system's watchers, of which there may be few; without one, the
// file is looked at every second.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

const (
	// settle is how long a file must be quiet before it is read again, and settleMost bounds that for one that is written
	// on and on.
	settle     = 50 * time.Millisecond
	settleMost = time.Second
	// again is how long a file, or a directory, that is not there is looked for once more.
	again = time.Second
)

// errNotWatched is why a file has to be looked at again without being told of a change.
var errNotWatched = errors.New("file: not watched")

// DefaultMaxBytes bounds a file where Config does not.
const DefaultMaxBytes = 64 << 20

// Config says which file to read.
type Config struct {
	Path string
	// Watched is the directory whose changes make the file be read again; "" is that of the file.
	Watched string
	// MaxBytes bounds the file; 0 means DefaultMaxBytes.
	MaxBytes int
}

// File is one file.
type File struct {
	cfg        Config
	log        *zap.Logger
	newWatcher func() (*fsnotify.Watcher, error)
	reload     chan struct{}

	// Owned by the goroutine in Run. watcher is nil where there can be none.
	watcher *fsnotify.Watcher
	// names are what a change is told of by the watcher, watched is Config.Watched without links.
	names   map[string]bool
	watched string
	text    []byte
	problem string
}

// New returns a File that does nothing until Run.
func New(cfg Config, log *zap.Logger) *File {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	return &File{cfg: cfg, log: log, names: map[string]bool{}, newWatcher: fsnotify.NewWatcher, reload: make(chan struct{}, 1)}
}

// Open reads a file that Run is to follow from then on: Run tells the texts that come after the one that Open returns.
func Open(cfg Config, log *zap.Logger) (*File, []byte, error) {
	f := New(cfg, log)
	text, err := f.load()
	if err != nil {
		return nil, nil, err
	}
	f.text = text
	return f, bytes.Clone(text), nil
}

// Run tells the text of the file, and each one that differs from the one before, until ctx ends; it returns nil then. A
// file that cannot be read is told as an error, once for each reason, and looked for again. tell may block; text is the
// callee's.
func (f *File) Run(ctx context.Context, tell func(text []byte, err error)) error {
	var events chan fsnotify.Event
	var problems chan error
	w, err := f.newWatcher()
	if err != nil { // the kernel bounds them, by user
		f.log.Warn("a file cannot be watched; it is looked at every second", zap.String("file", f.cfg.Path), zap.Error(err))
	} else {
		defer w.Close()
		f.watcher, events, problems = w, w.Events, w.Errors
	}
	// What Open has read may have changed since, and may be being written now.
	waiting := f.text != nil
	quiet, most := time.NewTimer(settle), time.NewTimer(settleMost)
	complete := false
	if waiting {
		complete = f.watch() == nil
	} else {
		quiet.Stop()
		most.Stop()
		complete = f.read(tell)
	}
	for {
		var retry <-chan time.Time
		if !complete {
			retry = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-events:
			if !ok {
				return errors.New("file: the watcher has ended")
			}
			if !f.concerns(ev.Name) {
				continue
			}
			quiet.Reset(settle)
			if !waiting {
				most.Reset(settleMost)
			}
			waiting = true
			continue
		case err := <-problems:
			f.log.Warn("a change of a file may have gone by; it is read again", zap.String("file", f.cfg.Path), zap.Error(err))
		case <-f.reload:
		case <-quiet.C:
		case <-most.C:
		case <-retry:
		}
		waiting = false
		quiet.Stop()
		most.Stop()
		complete = f.read(tell)
	}
}

// Reload has Run read the file now, changed or not. It may be called from any goroutine.
func (f *File) Reload() {
	select {
	case f.reload <- struct{}{}:
	default: // it will
	}
}

// read tells what is in the file, where that is new. It returns false where it has to be looked for again without being
// told of a change.
func (f *File) read(tell func([]byte, error)) bool {
	watched := f.watch() // first: what changes after that is not missed
	text, err := f.load()
	switch {
	case err != nil:
		if f.problem != err.Error() {
			f.problem = err.Error()
			tell(nil, err)
		}
	case f.problem != "" || f.text == nil || !bytes.Equal(text, f.text):
		f.problem, f.text = "", text
		tell(bytes.Clone(text), nil)
	}
	return watched == nil && err == nil
}

func (f *File) load() ([]byte, error) {
	in, err := os.Open(f.cfg.Path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, int64(f.cfg.MaxBytes)+1))
	if err == nil && len(text) > f.cfg.MaxBytes {
		err = fmt.Errorf("%s has more than the %d bytes allowed", f.cfg.Path, f.cfg.MaxBytes)
	}
	if text == nil {
		text = []byte{}
	}
	return text, err
}

// watch watches the directories that matter now, and no others. A directory is watched by the name that no link is in:
// what a link leads to may be another one tomorrow.
func (f *File) watch() error {
	if f.watcher == nil {
		return errNotWatched
	}
	clear(f.names)
	var missing error
	var want []string
	note := func(path string) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			missing = errors.Join(missing, err)
			return
		}
		f.names[filepath.Join(dir, filepath.Base(path))] = true
		want = append(want, dir)
	}
	// The file, each link on the way to it, and what they lead to.
	for path := f.cfg.Path; len(want) < maxLinks; {
		note(path)
		for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			if isLink(dir) {
				note(dir)
			}
		}
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	if f.cfg.Watched != "" {
		note(filepath.Join(f.cfg.Watched, "any"))
		f.watched, _ = filepath.EvalSymlinks(f.cfg.Watched) // note has told of its error
	}
	for _, dir := range f.watcher.WatchList() {
		if !slices.Contains(want, dir) {
			_ = f.watcher.Remove(dir) // it may be gone already
		}
	}
	for _, dir := range want {
		if !slices.Contains(f.watcher.WatchList(), dir) {
			missing = errors.Join(missing, f.watcher.Add(dir))
		}
	}
	return missing
}

// maxLinks bounds the links that are followed, as the kernel does.
const maxLinks = 40

func isLink(path string) bool {
	i, err := os.Lstat(path)
	return err == nil && i.Mode()&os.ModeSymlink != 0
}

// concerns says whether a change in a watched directory may be one of the file. In the directory that the configuration
// names, any may.
func (f *File) concerns(name string) bool {
	name = filepath.Clean(name)
	return f.names[name] || filepath.Base(name) == "..data" || f.watched != "" && filepath.Dir(name) == f.watched
}
