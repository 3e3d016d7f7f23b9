// SPDX-License-Identifier: Apache-2.0

// Package file is the event sink that appends to a file: one CloudEvents JSON event per line, or protobuf events each
// behind its length. At a size the file is renamed and a new one begun; only so many are kept.
//
// The sink looks at the path before each batch, so whoever renames or removes the file gets a new one under the old
// name. A batch that could not be written whole is taken back and tried again; meanwhile the sink's queue fills, and
// what finds no room there is counted as dropped. The file has one writer.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/meshtap/meshtap/eventtap"
)

// Config is where and how a Sink writes.
type Config struct {
	Path string
	// MaxBytes is the size at which a new file is begun; MaxFiles is how many are kept, the current one included.
	MaxBytes int64
	MaxFiles int
	// Proto writes protobuf events behind their lengths instead of JSON lines.
	Proto bool
	// Fsync acknowledges a batch only once it is on the disk.
	Fsync bool
}

// mode lets those read who share the proxy's group, such as a log shipper.
const mode = 0o640

// Sink appends to a file. Its methods are called by one goroutine.
type Sink struct {
	cfg Config
	f   *os.File
}

// New returns a sink that is not open.
func New(c Config) *Sink { return &Sink{cfg: c} }

// Caps returns what the sink promises.
func (s *Sink) Caps() eventtap.Caps {
	c := eventtap.Caps{Encoding: eventtap.JSONLines, InFlight: 1}
	if s.cfg.Proto {
		c.Encoding = eventtap.ProtoDelimited
	}
	return c
}

// Open opens the file or creates it.
func (s *Sink) Open(context.Context) error {
	f, err := os.OpenFile(s.cfg.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	s.f = f
	return nil
}

// Send appends the batch. An error leaves the file as it was, as far as the file lets itself be cut.
func (s *Sink) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	done(s.write(ctx, b.Body))
}

func (s *Sink) write(ctx context.Context, body []byte) error {
	info, err := s.current(ctx)
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() > 0 && info.Size()+int64(len(body)) > s.cfg.MaxBytes {
		if err := s.rotate(ctx); err != nil {
			return err
		}
		if info, err = s.f.Stat(); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	if _, err := s.f.Write(body); err != nil {
		return s.takeBack(info, err)
	}
	if s.cfg.Fsync {
		if err := s.f.Sync(); err != nil {
			// The pages may be gone although a second fsync would succeed; writing them again makes it count.
			return s.takeBack(info, err)
		}
	}
	return nil
}

// takeBack cuts the file to what it was before a write that failed.
func (s *Sink) takeBack(before fs.FileInfo, err error) error {
	if before.Mode().IsRegular() {
		err = errors.Join(err, s.f.Truncate(before.Size()))
	}
	return fmt.Errorf("file: %w", err)
}

// current makes sure that the open file is the one at the path, and returns its state.
func (s *Sink) current(ctx context.Context) (fs.FileInfo, error) {
	if s.f != nil {
		have, err := s.f.Stat()
		if err != nil {
			return nil, fmt.Errorf("file: %w", err)
		}
		if at, err := os.Stat(s.cfg.Path); err == nil && os.SameFile(have, at) {
			return have, nil
		}
	}
	if err := s.reopen(ctx); err != nil {
		return nil, err
	}
	info, err := s.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return info, nil
}

func (s *Sink) reopen(ctx context.Context) error {
	if err := s.Close(ctx); err != nil {
		return err
	}
	return s.Open(ctx)
}

// rotate renames the file and those before it, and opens a new one.
func (s *Sink) rotate(ctx context.Context) error {
	name := func(i int) string {
		if i == 0 {
			return s.cfg.Path
		}
		return fmt.Sprintf("%s.%d", s.cfg.Path, i)
	}
	if s.cfg.MaxFiles == 1 {
		if err := os.Remove(s.cfg.Path); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	for i := s.cfg.MaxFiles - 1; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("file: %w", err)
		}
	}
	return s.reopen(ctx)
}

// Close closes the file. Where the sink is told to fsync, everything acknowledged is on the disk already.
func (s *Sink) Close(context.Context) error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)
