// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// deadBus takes nothing.
type deadBus struct{ e eventtap.Encoding }

func (b deadBus) Caps() eventtap.Caps       { return eventtap.Caps{Encoding: b.e, InFlight: 1} }
func (deadBus) Open(context.Context) error  { return nil }
func (deadBus) Close(context.Context) error { return nil }
func (deadBus) Send(_ context.Context, _ *eventtap.Batch, done func(error)) {
	done(errors.New("the bus is dead"))
}

// fillSpool leaves so many events of requests, and the start of a proxy, in the spools of two sinks.
func fillSpool(t *testing.T, dir, keyFile string, n int) {
	t.Helper()
	cfg := eventtap.Config{Memory: eventtap.MinMemory, Spool: eventtap.SpoolConfig{Dir: dir, KeyFile: keyFile}}
	cfg.Modes[event.Request], cfg.Modes[event.Lifecycle] = eventtap.Spool, eventtap.Spool
	for _, name := range []string{"json", "proto"} {
		cfg.Sinks = append(cfg.Sinks, eventtap.SinkConfig{Name: name, TypeURL: name})
	}
	tap, err := eventtap.New(cfg, eventtap.Deps{
		Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Random: rand.Reader,
		Builders: map[string]eventtap.SinkBuilder{
			"json":  func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return deadBus{eventtap.JSON}, nil },
			"proto": func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return deadBus{eventtap.ProtoBatch}, nil },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		tap.Observe(&mesh.Outcome{Cluster: "orders", ConnectionID: uint64(i + 1), Method: []byte("GET"), Status: 200})
	}
	tap.Notify(&mesh.Notice{Kind: mesh.NoticeStart, Time: time.Now().UnixNano()})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = tap.Close(ctx) // nothing can be delivered
	for _, s := range tap.Account().Sinks {
		if s.Pending != uint64(n+1) {
			t.Fatalf("%+v", s)
		}
	}
}

// TestSpool looks into spools, drains them in part and as a whole, and finds what is broken.
func TestSpool(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	fillSpool(t, dir, keyFile, 20)
	try := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, code := execute(t.Context(), append([]string{"spool"}, args...)...)
		if code != want {
			t.Fatalf("meshtap spool %q ends with %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout, stderr
	}
	const head = "SINK   IN USE  PENDING  BYTES  SEGMENTS  ENCRYPTED"
	out, _ := try(0, "ls", dir)
	if lines := strings.Split(out, "\n"); len(lines) != 4 || lines[0] != head || !strings.HasPrefix(lines[1], "json   no           21") {
		t.Errorf("ls:\n%s", out)
	}
	out, _ = try(0, "verify", dir, "--key-file", keyFile, "-o", "json")
	var doc struct{ Spools []spoolJSON }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Spools) != 2 || *doc.Spools[0].Events != 21 || *doc.Spools[1].Missing != 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, _ = try(5, "verify", dir); !strings.Contains(out, "not with this key") {
		t.Errorf("verify without the key:\n%s", out)
	}
	if _, notes := try(1, "drain", filepath.Join(dir, "json")); !strings.Contains(notes, "not with this key") {
		t.Errorf("drain without the key:\n%s", notes)
	}
	for _, name := range []string{"json", "proto"} {
		at := filepath.Join(dir, name)
		for _, c := range []struct {
			args []string
			from uint64
			n    int
		}{
			{[]string{"--keep"}, 1, 21}, {[]string{"-n", "5"}, 1, 5}, {[]string{"--keep", "-n", "1"}, 6, 1}, {nil, 6, 16}, {nil, 0, 0},
		} {
			out, _ := try(0, append([]string{"drain", at, "--key-file", keyFile}, c.args...)...)
			lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if c.n == 0 && out == "" {
				continue
			}
			var e event.Event
			if err := e.DecodeJSON([]byte(lines[0])); err != nil || len(lines) != c.n || e.StreamSeq != c.from {
				t.Errorf("drain %q: %d lines, the first is number %d: %v", c.args, len(lines), e.StreamSeq, err)
			}
		}
	}
}

func TestSpoolFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fillSpool(t, dir, "", 10)
	files, err := filepath.Glob(filepath.Join(dir, "json", "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, code := execute(t.Context(), "spool", "verify", dir, "--no-headers")
	if code != 5 || !strings.Contains(out, "json   no  11") {
		t.Errorf("%d\n%s", code, out)
	}
	out, notes, code := execute(t.Context(), "spool", "drain", filepath.Join(dir, "json"))
	if code != 0 || strings.Count(out, "\n") != 10 || notes != "meshtap: 10 events printed, 1 missing\n" {
		t.Errorf("%d %q\n%s", code, notes, out)
	}
	for _, args := range [][]string{{"ls", dir + "/none"}, {"ls", t.TempDir()}, {"drain", t.TempDir()}, {"verify", dir, "--key-file", files[0]}} {
		if _, notes, code := execute(t.Context(), append([]string{"spool"}, args...)...); code != 1 || notes == "" {
			t.Errorf("%q: %d %q", args, code, notes)
		}
	}
}
