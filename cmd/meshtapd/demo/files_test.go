// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/xds/control"
)

// The mesh of the demo is one that the control plane takes, and that only orders has a breaker in.
func TestMesh(t *testing.T) {
	t.Parallel()
	w, err := New(Config{Dir: "/nowhere"}) // nothing is written there
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	text, err := w.Mesh()
	if err != nil {
		t.Fatal(err)
	}
	m, err := control.Parse("mesh.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(m.Services) != len(w.services) || m.Services["orders"].Policy.Breaker == nil || m.Services["orders"].Routes[0].Fallback == nil {
		t.Errorf("the mesh is\n%s", text)
	}
	// The answer of the fallback must not look like one that went through all services: ready waits for that.
	if strings.Contains(m.Services["orders"].Routes[0].Fallback.Body, lastService) {
		t.Error("the fallback looks like an answer of the last service")
	}
}

func TestNewWantsShortPaths(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{Dir: "/" + strings.Repeat("x", longestSocket)}); err == nil || !strings.Contains(err.Error(), "by 1 bytes; set XDG_RUNTIME_DIR") {
		t.Errorf("got %v", err)
	}
}

func TestFreePorts(t *testing.T) {
	t.Parallel()
	at, err := freePorts(50)
	if err != nil || len(at) != 50 {
		t.Fatalf("%v, %v", at, err)
	}
	seen := map[uint16]bool{}
	for _, a := range at {
		if seen[a.Port()] || a.Port() < 20000 || a.Port() > 31999 || a.Addr() != loopback {
			t.Errorf("%v", a)
		}
		seen[a.Port()] = true
	}
	if _, err := freePorts(ports + 1); err == nil {
		t.Error("there are more ports than there are")
	}
	// One that is taken is left out: of two that are all there are, the free one is found.
	taken, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at[0]))
	if err != nil {
		t.Skip("somebody else has taken the port") // it was free a moment ago
	}
	defer taken.Close()
	rest, err := freePorts(200)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range rest {
		if a == at[0] {
			t.Errorf("%v is taken", a)
		}
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b", "context.json")
	socket := "@" + path // an abstract one, whose name is free
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if pid := Running(path); pid != 0 {
		t.Errorf("without a file, %d runs", pid)
	}
	if err := RemoveContext(path, 1); err != nil {
		t.Error(err)
	}
	c := &cli.Context{
		Name: "demo", PID: os.Getpid(), Proxies: []cli.Proxy{{Name: "web-1", Service: "web", Admin: "/w.sock"}},
		Bus: &cli.ContextBus{URL: "nats://127.0.0.1:1", Token: "t", Stream: "MESHTAP", Subject: "meshtap.events.>"}, Control: cli.ContextControl{Admin: "/c.sock"}, Faults: socket,
	}
	if err := WriteContext(c, path); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	var got map[string]any
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	want := map[string]any{
		"name": "demo", "pid": float64(os.Getpid()),
		"proxies": []any{map[string]any{"name": "web-1", "service": "web", "admin": "/w.sock"}},
		"bus":     map[string]any{"url": "nats://127.0.0.1:1", "token": "t", "stream": "MESHTAP", "subject": "meshtap.events.>"},
		"control": map[string]any{"admin": "/c.sock"}, "faults": socket,
	}
	a, _ := json.Marshal(got) // maps of strings and numbers
	b, _ := json.Marshal(want)
	if err != nil || string(a) != string(b) {
		t.Errorf("%v: %s, want %s", err, a, b)
	}
	if pid := Running(path); pid != os.Getpid() {
		t.Errorf("%d runs", pid)
	}
	ln.Close()
	if pid := Running(path); pid != 0 {
		t.Errorf("%d runs, and nobody answers", pid)
	}
	if err := RemoveContext(path, os.Getpid()+1); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the context of another process was removed")
	}
	if err := RemoveContext(path, os.Getpid()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestRunningReadsAnything(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no JSON": "x", "no process": `{"pid":0}`, "no socket": `{"pid":1}`, "a socket that is gone": `{"pid":1,"faults":"/nowhere/at/all"}`} {
		path := filepath.Join(t.TempDir(), "context.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid := Running(path); pid != 0 {
			t.Errorf("%s: %d runs", name, pid)
		}
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	env := func(string) string { return base }
	d, err := NewDir(env)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.Path); err != nil || info.Mode() != 0o700|os.ModeDir || filepath.Dir(d.Path) != base {
		t.Errorf("%s: %v, %v", d.Path, info.Mode(), err)
	}
	in := func(name string) string { return filepath.Join(base, dirPrefix+name) }
	precious := filepath.Join(base, "precious")
	old := time.Now().Add(-time.Hour)
	write := func(dir string, mode os.FileMode) {
		t.Helper()
		err := errors.Join(os.Mkdir(dir, mode), os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600), os.Chtimes(filepath.Join(dir, "lock"), old, old))
		if err != nil {
			t.Fatal(err)
		}
	}
	write(in("left"), 0o700)
	write(in("others"), 0o755) // no demo makes these
	write(precious, 0o700)
	if err := errors.Join(os.Symlink(precious, in("link")), os.Mkdir(in("unlocked"), 0o700), os.WriteFile(in("file"), nil, 0o600),
		os.Chtimes(filepath.Join(d.Path, "lock"), old, old)); err != nil {
		t.Fatal(err)
	}
	second, err := NewDir(env)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		d.Path: true, second.Path: true, in("left"): false, in("others"): true, precious: true, in("link"): true, in("unlocked"): true, in("file"): true,
	} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s is there: %v", path, err == nil)
		}
	}
	for _, d := range []*Dir{d, second} {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(d.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left", d.Path)
		}
	}
}

// Without a place for run-time files, those of the system for temporary ones are taken.
func TestDirElsewhere(t *testing.T) {
	for name, base := range map[string]string{"unset": "", "relative": "run", "not there": "/nowhere/at/all"} {
		d, err := NewDir(func(string) string { return base })
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(d.Path) != filepath.Clean(os.TempDir()) {
			t.Errorf("%s: %s", name, d.Path)
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
}

func TestFindMeshtap(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	daemon := filepath.Join(dir, "meshtapd")
	t.Setenv("PATH", other)
	if _, err := FindMeshtap(daemon); err == nil || !strings.Contains(err.Error(), "is neither at "+dir+"/meshtap nor in PATH") {
		t.Errorf("without it: %v", err)
	}
	file := func(dir string, mode os.FileMode) string {
		path := filepath.Join(dir, "meshtap")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inPath := file(other, 0o755)
	file(dir, 0o600)
	if got, err := FindMeshtap(daemon); got != inPath || err != nil {
		t.Errorf("beside a file that is no program: %q, %v", got, err)
	}
	beside := file(dir, 0o755)
	if got, err := FindMeshtap(daemon); got != beside || err != nil {
		t.Errorf("beside: %q, %v", got, err)
	}
}
