// SPDX-License-Identifier: Apache-2.0

package bus_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtapd/bus"
)

// start runs a bus until the test ends.
func start(t *testing.T, c bus.Config) *bus.Bus {
	t.Helper()
	c.Log = zap.NewNop()
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 20
	}
	b, err := bus.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// connect logs in and returns a client that publishes.
func connect(t *testing.T, b *bus.Bus) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(b.URL(), nats.Token(b.Token()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestDoesNotListenUnasked(t *testing.T) {
	t.Parallel()
	b := start(t, bus.Config{Dir: t.TempDir()})
	if b.URL() != "" {
		t.Errorf("it listens on %s", b.URL())
	}
	info, err := b.Info(t.Context())
	if err != nil || info.Stream != bus.Stream || info.Messages != 0 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestTokenIsNeeded(t *testing.T) {
	t.Parallel()
	b := start(t, bus.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	for _, opts := range [][]nats.Option{nil, {nats.Token("something else")}, {nats.UserInfo("a", "b")}} {
		if c, err := nats.Connect(b.URL(), opts...); err == nil {
			c.Close()
			t.Errorf("it lets in %v", opts)
		}
	}
	if _, err := connect(t, b).Publish(t.Context(), "meshtap.events.request.x", []byte("{}")); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(b.TokenFile())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the token's file: %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(b.TokenFile())
	if err != nil || strings.TrimSpace(string(text)) != b.Token() || len(b.Token()) < 40 {
		t.Errorf("the token's file holds %q, %v", text, err)
	}
}

// What was acknowledged is there after a restart, and so is the token that clients know.
func TestKeepsEvents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, bus.Config{Dir: dir, Listen: "127.0.0.1:0"})
	js := connect(t, b)
	for i := range 3 {
		if _, err := js.Publish(t.Context(), fmt.Sprint("meshtap.events.request.", i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	token := b.Token()
	b.Close()
	b = start(t, bus.Config{Dir: dir})
	info, err := b.Info(t.Context())
	if err != nil || info.Messages != 3 || info.First != 1 || info.Last != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	if b.Token() != token {
		t.Error("the token has changed")
	}
}

// The stream never holds more than MaxBytes: the oldest events go.
func TestIsBounded(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	b := start(t, bus.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MaxBytes: most})
	js := connect(t, b)
	for range 100 {
		if _, err := js.Publish(t.Context(), "meshtap.events.request.x", bytes.Repeat([]byte("x"), 4<<10)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := b.Info(t.Context())
	if err != nil || info.Bytes > most || info.Last != 100 || info.First == 1 || info.Messages == 0 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	busy := start(t, bus.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	taken := filepath.Dir(busy.TokenFile())
	for name, tc := range map[string]struct {
		cfg  bus.Config
		want string
	}{
		"no address":             {bus.Config{Listen: "localhost"}, `"localhost" is no address; write 127.0.0.1:4222`},
		"all interfaces":         {bus.Config{Listen: "0.0.0.0:0"}, "choose a token and name its file"},
		"all interfaces, IPv6":   {bus.Config{Listen: "[::]:0"}, "choose a token and name its file"},
		"an address in use":      {bus.Config{Listen: strings.TrimPrefix(busy.URL(), "nats://")}, "address already in use; end the other process"},
		"a directory in use":     {bus.Config{Dir: taken}, taken + ": in use by another process"},
		"a short token":          {bus.Config{TokenFile: file("secret")}, "one word of at least 16 bytes"},
		"two words":              {bus.Config{TokenFile: file("secretsecret secretsecret")}, "one word of at least 16 bytes"},
		"no token where one is":  {bus.Config{TokenFile: filepath.Join(taken, "nothing")}, "no such file"},
		"a file for a directory": {bus.Config{Dir: file("")}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tc.cfg
			if c.Dir == "" {
				c.Dir = t.TempDir()
			}
			c.Log, c.MaxBytes = zap.NewNop(), 1<<20
			b, err := bus.Start(t.Context(), c)
			if err == nil {
				b.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "bus: ") {
				t.Errorf("got %q, want %q", err, tc.want)
			}
		})
	}
}

// A token that somebody chose may be used beyond the loopback interface.
func TestChosenToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("chosen-by-somebody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, bus.Config{Dir: t.TempDir(), Listen: "0.0.0.0:0", TokenFile: path})
	if b.Token() != "chosen-by-somebody" || b.TokenFile() != path {
		t.Errorf("token %q from %s", b.Token(), b.TokenFile())
	}
	if c, err := nats.Connect(b.URL()); err == nil {
		c.Close()
		t.Error("it lets in anybody")
	}
	connect(t, b)
}
