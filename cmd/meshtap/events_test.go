// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

func TestParseSince(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"10m":                       now.Add(-10 * time.Minute),
		"1h30m":                     now.Add(-90 * time.Minute),
		"2026-02-28T23:00:00Z":      now.Add(-10 * time.Hour),
		"2026-03-01T09:00:00+01:00": now.Add(-time.Hour),
	} {
		if got, err := parseSince(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0s", "-1m", "10", "tomorrow", "2026-03-01", "2026-13-01T00:00:00Z"} {
		if got, err := parseSince(s, now); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

// TestEventsFollow: what is stored comes first, then what comes, without a hole or a repeat between them, until an
// interrupt.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	b := newBus(t, "")
	t.Cleanup(b.close)
	b.publish(t, []byte(line(1)))
	b.publish(t, []byte(line(2)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lineCounter{each: func(n int) {
		switch n {
		case 2: // the list is there
			b.publish(t, []byte(line(3)))
			b.publish(t, []byte("["+strings.TrimSpace(line(4))+","+line(5)+"]"))
		case 5:
			cancel()
		}
	}}
	var errOut bytes.Buffer
	code := run(ctx, []string{"meshtap", "events", "ls", "-f", "-o", "jsonl", "--bus", b.url}, out, &errOut)
	if code != cli.ExitInterrupted {
		t.Errorf("ended with %d: %s", code, errOut.String())
	}
	want := line(1) + line(2) + line(3) + line(4) + line(5)
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if want := "meshtap: 5 shown of 5 events; --since looks further back\n"; errOut.String() != want {
		t.Errorf("says %q, want %q", errOut.String(), want)
	}
}

// TestTapFollowsBus: tap of a bus shows what is published from now on.
func TestTapFollowsBus(t *testing.T) {
	t.Parallel()
	b := newBus(t, "")
	t.Cleanup(b.close)
	b.publish(t, []byte(line(1)))
	ctx, cancel := context.WithTimeout(t.Context(), busTime)
	defer cancel()
	done := make(chan struct{})
	var out string
	var code int
	go func() {
		defer close(done)
		out, _, code = execute(ctx, "tap", "-n", "1", "-o", "jsonl", "--bus", b.url)
	}()
	for n := 2; ; n++ { // nobody says when tap has begun to read
		select {
		case <-done:
			if code != 0 || out == line(1) || !strings.Contains(out, `"id":"a-`) {
				t.Errorf("ended with %d: %s", code, out)
			}
			return
		default:
			b.publish(t, []byte(line(n)))
		}
	}
}

// TestEventsContext: a context says where the bus is, with which token, and what to call who publishes there. The token is
// never shown.
func TestEventsContext(t *testing.T) {
	t.Parallel()
	const token = "very-secret"
	b := newBus(t, token)
	t.Cleanup(b.close)
	b.publish(t, []byte(line(1)))
	dir := t.TempDir()
	write := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	proxies := `"proxies": [{"name": "web-1", "service": "shop", "admin": "./a.sock"}]`
	with := write("with.json", fmt.Sprintf(`{"name": "x", %s, "bus": {"url": %q, "token": %q}}`, proxies, b.url, token))
	without := write("without.json", fmt.Sprintf(`{"name": "x", %s, "bus": {"url": %q}}`, proxies, b.url))
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"token of the context", []string{"--context", with}, 0, "shop → orders"},
		{"token of a file", []string{"--context", without, "--bus", b.url, "--bus-token-file", write("token", token+"\n")}, 0, "shop → orders"},
		{"no token", []string{"--context", without}, cli.ExitUnreachable, "hint: give the token with --bus-token-file"},
		{"wrong token in the address", []string{"--bus", strings.Replace(b.url, "//", "//other-secret@", 1)}, cli.ExitUnreachable, "hint: give the token"},
		{"no such file", []string{"--bus", b.url, "--bus-token-file", filepath.Join(dir, "none")}, cli.ExitUsage, "--bus-token-file: open "},
	} {
		out, errOut, code := execute(t.Context(), append([]string{"events", "ls", "-o", "compact"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) || strings.Contains(out+errOut, "secret") {
			t.Errorf("%s: ended with %d, want %d and %q: %s%s", c.name, code, c.code, c.want, out, errOut)
		}
	}
}

// TestBusSaysNothing: an interrupt also ends the wait for a server that accepts and says nothing.
func TestBusSaysNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
			cancel()
		}
	}()
	_, errOut, code := execute(ctx, "events", "ls", "--bus", "nats://"+l.Addr().String())
	if code != cli.ExitInterrupted {
		t.Errorf("ended with %d: %s", code, errOut)
	}
	(<-accepted).Close()
}

// TestBusWithoutStream: a server that stores nothing is told from one that is not there.
func TestBusWithoutStream(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(busTime) {
		t.Fatal("the server does not start")
	}
	_, errOut, code := execute(t.Context(), "events", "ls", "--bus", s.ClientURL())
	if code != cli.ExitFailure || !strings.Contains(errOut, "has no JetStream, and so no stored events") {
		t.Errorf("ended with %d: %s", code, errOut)
	}
}

// lineCounter calls each with the number of lines that were written so far.
type lineCounter struct {
	mu   sync.Mutex
	b    bytes.Buffer
	n    int
	each func(int)
}

func (l *lineCounter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for part := range bytes.Lines(p) {
		l.b.Write(part)
		if bytes.HasSuffix(part, []byte("\n")) {
			l.n++
			l.each(l.n)
		}
	}
	return len(p), nil
}

func (l *lineCounter) String() string { return l.b.String() }
