// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// curvePair returns the keys of two sides that know each other.
func curvePair() (server, client Curve) {
	server.Secret, client.Secret = Key(random(32)), Key(random(32))
	server.Clients, client.Server = []Key{{}, client.Secret.Public()}, server.Secret.Public()
	return server, client
}

func TestKey(t *testing.T) {
	t.Parallel()
	// The server's keys of libzmq's manual, zmq_curve(7).
	const secret, public = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
	const inHex = "8e0bdd697628b91d8f245587ee95c5b04d48963f79259877b49cd9063aead3b7"
	s, err := ParseKey(secret)
	if err != nil || s != mustKey(t, inHex) {
		t.Errorf("%x, %v", s, err)
	}
	if p := mustKey(t, public); s.Public() != p {
		t.Errorf("the public key is %x, want %x", s.Public(), p)
	}
	for name, text := range map[string]string{
		"nothing": "", "short": secret[1:], "long": secret + "0", "no secret": strings.Repeat("0", 40), "not Z85": "~" + secret[1:], "more than 32 bits": "#####" + secret[5:],
		"not hexadecimal": "x" + inHex[1:],
	} {
		if k, err := ParseKey(text); !errors.Is(err, errKey) || k != (Key{}) {
			t.Errorf("%s: %x, %v", name, k, err)
		}
	}
}

func mustKey(t *testing.T, s string) Key {
	t.Helper()
	k, err := ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// talk opens a connection with CURVE between two sides in this process.
func talk(t *testing.T, max int) (server, client io.ReadWriter) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	serverKeys, clientKeys := curvePair()
	done := make(chan error, 1)
	go func() {
		var err error
		server, _, err = Handshake(a, Config{SocketType: "PUB", Peers: []string{"SUB"}, Curve: &serverKeys, Server: true, MaxFrame: max})
		done <- err
	}()
	client, _, err = Handshake(b, Config{SocketType: "SUB", Peers: []string{"PUB"}, Curve: &clientKeys, MaxFrame: max})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// What goes in on one side comes out on the other, and nothing of it can be read on the way.
func TestSealed(t *testing.T) {
	t.Parallel()
	server, client := talk(t, 1<<16)
	long := bytes.Repeat([]byte("secret"), 1000)
	b := AppendFrame(nil, []byte("topic"), true)
	b = AppendFrame(b, nil, true)
	b = AppendFrame(b, long, false)
	b = AppendCommand(b, Ping, []byte{0, 1})
	for name, sides := range map[string][2]io.ReadWriter{"down": {server, client}, "up": {client, server}} {
		from, to := sides[0].(*sealed), sides[1]
		for range 2 {
			var wire bytes.Buffer
			raw := from.w
			from.w = io.MultiWriter(&wire, raw)
			written := make(chan error, 1)
			go func() {
				_, err := from.Write(b)
				written <- err
			}()
			got := make([]byte, len(b))
			if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: %v, %q", name, err, got)
			}
			if err := <-written; err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			from.w = raw
			if bytes.Contains(wire.Bytes(), []byte("secret")) || bytes.Contains(wire.Bytes(), []byte("topic")) || bytes.Contains(wire.Bytes(), []byte(Ping)) {
				t.Errorf("%s: it can be read", name)
			}
		}
	}
	if _, err := client.Write(b[:3]); !errors.Is(err, errFrame) {
		t.Errorf("half a frame is written: %v", err)
	}
}

