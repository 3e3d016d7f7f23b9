// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Dir is the private directory of a demo. A lock in it tells a directory in use from one whose demo was killed.
type Dir struct {
	Path string
	lock *os.File
}

const (
	dirPrefix = "meshtap-demo-"
	// leftAfter is the age from which a directory without a locked lock is left over: a demo needs a moment to lock its own.
	leftAfter = time.Minute
)

// NewDir makes a directory for its owner only, below $XDG_RUNTIME_DIR where that is usable and below the directory for
// temporary files otherwise, and removes what demos have left there that were killed.
func NewDir(getenv func(string) string) (*Dir, error) {
	base := getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(base) || syscall.Access(base, 2) != nil { // 2 is W_OK
		base = os.TempDir()
	}
	sweep(base, time.Now())
	path, err := os.MkdirTemp(base, dirPrefix) // its mode is 0700
	if err != nil {
		return nil, err
	}
	d := &Dir{Path: path}
	if d.lock, err = os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return d, nil
}

// Remove removes the directory with all that is in it.
func (d *Dir) Remove() error {
	err := os.RemoveAll(d.Path)
	d.lock.Close()
	return err
}

// sweep removes the directories of this user's demos that have ended without doing so. What it cannot remove stays.
func sweep(base string, now time.Time) {
	dirs, err := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		lock, err := f.Stat()
		if err == nil && now.Sub(lock.ModTime()) > leftAfter && syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(dir)
		}
		f.Close()
	}
}
