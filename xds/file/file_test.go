// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/xds/file"
)

// hang bounds how long a test waits for something that has to come.
const hang = 20 * time.Second

// told is one call.
type told struct {
	text string
	err  error
}

// watched runs a File until the test ends.
func watched(t *testing.T, cfg file.Config) <-chan told {
	t.Helper()
	out := make(chan told)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- file.New(cfg, zap.NewNop()).Run(ctx, func(text []byte, err error) {
			select {
			case out <- told{string(text), err}:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return out
}

// expect waits until a text is told. Others may come before it: what is written in place is seen in pieces on a busy machine.
func expect(t *testing.T, out <-chan told, want string) {
	t.Helper()
	for limit := time.After(hang); ; {
		select {
		case got := <-out:
			if got.err == nil && got.text == want {
				return
			}
		case <-limit:
			t.Fatalf("%q is not told", want)
		}
	}
}

func expectError(t *testing.T, out <-chan told, want string) {
	t.Helper()
	for limit := time.After(hang); ; {
		select {
		case got := <-out:
			if got.err != nil && strings.Contains(got.err.Error(), want) {
				return
			}
		case <-limit:
			t.Fatalf("no error with %q is told", want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rename puts a text in the place of a file.
func rename(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".tmp", text)
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

// turn makes a link lead elsewhere, at one moment.
func turn(t *testing.T, link, to string) {
	t.Helper()
	if err := os.Symlink(to, link+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".tmp", link); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each way to change a file is noticed, again and again.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// begin makes the file, and change puts a text into it.
		begin  func(t *testing.T, dir string) (cfg file.Config)
		change func(t *testing.T, dir, text string)
	}{
		{
			"written in place",
			func(t *testing.T, dir string) file.Config { return file.Config{Path: filepath.Join(dir, "f")} },
			func(t *testing.T, dir, text string) { write(t, filepath.Join(dir, "f"), text) },
		},
		{
			"renamed over it",
			func(t *testing.T, dir string) file.Config { return file.Config{Path: filepath.Join(dir, "f")} },
			func(t *testing.T, dir, text string) { rename(t, filepath.Join(dir, "f"), text) },
		},
		{
			"a link to it is turned",
			func(t *testing.T, dir string) file.Config { return file.Config{Path: filepath.Join(dir, "link")} },
			func(t *testing.T, dir, text string) {
				write(t, filepath.Join(mkdir(t, filepath.Join(dir, "to")), text), text)
				turn(t, filepath.Join(dir, "link"), filepath.Join("to", text))
			},
		},
		{
			"what a link leads to is replaced",
			func(t *testing.T, dir string) file.Config {
				mkdir(t, filepath.Join(dir, "to"))
				turn(t, filepath.Join(dir, "link"), "to/f")
				return file.Config{Path: filepath.Join(dir, "link")}
			},
			func(t *testing.T, dir, text string) { rename(t, filepath.Join(dir, "to", "f"), text) },
		},
		{
			"a ConfigMap",
			func(t *testing.T, dir string) file.Config {
				turn(t, filepath.Join(dir, "f"), "..data/f")
				return file.Config{Path: filepath.Join(dir, "f")}
			},
			func(t *testing.T, dir, text string) {
				write(t, filepath.Join(mkdir(t, filepath.Join(dir, ".."+text)), "f"), text)
				turn(t, filepath.Join(dir, "..data"), ".."+text)
			},
		},
		{
			"a path through a link that is turned",
			func(t *testing.T, dir string) file.Config {
				write(t, filepath.Join(mkdir(t, filepath.Join(dir, "first")), "f"), "0")
				turn(t, filepath.Join(dir, "now"), "first")
				return file.Config{Path: filepath.Join(dir, "now", "f")}
			},
			func(t *testing.T, dir, text string) {
				write(t, filepath.Join(mkdir(t, filepath.Join(dir, "v"+text)), "f"), text)
				turn(t, filepath.Join(dir, "now"), "v"+text)
			},
		},
		{
			"a move in the watched directory",
			func(t *testing.T, dir string) file.Config {
				mkdir(t, filepath.Join(dir, "signal"))
				return file.Config{Path: filepath.Join(dir, "f"), Watched: filepath.Join(dir, "signal")}
			},
			func(t *testing.T, dir, text string) {
				write(t, filepath.Join(dir, "f"), text)
				rename(t, filepath.Join(dir, "signal", "go"), text)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg := tt.begin(t, dir)
			tt.change(t, dir, "1")
			out := watched(t, cfg)
			expect(t, out, "1")
			for i := 2; i < 5; i++ {
				tt.change(t, dir, fmt.Sprint(i))
				expect(t, out, fmt.Sprint(i))
			}
		})
	}
}

// A file that is not there, or goes, is told once and taken when it comes.
func TestMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "later", "f")
	out := watched(t, file.Config{Path: path})
	expectError(t, out, "no such file")
	mkdir(t, filepath.Dir(path))
	write(t, path, "there")
	expect(t, out, "there")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expectError(t, out, "no such file")
	rename(t, path, "there")
	expect(t, out, "there") // the same text as before: it was gone meanwhile
}

func TestBounds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "12345")
	out := watched(t, file.Config{Path: path, MaxBytes: 4})
	expectError(t, out, "more than the 4 bytes allowed")
	rename(t, path, "1234")
	expect(t, out, "1234")
	rename(t, path, "")
	expect(t, out, "")
}

// What has not changed is not told again.
func TestSameTextIsNotTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "same")
	out := watched(t, file.Config{Path: path})
	expect(t, out, "same")
	rename(t, path, "same")
	rename(t, path+"-other", "x")
	rename(t, path, "new")
	if got := <-out; got.text != "new" || got.err != nil {
		t.Errorf("told %+v", got)
	}
}