// What was changed on the way, or comes a second time, ends the connection.
func TestForged(t *testing.T) {
	t.Parallel()
	seal := func(t *testing.T, change func(m []byte) []byte) error {
		server, client := talk(t, 100)
		var wire bytes.Buffer
		client.(*sealed).w = &wire
		for _, body := range []string{"one", "two"} {
			if _, err := client.Write(AppendFrame(nil, []byte(body), false)); err != nil {
				t.Fatal(err)
			}
		}
		s := server.(*sealed)
		s.r.Reset(bytes.NewReader(change(wire.Bytes())))
		_, err := io.ReadAll(s)
		return err
	}
	const size = 2 + sealedHead + 3
	for name, c := range map[string]struct {
		change func(m []byte) []byte
		want   error
	}{
		"as it is":           {func(m []byte) []byte { return m }, nil},
		"as a command":       {func(m []byte) []byte { m[0] = flagCommand; return m }, nil}, // as the RFC has it
		"the last byte":      {func(m []byte) []byte { m[len(m)-1]++; return m }, errCurve},
		"the number":         {func(m []byte) []byte { m[2+8+7]++; return m }, errCurve},
		"again":              {func(m []byte) []byte { return append(m[:size:size], m[:size]...) }, errCurve},
		"in another order":   {func(m []byte) []byte { return append(m[size:len(m):len(m)], m[:size]...) }, errCurve},
		"one left out":       {func(m []byte) []byte { return m[size:] }, nil}, // nobody can know, but for TCP
		"cut":                {func(m []byte) []byte { return m[:len(m)-1] }, io.ErrUnexpectedEOF},
		"in the clear":       {func([]byte) []byte { return AppendFrame(nil, []byte("one"), false) }, errCurve},
		"another command":    {func([]byte) []byte { return AppendCommand(nil, Ping, []byte{0, 1}) }, errCurve},
		"with more":          {func(m []byte) []byte { m[0] = flagMore; return m }, errCurve},
		"too short":          {func([]byte) []byte { return AppendCommand(nil, message, make([]byte, 8)) }, errCurve},
		"longer than agreed": {func([]byte) []byte { return AppendFrame(nil, make([]byte, 101+sealedHead), false) }, errFrame},
	} {
		if err := seal(t, c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A client must know the secret of the key that it shows: another one's word does not do.
func TestVouch(t *testing.T) {
	t.Parallel()
	server, client := curvePair()
	key, own := client.Secret.Public(), server.Secret.Public()
	public, _ := keyPair()
	short, secret := keyPair()
	vouch := func(public, own, with []byte) []byte {
		n := random(longSize)
		said := append(slices.Clone(public), own...)
		return slices.Concat(key[:], box.Seal(n, said, long("VOUCH---", n), short, (*[32]byte)(with)), []byte("metadata"))
	}
	h := handshake{rw: &peer{}, c: Config{Curve: &server}}
	for name, c := range map[string]struct {
		initiate []byte
		ok       bool
	}{
		"right":                 {vouch(public[:], own[:], client.Secret[:]), true},
		"another connection":    {vouch(short[:], own[:], client.Secret[:]), false},
		"another server":        {vouch(public[:], key[:], client.Secret[:]), false},
		"another secret":        {vouch(public[:], own[:], server.Secret[:]), false},
		"cut":                   {vouch(public[:], own[:], client.Secret[:])[:32+vouchSize-1], false},
		"nothing of the client": {nil, false},
	} {
		metadata, err := h.admit(c.initiate, public, secret)
		if c.ok && (err != nil || string(metadata) != "metadata") || !c.ok && !errors.Is(err, errCurve) {
			t.Errorf("%s: %q, %v", name, metadata, err)
		}
	}
}

// FuzzCurve has a peer say anything with CURVE: in the clear, and in boxes that can be opened, of an INITIATE and of MESSAGEs.
func FuzzCurve(f *testing.F) {
	f.Add(AppendCommand(nil, Hello, append([]byte{1, 0}, make([]byte, helloSize-2)...)))
	f.Add(AppendCommand(nil, Welcome, make([]byte, welcomeSize)))
	f.Add(AppendProperty(make([]byte, 32+vouchSize), "Socket-Type", "SUB"))
	f.Add([]byte("\x01part"))
	f.Fuzz(func(t *testing.T, b []byte) {
		server, client := curvePair()
		for _, c := range []Config{{Curve: &server, Server: true}, {Curve: &client}} {
			in := append(AppendGreeting(nil, "CURVE", !c.Server), b...)
			if _, _, err := Handshake(&peer{Reader: bytes.NewReader(in)}, c); err == nil {
				t.Fatal("nobody is let in who does not know a key")
			}
		}
		public, secret := keyPair()
		h := handshake{rw: &peer{}, c: Config{Curve: &server}}
		if _, err := h.admit(b, public, secret); err == nil {
			t.Fatal("a vouch cannot be guessed")
		}
		from := newSealed(&peer{}, len(b), public, secret, false)
		text := from.seal(append([]byte{byte(len(message))}, message...), from.prefix, b)
		to := newSealed(&peer{Reader: bytes.NewReader(append(appendHead(nil, 0, len(text)), text...))}, len(b), public, secret, true)
		frame, err := ReadFrame(to, nil, len(b))
		if ok := len(b) > 0 && b[0] <= sealedCommand; ok != (err == nil) || ok && !bytes.Equal(frame.Body, b[1:]) {
			t.Fatalf("%q: %+v, %v", b, frame, err)
		}
	})
}

// FuzzParseKey writes what was read again.
func FuzzParseKey(f *testing.F) {
	f.Add(strings.Repeat("0", 40))
	f.Add(strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil || len(s) != 40 {
			return
		}
		for i := 0; i < 32; i += 4 {
			var text [5]byte
			for v, at := binary.BigEndian.Uint32(k[i:]), 4; at >= 0; v, at = v/85, at-1 {
				text[at] = z85[v%85]
			}
			if string(text[:]) != s[i/4*5:][:5] {
				t.Fatalf("%q is %x", s, k)
			}
		}
	})
}
