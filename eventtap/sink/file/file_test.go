// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestConformance runs the suite over one large file, over many small ones, with fsync, and with protobuf.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"one file":   {MaxBytes: 1 << 30, MaxFiles: 1},
		"many files": {MaxBytes: 64 << 10, MaxFiles: 100},
		"fsync":      {MaxBytes: 1 << 30, MaxFiles: 1, Fsync: true},
		"protobuf":   {MaxBytes: 1 << 30, MaxFiles: 1, Proto: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink.Run(t, func(t *testing.T) sink.Bus { return newBus(t, c) })
		})
	}
}

// newBus puts the files into a folder that a plain file can take the place of: then nothing can be opened there.
func newBus(t *testing.T, c Config) sink.Bus {
	dir := filepath.Join(t.TempDir(), "events")
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(t, os.Mkdir(dir, 0o755))
	c.Path = filepath.Join(dir, "e")
	return sink.Bus{
		Sink:   func(*testing.T) eventtap.Sink { return New(c) },
		Events: func(t *testing.T) [][]byte { return readAll(t, c) },
		Kill: func(t *testing.T) {
			must(t, os.Rename(dir, dir+".aside"))
			must(t, os.WriteFile(dir, nil, 0o600))
		},
		Revive: func(t *testing.T) {
			must(t, os.Remove(dir))
			must(t, os.Rename(dir+".aside", dir))
		},
	}
}

// readAll returns the events of all files, the oldest first.
func readAll(t *testing.T, c Config) (events [][]byte) {
	t.Helper()
	for i := c.MaxFiles - 1; i >= 0; i-- {
		path := c.Path
		if i > 0 {
			path = fmt.Sprintf("%s.%d", c.Path, i)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !c.Proto {
			events = append(events, sink.Lines(b)...)
			continue
		}
		for len(b) > 0 {
			n, k := binary.Uvarint(b)
			events = append(events, b[k:k+int(n)])
			b = b[k+int(n):]
		}
	}
	return events
}

// send sends one line.
func send(t *testing.T, s *Sink, line string) error {
	t.Helper()
	var got error
	called := 0
	s.Send(t.Context(), &eventtap.Batch{Body: []byte(line + "\n")}, func(err error) { got = err; called++ })
	if called != 1 {
		t.Fatalf("done was called %d times", called)
	}
	return got
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func open(t *testing.T, c Config) *Sink {
	t.Helper()
	s := New(c)
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	return s
}

func TestRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "e")
	s := open(t, Config{Path: path, MaxBytes: 20, MaxFiles: 3})
	for i := range 9 {
		if err := send(t, s, fmt.Sprintf("event-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"e": "event-8\n", "e.1": "event-6\nevent-7\n", "e.2": "event-4\nevent-5\n", "e.3": "",
	} {
		if got := content(t, filepath.Join(filepath.Dir(path), name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
}

func TestRotationKeepsOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "e")
	s := open(t, Config{Path: path, MaxBytes: 10, MaxFiles: 1})
	for _, line := range []string{"first", "second", "larger than all that is allowed", "third"} {
		if err := send(t, s, line); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, path); got != "third\n" {
		t.Errorf("%q", got)
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 1 {
		t.Errorf("%q", files)
	}
}

// TestFileGoes moves the file away, removes it, and removes its directory and brings it back.
func TestFileGoes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "e")
	s := open(t, Config{Path: path, MaxBytes: 1 << 20, MaxFiles: 2})
	step := func(line string, ok bool) {
		t.Helper()
		if err := send(t, s, line); (err == nil) != ok {
			t.Fatalf("%s: %v", line, err)
		}
	}
	step("one", true)
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	step("two", true)
	if content(t, path+".moved") != "one\n" || content(t, path) != "two\n" {
		t.Errorf("%q and %q", content(t, path+".moved"), content(t, path))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	step("three", true)
	if content(t, path) != "three\n" {
		t.Errorf("%q", content(t, path))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	step("four", false)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	step("four", true)
	if content(t, path) != "four\n" {
		t.Errorf("%q", content(t, path))
	}
}

// TestTornWrite has a disk that takes a part of a batch: nothing of it stays.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "e")
	s := open(t, Config{Path: path, MaxBytes: 1 << 20, MaxFiles: 1})
	if err := send(t, s, "whole"); err != nil {
		t.Fatal(err)
	}
	info, err := s.f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.f.WriteString("tor"); err != nil {
		t.Fatal(err)
	}
	if err := s.takeBack(info, syscall.ENOSPC); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := send(t, s, "again"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "whole\nagain\n" {
		t.Errorf("%q", got)
	}
}

// TestNoSpace has a device that is always full.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "e")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Path: path, MaxBytes: 1 << 20, MaxFiles: 3})
	if err := send(t, s, "one"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := send(t, s, "one"); err != nil || content(t, path) != "one\n" {
		t.Errorf("%v, %q", err, content(t, path))
	}
}

func TestMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "e")
	open(t, Config{Path: path, MaxBytes: 1 << 20, MaxFiles: 1})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if m := info.Mode().Perm(); m&^mode != 0 {
		t.Errorf("the file has the mode %#o", m)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	u64, u32 := wrapperspb.UInt64, wrapperspb.UInt32
	full := Config{Path: "/e", MaxBytes: 1 << 20, MaxFiles: 2, Proto: true, Fsync: true}
	for name, c := range map[string]struct {
		in   *tapv1.FileSink
		want Config
		err  string
	}{
		"least":           {&tapv1.FileSink{Path: "/e"}, Config{Path: "/e", MaxBytes: 64 << 20, MaxFiles: 5}, ""},
		"full":            {&tapv1.FileSink{Path: "/e", MaxBytes: u64(1 << 20), MaxFiles: u32(2), Format: tapv1.Format_PROTOBUF, Fsync: true}, full, ""},
		"no path":         {&tapv1.FileSink{}, Config{}, "path: "},
		"a relative path": {&tapv1.FileSink{Path: "e"}, Config{}, "path: "},
		"too small":       {&tapv1.FileSink{Path: "/e", MaxBytes: u64(1)}, Config{}, "max_bytes: "},
		"no files":        {&tapv1.FileSink{Path: "/e", MaxFiles: u32(0)}, Config{}, "max_files: "},
		"too many files":  {&tapv1.FileSink{Path: "/e", MaxFiles: u32(101)}, Config{}, "max_files: "},
		"an unknown form": {&tapv1.FileSink{Path: "/e", Format: 9}, Config{}, "format: "},
	} {
		b, err := proto.Marshal(c.in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Rows()[0].Parse(TypeURL, b)
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || p.Config != c.want {
			t.Errorf("%s: %+v, %v", name, p.Config, err)
		}
	}
	if _, err := Rows()[0].Parse(TypeURL, bytes.Repeat([]byte{0xff}, 3)); err == nil {
		t.Error("nonsense was accepted")
	}
}
