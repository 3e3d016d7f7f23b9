// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
)

const (
	// maxLine bounds a line; an event has at most event.MaxSize.
	maxLine = 2 * event.MaxSize
	// maxFiles is the greatest number of rotated files of the file sink.
	maxFiles = 100
	// pollEvery is how often a file that is followed is looked at.
	pollEvery = 100 * time.Millisecond
)

// File reads what the file sink wrote: JSON, one event on a line, or protobuf, each event behind its length. It tells them
// apart by the first byte. What a line or a record holds that is no event is passed on, for the reader to count.
type File struct {
	path   string
	follow bool
}

// NewFile returns a source of a file and of those that were rotated away from it, the oldest first. "-" is standard input.
// Following goes on with what is appended to the current one, and with the one that takes its place.
func NewFile(path string, follow bool) *File { return &File{path, follow} }

// Close does nothing.
func (*File) Close() error { return nil }

// Read implements consume.Source.
func (f *File) Read(ctx context.Context, each func(*consume.Message) error) error {
	if f.path == "-" {
		return Scan(ctx, os.Stdin, each)
	}
	for i := maxFiles; i > 0; i-- {
		older, err := os.Open(fmt.Sprintf("%s.%d", f.path, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		err = Scan(ctx, older, each)
		older.Close()
		if err != nil {
			return err
		}
	}
	for {
		file, err := os.Open(f.path)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		var r io.Reader = file
		if f.follow {
			r = &tail{ctx: ctx, file: file, path: f.path}
		}
		err = Scan(ctx, r, each)
		file.Close()
		if err != nil || !f.follow {
			return err
		}
	}
}

// tail reads a file that grows, and ends when another one has taken its place and everything is read.
type tail struct {
	ctx  context.Context // of the one call of Read that it lives for
	file *os.File
	path string
}

// Read waits where there is nothing.
func (t *tail) Read(b []byte) (int, error) {
	for {
		n, err := t.file.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		here, err1 := t.file.Stat()
		there, err2 := os.Stat(t.path)
		if err1 == nil && err2 == nil && !os.SameFile(here, there) {
			return t.file.Read(b) // what came between the two looks
		}
		select {
		case <-time.After(pollEvery):
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		}
	}
}

// Scan calls each for every event of a stream as the file sink writes it, in JSON or protobuf. A last event that is not
// complete is left out: a crash leaves one behind.
func Scan(ctx context.Context, r io.Reader, each func(*consume.Message) error) error {
	in := bufio.NewReaderSize(r, 4*maxLine)
	first, err := in.Peek(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	next := delimited
	if err == nil && (first[0] == '{' || first[0] == '\n') {
		next = line
	}
	for n := uint64(1); err == nil; n++ {
		var b []byte
		var typ string
		if b, typ, err = next(in); err != nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(b) > 0 {
			err = each(&consume.Message{Seq: n, Type: typ, Data: b})
			if err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("source: %w", err)
}

func line(in *bufio.Reader) ([]byte, string, error) {
	b, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, "", fmt.Errorf("a line has more than %d bytes", in.Size())
	}
	if err != nil {
		return nil, "", err
	}
	return append([]byte(nil), b[:len(b)-1]...), event.TypeJSON, nil
}

func delimited(in *bufio.Reader) ([]byte, string, error) {
	n, err := binary.ReadUvarint(in)
	switch {
	case err != nil:
		return nil, "", err
	case n > event.MaxSize:
		return nil, "", fmt.Errorf("this is no file of events: a record of %d bytes, at most %d are allowed", n, event.MaxSize)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(in, b)
	return b, event.TypeProto, err
}
