// SPDX-License-Identifier: Apache-2.0

package layered

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// readDisk reads a layer on disk. One that cannot be read is left out. The caller holds mu.
func (r *Runtime) readDisk(i int) error {
	l := r.layers[i]
	r.links[l.Root], _ = os.Lstat(l.Root) // first: a link that is replaced after that is noticed
	_, err := os.Stat(l.Dir)
	r.values[i] = nil
	if err != nil { // as in Envoy, it may come later
		return nil
	}
	values := map[string]Value{}
	if err := walk(values, l.Dir, "", 1); err != nil {
		r.count(loadError)
		return fmt.Errorf("runtime layer %q: %w", l.Name, err)
	}
	r.values[i] = values
	return nil
}

// walk reads a directory: a file is a value, and the names of the directories on the way are in front of its key.
func walk(out map[string]Value, dir, prefix string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is deeper than %d directories", dir, maxDepth)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		path, key := filepath.Join(dir, e.Name()), prefix+e.Name()
		info, err := os.Stat(path) // what a link leads to counts
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.IsDir():
			if err := walk(out, path, key+".", depth+1); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			text, err := readValue(path)
			if err != nil {
				return err
			}
			out[key] = Parse(text)
		}
		if len(out) > maxKeys {
			return fmt.Errorf("%s and what is beside it are more than %d values", path, maxKeys)
		}
	}
	return nil
}

// readValue reads a file without the lines that begin with "#" and without blanks at its end.
func readValue(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxText {
		return "", fmt.Errorf("%s has more than the %d bytes allowed", path, maxText)
	}
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool { return strings.HasPrefix(l, "#") })
	return strings.TrimRight(strings.Join(lines, "\n"), " \t\r\n\v\f"), nil
}

// again is how long a directory that cannot be watched is left alone.
const again = time.Second

// Watch reads the layers on disk again when their symbolic links are replaced, until ctx ends.
func (r *Runtime) Watch(ctx context.Context, log *zap.Logger) {
	roots := r.roots()
	if len(roots) == 0 {
		return
	}
	var events chan fsnotify.Event
	var problems chan error
	w, err := fsnotify.NewWatcher()
	if err != nil { // the kernel bounds them, by user
		log.Warn("the runtime's layers on disk cannot be watched; they are looked at every second", zap.Error(err))
	} else {
		defer w.Close()
		events, problems = w.Events, w.Errors
	}
	for {
		complete := watchAll(w, roots) // first: what changes after that is not missed
		for _, root := range roots {
			r.refresh(root, log)
		}
		var retry <-chan time.Time
		if !complete {
			retry = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-problems:
		case <-retry:
		}
	}
}

// roots returns the symbolic links of the layers on disk.
func (r *Runtime) roots() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.layers {
		if l.Kind == Disk && !slices.Contains(out, l.Root) {
			out = append(out, l.Root)
		}
	}
	return out
}

// watchAll watches the directories that hold the links, and returns false where one is not watched.
func watchAll(w *fsnotify.Watcher, roots []string) bool {
	if w == nil {
		return false
	}
	all := true
	for _, root := range roots {
		dir := filepath.Dir(root)
		if !slices.Contains(w.WatchList(), dir) && w.Add(dir) != nil {
			all = false
		}
	}
	return all
}

// refresh reads the layers below a link anew where it is another one. Links are replaced by renaming (ln -s and mv -T, and
// what Kubernetes does), so a new one is another file.
func (r *Runtime) refresh(root string, log *zap.Logger) {
	info, err := os.Lstat(root)
	if err != nil {
		return // it is being replaced, or gone: what was read stays
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.links[root]; old != nil && os.SameFile(old, info) {
		return
	}
	for i, l := range r.layers {
		if l.Kind != Disk || l.Root != root {
			continue
		}
		if err := r.readDisk(i); err != nil {
			log.Error("a runtime layer cannot be read; it is left out", zap.Error(err))
		}
	}
	r.swap()
}
