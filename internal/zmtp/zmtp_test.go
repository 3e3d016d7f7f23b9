// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("x"), 300)
	b := AppendFrame(nil, []byte("a"), true)
	b = AppendFrame(b, long, false)
	b = AppendCommand(b, Ping, []byte{0, 1})
	if !bytes.HasPrefix(b, []byte{1, 1, 'a', 2, 0, 0, 0, 0, 0, 0, 1, 44}) {
		t.Errorf("% x", b[:12])
	}
	r := bytes.NewReader(b)
	for _, want := range []Frame{{More: true, Body: []byte("a")}, {Body: long}, {Command: true, Body: []byte("\x04PING\x00\x01")}} {
		f, err := ReadFrame(r, nil, MaxFrame)
		if err != nil || f.More != want.More || f.Command != want.Command || !bytes.Equal(f.Body, want.Body) {
			t.Errorf("%+v, %v, want %+v", f, err, want)
		}
	}
	if _, err := ReadFrame(r, nil, MaxFrame); err != io.EOF {
		t.Errorf("%v", err)
	}
}

func TestFramesRefused(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"reserved flags":         "\x08\x00",
		"a command with more":    "\x05\x00",
		"too long":               "\x02\x00\x00\x00\x00\x00\x00\x10\x00",
		"longer than all memory": "\x02\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		if _, err := ReadFrame(strings.NewReader(in), nil, MaxFrame); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string]string{"half a head": "\x02\x00", "half a body": "\x00\x02a", "a flag alone": "\x00"} {
		if _, err := ReadFrame(strings.NewReader(in), nil, MaxFrame); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSubscription(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in        Frame
		topic     string
		add, know bool
	}{
		{Frame{Command: true, Body: []byte("\x09SUBSCRIBEa.b")}, "a.b", true, true},
		{Frame{Command: true, Body: []byte("\x06CANCELa.b")}, "a.b", false, true},
		{Frame{Command: true, Body: []byte("\x04PING\x00\x01")}, "", false, false},
		{Frame{Body: []byte("\x01a.b")}, "a.b", true, true},
		{Frame{Body: []byte("\x00")}, "", false, true},
		{Frame{Body: []byte("\x02a")}, "", false, false},
		{Frame{More: true, Body: []byte("\x01a")}, "", false, false},
		{Frame{}, "", false, false},
	} {
		topic, add, ok := Subscription(c.in)
		if ok != c.know || ok && (string(topic) != c.topic || add != c.add) {
			t.Errorf("%+v: %q, %v, %v", c.in, topic, add, ok)
		}
	}
}

// shake lets two sides shake hands, and returns what each makes of it.
func shake(t *testing.T, a, b Config) (aErr, bErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _, err = Handshake(c, a)
			c.Close()
		}
		done <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _, bErr = Handshake(c, b)
	c.Close()
	return <-done, bErr
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	pub, sub := Config{SocketType: "PUB", Peers: []string{"SUB"}}, Config{SocketType: "SUB", Peers: []string{"PUB"}}
	with := func(c Config, user, password string, server bool) Config {
		c.User, c.Password, c.Server = user, password, server
		return c
	}
	server, client := curvePair()
	secure := func(c Config, keys Curve, server bool) Config {
		c.Curve, c.Server = &keys, server
		return c
	}
	push := Config{SocketType: "PUSH", Peers: []string{"PULL"}}
	for _, c := range []struct {
		name       string
		a, b       Config
		aErr, bErr string
	}{
		{"NULL", pub, sub, "", ""},
		{"PLAIN", with(pub, "u", "p", true), with(sub, "u", "p", false), "", ""},
		{"a wrong password", with(pub, "u", "p", true), with(sub, "u", "q", false), "refused the peer: invalid user", "peer refuses: \"invalid user"},
		{"a wrong user", with(pub, "u", "p", true), with(sub, "v", "p", false), "refused the peer: invalid user", "peer refuses: \"invalid user"},
		{"nobody logs in", with(pub, "u", "p", true), sub, `wants the mechanism "NULL", this side PLAIN`, `wants the mechanism "PLAIN", this side NULL`},
		{"two clients", with(pub, "u", "p", false), with(sub, "u", "p", false), `"HELLO" where WELCOME`, `"HELLO" where WELCOME`},
		{"CURVE", secure(pub, server, true), secure(sub, client, false), "", ""},
		{"CURVE, the other way round", secure(pub, client, false), secure(sub, server, true), "", ""},
		{"CURVE, another server", secure(pub, server, true), secure(sub, Curve{Secret: client.Secret, Server: client.Secret.Public()}, false), "refused the peer: it was told another", "peer refuses: \"it was told another"},
		{"CURVE, another client", secure(pub, server, true), secure(sub, Curve{Secret: server.Secret, Server: client.Server}, false), "refused the peer: its CURVE key is not", "peer refuses: \"its CURVE key is not"},
		{"CURVE, nobody is let in", secure(pub, Curve{Secret: server.Secret}, true), secure(sub, client, false), "refused the peer: its CURVE key is not", "peer refuses: \"its CURVE key is not"},
		{"CURVE and PLAIN", secure(pub, server, true), with(sub, "u", "p", false), `wants the mechanism "PLAIN", this side CURVE`, `wants the mechanism "CURVE", this side PLAIN`},
		{"CURVE, two clients", secure(pub, client, false), secure(sub, client, false), `"HELLO" where WELCOME`, `"HELLO" where WELCOME`},
		{"CURVE, two servers", secure(pub, server, true), secure(sub, server, true), "exactly one side of CURVE", "exactly one side of CURVE"},
		{"CURVE, sockets that do not go together", secure(push, server, true), secure(sub, client, false), `a PUSH does not go with a "SUB"`, `a PUSH does not go with a`},
		{"two servers", with(pub, "u", "p", true), with(sub, "u", "p", true), "exactly one side", "exactly one side"},
		{"sockets that do not go together", push, Config{SocketType: "SUB", Peers: []string{"PUSH"}}, `a PUSH does not go with a "SUB"`, ""},
	} {
		aErr, bErr := shake(t, c.a, c.b)
		if !says(aErr, c.aErr) || !says(bErr, c.bErr) && c.bErr != "" {
			t.Errorf("%s: %v and %v", c.name, aErr, bErr)
		}
	}
}

