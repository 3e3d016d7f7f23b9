// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/zeromq"
	"github.com/meshtap/meshtap/internal/zmtp"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// libzmq is a process with a socket of libzmq.
type libzmq struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Closer
	at   string // where it is bound, host:port
	got  [][]byte
	done chan struct{} // closed when got holds all that it has printed
}

func startLibzmq(t *testing.T, args ...string) *libzmq {
	t.Helper()
	z := &libzmq{t: t, cmd: exec.Command(installed(t, "python")+"/bin/python", append([]string{"zeromq.py"}, args...)...), done: make(chan struct{})}
	var err error
	if z.in, err = z.cmd.StdinPipe(); err != nil { // it ends when this process does
		t.Fatal(err)
	}
	out, err := z.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := z.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("libzmq does not start; run make buses: %v", err)
	}
	z.at = strings.TrimPrefix(strings.TrimSpace(line), "at tcp://")
	go z.read(lines)
	t.Cleanup(z.kill)
	return z
}

// read collects the events of the messages that the socket gets. A line that was cut by the end of the process was not
// acknowledged either.
func (z *libzmq) read(lines *bufio.Reader) {
	defer close(z.done)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		var parts [][]byte
		for _, h := range strings.Fields(line) {
			p, err := hex.DecodeString(h)
			if err != nil {
				z.t.Errorf("%q: %v", line, err)
			}
			parts = append(parts, p)
		}
		if len(parts) != 3 || !strings.HasPrefix(string(parts[0]), "meshtap.events.") || !strings.HasPrefix(string(parts[1]), "application/cloudevents+") {
			z.t.Errorf("%q", parts)
			return
		}
		z.got = append(z.got, parts[2])
	}
}

// kill ends the process with SIGKILL, if it has not ended.
func (z *libzmq) kill() {
	_ = z.cmd.Process.Kill()
	<-z.done
	_ = z.cmd.Wait()
}

// events returns the events of all messages, once the process has had as many as it was told, or has waited for long.
func (z *libzmq) events() [][]byte {
	select {
	case <-z.done:
	case <-time.After(20 * time.Second):
		z.in.Close()
		<-z.done
	}
	return z.got
}

// ended tells whether the process has had as many as it was told.
func (z *libzmq) ended() bool {
	select {
	case <-z.done:
		return true
	default:
		return false
	}
}

func zeromqConfig(p zeromq.Pattern) zeromq.Config {
	return zeromq.Config{Pattern: p, Prefix: "meshtap.events", PeerBytes: 1 << 20, MaxPeers: 4, Heartbeat: time.Second, AckTimeout: 10 * time.Second}
}

// TestZeroMQ has libzmq at the other end of each pattern, bound and connected.
func TestZeroMQ(t *testing.T) {
	t.Parallel()
	const events = 20000
	for _, c := range []struct {
		pattern zeromq.Pattern
		peer    string
		proto   bool
	}{{zeromq.Pub, "SUB", false}, {zeromq.Push, "PULL", true}, {zeromq.Dealer, "ROUTER", false}} {
		for _, l := range zeromqLogins(t) {
			t.Run(fmt.Sprintf("%s and %s, %s", c.pattern, c.peer, l.name), func(t *testing.T) {
				events := events
				if l.connect != nil {
					events = 2000
				}
				z := startLibzmq(t, append([]string{"-b", c.peer, "tcp://127.0.0.1:*", fmt.Sprint(events)}, l.peer...)...)
				cfg := zeromqConfig(c.pattern)
				cfg.Connect, cfg.Proto, cfg.PeerBytes = []string{z.at}, c.proto, 32<<20
				if l.connect != nil {
					l.connect(&cfg, false)
					if err := sink.Try(t, zeromq.New(cfg, deps(t))); err == nil {
						t.Error("libzmq lets a stranger in")
					}
					l.connect(&cfg, true)
				}
				deliver(t, zeromq.New(cfg, deps(t)), z, events)
			})
		}
		for _, l := range zeromqLogins(t)[1:] {
			t.Run(fmt.Sprintf("%s and %s, %s, bound", c.pattern, c.peer, l.name), func(t *testing.T) { boundZeroMQ(t, c.pattern, c.peer, l) })
		}
	}
	t.Run("killed", killedZeroMQ)
}

// zeromqLogin is a mechanism: what libzmq is told for it, and how a sink that connects, or binds, does it.
type zeromqLogin struct {
	name          string
	peer, strange []string
	connect       func(cfg *zeromq.Config, right bool)
	bind          func(*zeromq.Config)
}

