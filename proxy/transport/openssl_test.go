// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// openssl returns the path of another implementation.
func openssl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here")
	}
	return path
}

// write puts a text into a file of the test.
func write(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// client is a running openssl s_client.
type client struct {
	t    *testing.T
	in   io.WriteCloser
	out  *bufio.Reader
	said *notes
	wait func() error
}

// notes is what openssl says of itself.
type notes struct {
	all     strings.Builder
	updates chan struct{} // one for each KEYUPDATE
}

func (n *notes) Write(p []byte) (int, error) {
	n.all.Write(p)
	if strings.Contains(string(p), "KEYUPDATE") {
		n.updates <- struct{}{}
	}
	return len(p), nil
}

func startClient(t *testing.T, r *rig, far net.Conn, args ...string) *client {
	t.Helper()
	// It cannot take a connection over, so what it connects to passes the bytes on.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { io.Copy(far, c); far.(*net.TCPConn).CloseWrite() }()
		io.Copy(c, far)
		c.Close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	args = append([]string{"s_client", "-connect", l.Addr().String(), "-CAfile", write(t, "ca.pem", r.ca.PEM),
		"-servername", "server.test", "-verify_return_error", "-brief"}, args...)
	cmd := exec.CommandContext(ctx, openssl(t), args...)
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := &notes{updates: make(chan struct{}, 100)}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(stderr.all.String())
		}
	})
	return &client{t, in, bufio.NewReader(out), stderr, cmd.Wait}
}

func (c *client) say(line string) {
	c.t.Helper()
	io.WriteString(c.in, line+"\n")
	got, err := c.out.ReadString('\n')
	if got != line+"\n" {
		c.t.Fatalf("said %q, got %q, %v", line, got, err)
	}
}

func TestOpenSSLClient(t *testing.T) {
	t.Parallel()
	openssl(t)
	for _, tc := range []struct {
		args                  []string
		version, cipher, alpn string // cipher is "" where there is a choice
	}{
		{[]string{"-tls1_3"}, "TLSv1.3", "", ""},
		{[]string{"-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-groups", "P-384"}, "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", ""},
		{[]string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384", "-alpn", "http/1.1"}, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "http/1.1"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			far, h := r.accept(r.server(func(m *mesh.TLSContext) { m.ALPN = []string{"http/1.1"} }), echo)
			c := startClient(t, r, far, tc.args...)
			c.say("hello")
			c.say(strings.Repeat("x", 4000))
			c.in.Close()
			r.wait("the end", h.done)
			if i := h.info; i.Version != tc.version || tc.cipher != "" && i.Cipher != tc.cipher || i.ALPN != tc.alpn {
				t.Errorf("settled %+v", i)
			}
			c.wait()
		})
	}
}

// TestKeyUpdate: openssl changes its keys, and asks for ours to change, in the middle of a connection (RFC 8446 4.6.3).
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	openssl(t)
	r := newRig(t)
	far, h := r.accept(r.server(nil), echo)
	c := startClient(t, r, far, "-tls1_3", "-no_ign_eof")
	c.say("before")
	for i := range 5 {
		for _, command := range []string{"k", "K"} {
			io.WriteString(c.in, command+"\n")
			r.wait("the news of it", c.said.updates)
			c.say(fmt.Sprint("after ", command, i))
		}
	}
	c.in.Close()
	r.wait("the end", h.done)
	c.wait()
}

// TestRenegotiation is refused: a client that begins a second handshake is done.
func TestRenegotiation(t *testing.T) {
	t.Parallel()
	openssl(t)
	r := newRig(t)
	far, h := r.accept(r.server(nil), echo)
	c := startClient(t, r, far, "-tls1_2", "-no_ign_eof", "-legacy_renegotiation")
	c.say("before")
	io.WriteString(c.in, "R\n")
	if rest, err := io.ReadAll(c.out); len(rest) > 0 {
		t.Errorf("after it, %q came back, %v", rest, err)
	}
	r.wait("the end", h.done)
	c.wait()
}

// TestOpenSSLServer: our side speaks to openssl, which echoes lines backwards.
func TestOpenSSLServer(t *testing.T) {
	t.Parallel()
	path := openssl(t)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.ca.Issue(t, "server.test")
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			l.Close()
			ctx, cancel := context.WithTimeout(context.Background(), hang)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, "s_server", "-accept", addr, "-cert", write(t, "s.pem", p.CertPEM),
				"-key", write(t, "s.key", p.KeyPEM), "-rev", "-quiet", version)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cmd.Process.Kill(); cmd.Wait() }()
			var peer *socket.Peer
			for peer == nil { // until it listens
				if peer, err = r.dial(r.client(nil), addr); err != nil && ctx.Err() != nil {
					t.Fatal(err)
				}
			}
			defer peer.Close()
			r.onWorker(func(w *socket.Worker) {
				b, err := peer.Call(w, []byte("hello\n"))
				if err != nil {
					t.Error(err)
					return
				}
				if got := string(b.Bytes()); got != "olleh\n" {
					t.Errorf("got %q", got)
				}
				r.engine.Bufs.Put(b)
			})
		})
	}
}
