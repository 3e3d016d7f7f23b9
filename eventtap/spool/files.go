// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/internal/sys"
)

// files are the operations on the spool's folder. Tests have others, which fail.
type files interface {
	// names returns the names in the folder, sorted.
	names() ([]string, error)
	// open opens a file to be read and written, and creates it where create is set.
	open(name string, create bool) (file, error)
	remove(name string) error
	// rename gives a file another name; a file that has it goes.
	rename(from, to string) error
	// sync makes names last.
	sync() error
	// lock takes the folder for this process.
	lock() (io.Closer, error)
}

// file is one open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(int64) error
	Stat() (fs.FileInfo, error)
}

// folder is a folder of the system.
type folder string

const (
	dirMode  = 0o700
	fileMode = 0o600
)

func (d folder) names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out, nil
}

func (d folder) open(name string, create bool) (file, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(filepath.Join(string(d), name), flag, fileMode)
	if err != nil {
		return nil, err
	}
	return onDisk{f}, nil
}

// onDisk is a file whose Sync flushes what it takes to read the records again, and no more.
type onDisk struct{ *os.File }

func (f onDisk) Sync() error { return sys.Datasync(f.File) }

func (d folder) remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d folder) rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d folder) lock() (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(string(d), lockName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := sys.Lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// make creates the folder, and those above it. A folder that is there already and that others can read loses those bits.
func (d folder) make() error {
	if err := os.MkdirAll(string(d), dirMode); err != nil {
		return err
	}
	return os.Chmod(string(d), dirMode)
}

const (
	lockName   = "lock"
	cursorName = "cursor"
	spareName  = "spare"
	extension  = ".seg"
)

// isSegment returns the number in a segment's name.
func isSegment(name string) (base uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, extension)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		base = base*10 + uint64(c-'0')
	}
	return base, true
}
