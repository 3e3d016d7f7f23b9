// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// disk is a disk that can fail, be full, and lose its power: then of every file only what was flushed is certain, and
// of the rest each piece may be there or not.
type disk struct {
	mu    sync.Mutex
	r     *rand.Rand
	files map[string]*image
	held  bool
	// room is how many bytes files may have together; 0 is no bound.
	room int64
	// The next so many calls fail.
	failSync, failWrite int
	// forgets says that a failed fsync drops the pages it should have written, as some file systems do.
	forgets bool
}

// image is the content of a file: as it is seen, and as it is on the plates.
type image struct {
	now, safe []byte
	dirty     []span // written and not flushed
	gone      bool
}

type span struct{ from, to int64 }

var errIO = errors.New("input/output error")

func newDisk(seed uint64) *disk {
	return &disk{r: rand.New(rand.NewPCG(seed, 1)), files: map[string]*image{}}
}

func (d *disk) names() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for name := range d.files {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

func (d *disk) open(name string, create bool) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	im := d.files[name]
	if im == nil {
		if !create {
			return nil, fs.ErrNotExist
		}
		im = &image{}
		d.files[name] = im
	}
	return &handle{d, im}, nil
}

func (d *disk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if im := d.files[name]; im != nil {
		im.gone = true
	}
	delete(d.files, name)
	return nil
}

func (d *disk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	im := d.files[from]
	if im == nil {
		return fs.ErrNotExist
	}
	if old := d.files[to]; old != nil {
		old.gone = true
	}
	delete(d.files, from)
	d.files[to] = im
	return nil
}

func (d *disk) sync() error { return nil }

func (d *disk) lock() (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held {
		return nil, errors.New("in use")
	}
	d.held = true
	return unlocker{d}, nil
}

type unlocker struct{ d *disk }

func (u unlocker) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.held = false
	return nil
}

// crash ends the process: what was written stays, unless the power goes as well.
func (d *disk) crash(power bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
	for _, im := range d.files {
		if power {
			im.lose(d.r)
		}
		im.safe, im.dirty = slices.Clone(im.now), nil
	}
}

// lose keeps of what was not flushed some pieces.
func (im *image) lose(r *rand.Rand) {
	now := slices.Clone(im.safe)
	for _, s := range im.dirty {
		const sector = 512
		for at := s.from; at < s.to; at += sector {
			if r.IntN(2) == 0 {
				continue
			}
			to := min(at+sector, s.to, int64(len(im.now)))
			if to <= at {
				continue
			}
			if grow := to - int64(len(now)); grow > 0 {
				now = append(now, make([]byte, grow)...)
			}
			copy(now[at:to], im.now[at:to])
		}
	}
	im.now = now
}

func (d *disk) used() (n int64) {
	for _, im := range d.files {
		n += int64(len(im.now))
	}
	return n
}

// handle is an open file.
type handle struct {
	d  *disk
	im *image
}

func (h *handle) ReadAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if at >= int64(len(h.im.now)) {
		return 0, io.EOF
	}
	n := copy(b, h.im.now[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	n, err := len(b), error(nil)
	grow := at + int64(n) - int64(len(h.im.now))
	if left := max(h.d.room-h.d.used(), 0); h.d.room > 0 && grow > left {
		n, err = max(n-int(grow-left), 0), syscall.ENOSPC
	}
	if h.d.failWrite > 0 {
		h.d.failWrite--
		n, err = h.d.r.IntN(n+1), errIO
	}
	if grow := at + int64(n) - int64(len(h.im.now)); grow > 0 && n > 0 {
		h.im.now = append(h.im.now, make([]byte, grow)...)
	}
	copy(h.im.now[min(at, int64(len(h.im.now))):], b[:n])
	if n > 0 {
		h.im.dirty = append(h.im.dirty, span{at, at + int64(n)})
	}
	return n, err
}

func (h *handle) Truncate(n int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.im.now = h.im.now[:min(n, int64(len(h.im.now)))]
	h.im.safe = h.im.safe[:min(n, int64(len(h.im.safe)))]
	return nil
}

func (h *handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.failSync > 0 {
		h.d.failSync--
		if h.d.forgets {
			h.im.lose(h.d.r)
		}
		h.im.dirty = nil // the pages count as clean, and the next Sync says nothing of them
		return errIO
	}
	for _, s := range h.im.dirty {
		to := min(s.to, int64(len(h.im.now)))
		if grow := to - int64(len(h.im.safe)); grow > 0 {
			h.im.safe = append(h.im.safe, make([]byte, grow)...)
		}
		if s.from < to {
			copy(h.im.safe[s.from:to], h.im.now[s.from:to])
		}
	}
	h.im.dirty = nil
	return nil
}

func (h *handle) Stat() (fs.FileInfo, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return info(len(h.im.now)), nil
}

func (h *handle) Close() error { return nil }

type info int64

func (i info) Size() int64      { return int64(i) }
func (info) Name() string       { return "" }
func (info) Mode() fs.FileMode  { return fileMode }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }
