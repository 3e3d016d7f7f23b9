// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/cmd/meshtapd/bus"
	"github.com/meshtap/meshtap/xds/control"
)

// Help fits a screen, and shows how a command is called.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--help"}, {"help"}, {"help", "demo"}, {"control", "--help"}, {"demo", "--help"}} {
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetArgs(args)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		for _, l := range lines {
			if len(l) > 80 {
				t.Errorf("%q: the line %q is too long", args, l)
			}
		}
		if len(lines) > 24 || !strings.Contains(out.String(), "\n  meshtapd demo") && !strings.Contains(out.String(), "\n  meshtapd control --config") {
			t.Errorf("%q: %d lines:\n%s", args, len(lines), out.String())
		}
		if strings.Contains(out.String(), "  toy ") {
			t.Errorf("%q shows what is hidden:\n%s", args, out.String())
		}
	}
}

func TestCommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no such command":           {[]string{"dmeo"}, 2, "meshtapd: there is no command \"dmeo\"\n  hint: did you mean demo?\n"},
		"an argument":               {[]string{"demo", "x"}, 2, "meshtapd: meshtapd demo takes no \"x\"\n  hint: see meshtapd demo --help\n"},
		"no such flag":              {[]string{"demo", "--rats", "1"}, 2, "did you mean --rate?"},
		"a rate of nothing":         {[]string{"demo", "--rate", "0"}, 2, "--rate 0: 1 to 1000 are allowed"},
		"no file of sinks":          {[]string{"demo", "--sinks", "/nowhere/at/all.yaml"}, 2, "--sinks /nowhere/at/all.yaml: open"},
		"a level":                   {[]string{"demo", "--log-level", "loud"}, 2, "debug, info, warn and error are allowed"},
		"nothing to serve":          {[]string{"control"}, 2, "give a mesh with --config FILE"},
		"half of TLS":               {[]string{"control", "--config", "m.yaml", "--no-bus", "--tls-cert", "c.pem"}, 2, "--tls-cert and --tls-key need each other"},
		"clients without TLS":       {[]string{"control", "--config", "m.yaml", "--tls-client-ca", "ca.pem"}, 2, "--tls-client-ca is for TLS\n  hint: give --tls-cert"},
		"a flag of the environment": {[]string{"control"}, 1, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.code == 1 {
				t.Setenv("MESHTAP_CONFIG", "/nowhere/at/all.yaml")
				t.Setenv("MESHTAP_NO_BUS", "true")
			}
			var errs bytes.Buffer
			root := newRoot()
			root.SetArgs(tc.args)
			if code := report(&errs, root.Execute()); code != tc.code || !strings.Contains(errs.String(), tc.want) {
				t.Errorf("%d %q, want %d %q", code, errs.String(), tc.code, tc.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	_, invalid := control.Parse("mesh.yaml", []byte("services: 1\n"))
	for name, tc := range map[string]struct {
		err  error
		code int
		want string
	}{
		"nothing":          {nil, 0, ""},
		"an error":         {errors.New("it\x1b[31m broke"), 1, "meshtapd: it"},
		"of several lines": {errors.New("it broke:\n  here"), 1, "meshtapd: it broke:\n  here\n"},
		"a code":           {fmt.Errorf("wrapped: %w", cli.Usage("do that", "not this")), 2, "meshtapd: not this\n  hint: do that\n"},
		"a broken mesh":    {invalid, 3, "mesh.yaml:1:11  error  services must be a mapping"},
	} {
		var out strings.Builder
		if code := report(&out, tc.err); code != tc.code || !strings.HasPrefix(out.String(), tc.want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: %d %q, want %d %q", name, code, out.String(), tc.code, tc.want)
		}
	}
}

// runPlane runs a control plane on sockets until the test ends, and returns a client of its administration.
func runPlane(t *testing.T, withBus bool) (dir string, get func(method, path string) (int, string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "plane-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("mesh.yaml"), []byte("services: {web: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := planeConfig{File: in("mesh.yaml"), Listen: in("xds"), Admin: in("admin"), Log: zap.NewNop()}
	if withBus {
		if c.Bus, err = bus.Start(t.Context(), bus.Config{Dir: in("bus"), MaxBytes: 1 << 20, Log: zap.NewNop()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Bus.Close)
	}
	p, err := openPlane(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the control plane ends with %v", err)
		}
	})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", in("admin"))
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return dir, func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestPlaneAdmin(t *testing.T) {
	t.Parallel()
	for _, withBus := range []bool{true, false} {
		dir, get := runPlane(t, withBus)
		for _, tc := range []struct {
			method, path string
			status       int
			want         string
		}{
			{"GET", "/ready", 200, "LIVE\n"},
			{"GET", "/proxies", 200, "{\n  \"proxies\": []\n}\n"},
			{"GET", "/mesh", 200, `"file": "` + dir + `/mesh.yaml"`},
			{"GET", "/stats", 200, "control.proxies: 0\ncontrol.types.synced: 0\ncontrol.types.stale: 0\ncontrol.types.rejected: 0\ncontrol.mesh.valid: 1\n"},
			{"GET", "/nothing", 404, "there are /proxies, /mesh, /bus, /stats and /ready\n"},
			{"POST", "/ready", 405, "everything here is read with GET\n"},
		} {
			if status, body := get(tc.method, tc.path); status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, status, body, tc.status, tc.want)
			}
		}
		status, body := get("GET", "/bus")
		var info bus.Info
		if withBus && (status != 200 || json.Unmarshal([]byte(body), &info) != nil || info.Stream != bus.Stream) || !withBus && status != 404 {
			t.Errorf("/bus: %d %q", status, body)
		}
		if _, body := get("GET", "/stats"); strings.Contains(body, "bus.messages: 0\n") != withBus {
			t.Errorf("/stats: %q", body)
		}
	}
}

// An address that cannot be had ends the start, and leaves nothing open.
func TestPlaneCannotListen(t *testing.T) {
	t.Parallel()
	dir, _ := runPlane(t, false)
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]planeConfig{
		"for proxies":            {Listen: in("xds"), Admin: in("a")},
		"for its administration": {Listen: in("b"), Admin: in("admin")},
	} {
		c.File, c.Log = in("mesh.yaml"), zap.NewNop()
		if _, err := openPlane(t.Context(), c); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("%s: %v", name, err)
		}
		for _, left := range []string{"a", "b"} {
			if _, err := os.Lstat(in(left)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is left", name, left)
			}
		}
	}
}

func TestDemoCommand(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	binary := filepath.Join(dir, "meshtap")
	if err := os.WriteFile(binary, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", elsewhere)
	for _, tc := range []struct{ cwd, want string }{{dir, "./meshtap"}, {filepath.Dir(dir), filepath.Base(dir) + "/meshtap"}, {elsewhere, binary}} {
		t.Chdir(tc.cwd)
		if got := (&demoRun{meshtap: binary}).command(); got != tc.want {
			t.Errorf("in %s: %q, want %q", tc.cwd, got, tc.want)
		}
	}
	t.Setenv("PATH", dir)
	if got := (&demoRun{meshtap: binary}).command(); got != "meshtap" {
		t.Errorf("in PATH: %q", got)
	}
}

// The page about mesh.yaml says what each flag of the control plane is.
func TestFlagsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "mesh-yaml.md"))
	if err != nil {
		t.Fatal(err)
	}
	newControl().Flags().VisitAll(func(f *pflag.Flag) {
		if !bytes.Contains(doc, []byte("`--"+f.Name+"` | ")) {
			t.Errorf("docs/mesh-yaml.md does not say what --%s is", f.Name)
		}
	})
}

// Only a failure is an error at the end of a demo, not that it was asked to stop.
func TestCause(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if err := cause(ctx); err != nil {
			t.Errorf("before its end: %v", err)
		}
		cancel(want)
		if err := cause(ctx); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}