// zeromqLogins returns the mechanisms. The keys are libzmq's own.
func zeromqLogins(t *testing.T) []zeromqLogin {
	keys := func() (public, secret string) {
		f := strings.Fields(run(t, installed(t, "python")+"/bin/python", "zeromq.py", "keys"))
		return f[0], f[1]
	}
	parse := func(s string) zmtp.Key {
		k, err := zmtp.ParseKey(s)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	password := map[bool]string{true: sink.WriteFile(t, "right\n", 0o600), false: sink.WriteFile(t, "wrong\n", 0o600)}
	mine, mySecret := keys()
	theirs, theirSecret := keys()
	strange, strangeSecret := keys()
	secret := map[bool]string{true: sink.WriteFile(t, mySecret+"\n", 0o600), false: sink.WriteFile(t, strangeSecret+"\n", 0o600)}
	return []zeromqLogin{
		{name: "NULL"},
		{
			"PLAIN", []string{"tap", "right"}, []string{"tap", "wrong"},
			func(c *zeromq.Config, right bool) { c.User, c.PasswordFile = "tap", password[right] },
			func(c *zeromq.Config) { c.User, c.PasswordFile = "tap", password[true] },
		},
		{
			"CURVE", []string{theirSecret, theirs, mine}, []string{strangeSecret, strange, mine},
			func(c *zeromq.Config, right bool) {
				c.Curve = &zeromq.Curve{SecretFile: secret[right], Server: parse(theirs)}
			},
			func(c *zeromq.Config) {
				c.Curve = &zeromq.Curve{SecretFile: secret[true], Clients: []zmtp.Key{parse(theirs)}}
			},
		},
	}
}

// deliver has a peer get so many events, and no other.
func deliver(t *testing.T, s *zeromq.Sink, z *libzmq, events int) {
	tap := sink.NewTap(t, 64<<20, s)
	time.Sleep(time.Second) // a SUB does not say when its subscription has arrived
	for n := range events {
		tap.Observe(sink.Outcome(fmt.Sprint("svc-", n%7), n))
		if n%64 == 63 {
			time.Sleep(100 * time.Microsecond) // PUB drops what the subscriber has no room for, which is not the point here
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := tap.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if f := sink.Read(t, z.events(), true); f.Came != uint64(events) || s.Dropped() > 0 {
		t.Errorf("%+v, %d dropped", f, s.Dropped())
	}
}

// boundZeroMQ has peers log in at a sink that is bound, one of whom it knows.
func boundZeroMQ(t *testing.T, pattern zeromq.Pattern, peer string, l zeromqLogin) {
	const events = 500
	cfg := zeromqConfig(pattern)
	cfg.Bind = "127.0.0.1:" + freePorts(t, 1)[0]
	l.bind(&cfg)
	s := zeromq.New(cfg, deps(t))
	tap := sink.NewTap(t, eventtap.DefaultMemory, s)
	wrong := startLibzmq(t, append([]string{peer, "tcp://" + cfg.Bind, "1"}, l.strange...)...)
	right := startLibzmq(t, append([]string{peer, "tcp://" + cfg.Bind, fmt.Sprint(events)}, l.peer...)...)
	for n := range events {
		tap.Observe(sink.Outcome("x", n))
	}
	// A SUB does not say when its subscription has arrived, and what came before is not for it.
	for end := time.Now().Add(time.Minute); pattern == zeromq.Pub && !right.ended() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		tap.Observe(sink.Outcome("x", events))
	}
	if got := right.events(); len(got) != events {
		t.Errorf("%d events came", len(got))
	} else if pattern != zeromq.Pub {
		sink.Read(t, got, true)
	}
	wrong.kill()
	if len(wrong.got) > 0 {
		t.Errorf("a stranger got %q", wrong.got)
	}
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killedZeroMQ kills the DEALER's peer and has another take its place. A ROUTER hands on what it gets before it
// acknowledges it, so together they have everything.
func killedZeroMQ(t *testing.T) {
	cfg := zeromqConfig(zeromq.Dealer)
	cfg.Connect = []string{"127.0.0.1:" + freePorts(t, 1)[0]}
	router := func() *libzmq { return startLibzmq(t, "-b", "ROUTER", "tcp://"+cfg.Connect[0], "1000000000") }
	all := []*libzmq{router()}
	last := func() *libzmq { return all[len(all)-1] }
	sink.KillUnderLoad(t, sink.Killable{
		Sink: zeromq.New(cfg, deps(t)), Repeats: true, Rounds: 2, Missed: 2000,
		Kill:   func(*testing.T) { last().kill() },
		Revive: func(*testing.T) { all = append(all, router()) },
		Events: func(*testing.T) (out [][]byte) {
			last().kill()
			for _, z := range all {
				out = append(out, z.events()...)
			}
			return out
		},
	})
}
