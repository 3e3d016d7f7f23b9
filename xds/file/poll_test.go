// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// Where the system has no watcher left, a file is looked at again and again.
func TestWithoutWatcher(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	texts := make(chan string)
	f := New(Config{Path: path}, zap.NewNop())
	f.newWatcher = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many") }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- f.Run(ctx, func(b []byte, err error) {
			if err != nil {
				b = []byte("error")
			}
			select {
			case texts <- string(b):
			case <-ctx.Done():
			}
		})
	}()
	for _, want := range []string{"error", "1", "2"} {
		if want != "error" {
			if err := os.WriteFile(path+".tmp", []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".tmp", path); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-texts; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
