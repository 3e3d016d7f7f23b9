// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/xds/control"
)

// hang is how long a test waits for something that must happen.
const hang = 30 * time.Second

// watched is a source that runs, with what it tells.
type watched struct {
	t       *testing.T
	path    string
	source  *control.Source
	applied chan *control.Mesh
	logged  chan string // errors, each as "message: problem"
}

// watch opens and runs a source until the test ends.
func watch(t *testing.T, path string) *watched {
	t.Helper()
	w := &watched{t: t, path: path, applied: make(chan *control.Mesh, 16), logged: make(chan string, 16)}
	log := zap.New(&core{w.logged})
	var err error
	if w.source, _, err = control.Open(path, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.source.Run(ctx, func(m *control.Mesh) { w.applied <- m }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ends with %v", err)
		}
	})
	return w
}

// core passes errors on.
type core struct{ out chan string }

func (c *core) Enabled(l zapcore.Level) bool      { return l >= zapcore.ErrorLevel }
func (c *core) With([]zapcore.Field) zapcore.Core { return c }
func (c *core) Sync() error                       { return nil }
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	for _, f := range fields {
		e.Message += ": " + f.String
	}
	c.out <- e.Message
	return nil
}

// mesh waits for a mesh to be applied whose only service has this name.
func (w *watched) mesh(name string) {
	w.t.Helper()
	select {
	case m := <-w.applied:
		if len(m.Services) != 1 || m.Services[name] == nil {
			w.t.Errorf("%v is applied, %s should", m.Services, name)
		}
	case msg := <-w.logged:
		w.t.Fatalf("instead of %s: %s", name, msg)
	case <-time.After(hang):
		w.t.Fatalf("%s is not applied", name)
	}
}

// refused waits for an error in the log that holds a text, and checks that nothing was applied.
func (w *watched) refused(want string) {
	w.t.Helper()
	select {
	case msg := <-w.logged:
		if !strings.Contains(msg, want) {
			w.t.Errorf("the log has %q, want %q", msg, want)
		}
	case m := <-w.applied:
		w.t.Fatalf("%v is applied", m.Services)
	case <-time.After(hang):
		w.t.Fatalf("nobody complains of %q", want)
	}
	if got := w.source.Status().Problem; got == "" {
		w.t.Error("the status has no problem")
	}
}

func only(name string) string { return "services:\n  " + name + ": {}\n" }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestSourceFollowsTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, only("a"))
	w := watch(t, path)
	first := w.source.Status()
	if first.File != path || first.Problem != "" || first.Loaded.IsZero() {
		t.Errorf("%+v", first)
	}
	put(t, path, only("b"))
	w.mesh("b")
	put(t, path+".new", only("c"))
	rename(t, path+".new", path)
	w.mesh("c")
	put(t, path, "services:\n  c: {polcy: {}}\n")
	w.refused(`mesh.yaml:2:7: unknown field "polcy" in services.c  did you mean "policy"?`)
	if got := w.source.Status(); !got.Loaded.After(first.Loaded) || !strings.Contains(got.Problem, "services.c.polcy") {
		t.Errorf("%+v", got)
	}
	put(t, path, "services: [\n")
	w.refused("mesh.yaml:")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.refused("no such file")
	put(t, path, only("d"))
	w.mesh("d")
	if got := w.source.Status(); got.Problem != "" {
		t.Errorf("after it was mended: %+v", got)
	}
}

// The same bytes again are no change; and what is back as it was is no problem any more.
func TestSourceGoesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, only("a"))
	w := watch(t, path)
	put(t, path, "services: 1\n")
	w.refused("services must be a mapping")
	put(t, path, only("a"))
	w.source.Reload()
	deadline := time.After(hang)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for w.source.Status().Problem != "" {
		select {
		case <-pace.C:
		case m := <-w.applied:
			t.Fatalf("%v is applied though nothing has changed", m.Services)
		case <-deadline:
			t.Fatal("the problem stays")
		}
	}
}

// Kubernetes shows a ConfigMap by two links, and turns the outer one when it changes.
func TestSourceFollowsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for version, name := range map[string]string{"..1": "a", "..2": "b", "..3": "c"} {
		if err := os.Mkdir(in(version), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(in(version), "mesh.yaml"), only(name))
	}
	turn := func(version string) {
		t.Helper()
		if err := os.Symlink(version, in("..tmp")); err != nil {
			t.Fatal(err)
		}
		rename(t, in("..tmp"), in("..data"))
	}
	turn("..1")
	if err := os.Symlink(filepath.Join("..data", "mesh.yaml"), in("mesh.yaml")); err != nil {
		t.Fatal(err)
	}
	w := watch(t, in("mesh.yaml"))
	turn("..2")
	w.mesh("b")
	turn("..3")
	w.mesh("c")
	put(t, filepath.Join(in("..3"), "mesh.yaml"), only("d")) // what it leads to is written to
	w.mesh("d")
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	if _, _, err := control.Open(path, zap.NewNop()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	put(t, path, "services: {}\n")
	_, _, err := control.Open(path, zap.NewNop())
	var invalid *control.Invalid
	if !errors.As(err, &invalid) || invalid.File != path || len(invalid.Issues) != 1 {
		t.Errorf("a file that cannot be used: %v", err)
	}
	put(t, path, only("a"))
	if _, m, err := control.Open(path, zap.NewNop()); err != nil || m.Services["a"] == nil {
		t.Fatal(err)
	}
}