func says(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

// peer is what a peer says, whatever it hears.
type peer struct {
	io.Reader
	said bytes.Buffer
}

func (p *peer) Write(b []byte) (int, error) { return p.said.Write(b) }

func TestStrangers(t *testing.T) {
	t.Parallel()
	greeting := func(mechanism string) string { return string(AppendGreeting(nil, mechanism, false)) }
	old := []byte(greeting("NULL"))
	old[10] = 1
	for name, c := range map[string]struct{ says, want string }{
		"HTTP":                     {"GET / HTTP/1.1\r\n\r\n", "does not speak ZMTP"},
		"nothing":                  {"", "unexpected EOF"},
		"half a greeting":          {greeting("NULL")[:20], "unexpected EOF"},
		"ZMTP 1":                   {string(old), "3.0 or later is needed"},
		"CURVE":                    {greeting("CURVE"), `wants the mechanism "CURVE", this side NULL`},
		"a message":                {greeting("NULL") + "\x00\x01a", "a message where READY was expected"},
		"another command":          {greeting("NULL") + string(AppendCommand(nil, Hello, nil)), `the command "HELLO" where READY`},
		"metadata that are cut":    {greeting("NULL") + string(AppendCommand(nil, Ready, []byte("\x0bSocket-Type\x00\x00\x00\x09SUB"))), "metadata that are cut"},
		"a command without a name": {greeting("NULL") + "\x04\x01\x00", "a command without a name"},
	} {
		_, _, err := Handshake(&peer{Reader: strings.NewReader(c.says)}, Config{SocketType: "PUB", Peers: []string{"SUB"}})
		if !says(err, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzPeer has a peer say anything: frames, commands and all that is in them must be read without panic and in bounds.
func FuzzPeer(f *testing.F) {
	hello := AppendCommand(nil, Hello, []byte("\x01u\x01p"))
	ready := AppendCommand(nil, Ready, AppendProperty(nil, "Socket-Type", "SUB"))
	f.Add(append(AppendGreeting(nil, "NULL", false), ready...))
	f.Add(append(append(AppendGreeting(nil, "PLAIN", false), hello...), AppendCommand(nil, Initiate, AppendProperty(nil, "Socket-Type", "SUB"))...))
	f.Add(AppendCommand(AppendPing(nil, 7), Subscribe, []byte("a")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range []Config{{}, {User: "u", Password: "p", Server: true}, {User: "u", Password: "p"}} {
			c.SocketType, c.Peers = "PUB", []string{"SUB"}
			_, _, _ = Handshake(&peer{Reader: bytes.NewReader(b)}, c)
		}
		r := bytes.NewReader(b)
		for {
			f, err := ReadFrame(r, make([]byte, 8), MaxFrame)
			if err != nil {
				return
			}
			if len(f.Body) > MaxFrame {
				t.Fatalf("%d bytes", len(f.Body))
			}
			again, err := ReadFrame(bytes.NewReader(appendAgain(f)), nil, MaxFrame)
			if err != nil || again.More != f.More || again.Command != f.Command || !bytes.Equal(again.Body, f.Body) {
				t.Fatalf("%+v is %+v when written, %v", f, again, err)
			}
			_, _, _ = Subscription(f)
			if name, data, err := ParseCommand(f.Body); err == nil && f.Command {
				if again := AppendCommand(nil, name, data); !bytes.HasSuffix(again, f.Body) {
					t.Fatalf("%q is %q when written", f.Body, again)
				}
				_, _ = ParsePing(data)
				_, _ = ParseMetadata(data)
				_, _, _ = ParseHello(data)
			}
		}
	})
}

func appendAgain(f Frame) []byte {
	if !f.Command {
		return AppendFrame(nil, f.Body, f.More)
	}
	return append(appendHead(nil, flagCommand, len(f.Body)), f.Body...)
}
