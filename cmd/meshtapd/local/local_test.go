// SPDX-License-Identifier: Apache-2.0

package local_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/cmd/meshtapd/local"
)

// dir makes a directory whose path leaves room for sockets.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "local-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := local.Listen(t.Context(), address, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestListenUnix(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "unix:"} {
		path := filepath.Join(dir(t), "s")
		ln := listen(t, prefix+path)
		if got := ln.Addr(); got.Network() != "unix" || got.String() != path {
			t.Errorf("it listens on %v", got)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600|os.ModeSocket {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := local.Listen(t.Context(), path, false); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("a second time: %v", err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		left, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(left) > 0 {
			t.Errorf("it leaves %v, %v", left, err)
		}
	}
}

// A socket that a killed process left is replaced; anything else is not.
func TestReplacesDeadSockets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(dir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	listen(t, path)
	file := filepath.Join(dir(t), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Listen(t.Context(), file, false); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	taken := listen(t, "127.0.0.1:0")
	for name, tc := range map[string]struct{ address, want string }{
		"nothing":            {"", `"" is no address`},
		"a name":             {"localhost:80", "is no address; write 127.0.0.1:18000 or unix:/path/to/socket"},
		"all interfaces":     {"0.0.0.0:0", "can be reached from other machines"},
		"all, IPv6":          {"[::]:0", "can be reached from other machines"},
		"a port in use":      {taken.Addr().String(), "in use by another process; end that, or take another address"},
		"a folder not there": {"/nowhere/at/all", "no such file"},
	} {
		if ln, err := local.Listen(t.Context(), tc.address, false); err == nil {
			ln.Close()
			t.Errorf("%s: it listens", name)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %q, want %q", name, err, tc.want)
		}
	}
	ln, err := local.Listen(t.Context(), "0.0.0.0:0", true)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

// serve answers every request with its path, and fails below /bad, until the test ends.
func serve(t *testing.T, ln net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- local.Serve(ctx, ln, func(ctx *fasthttp.RequestCtx) {
			if string(ctx.Path()) == "/bad" {
				local.Fail(ctx, 400, "that is bad")
				return
			}
			local.JSON(ctx, map[string]string{"path": string(ctx.Path())})
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve ends with %v", err)
		}
		if c, err := net.Dial(ln.Addr().Network(), ln.Addr().String()); err == nil {
			c.Close()
			t.Error("it listens after its end")
		}
	})
}

func TestServe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(dir(t), "s")
	serve(t, listen(t, path))
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for name, tc := range map[string]struct {
		path        string
		status      int
		typ, answer string
	}{
		"a document": {"/x", 200, "application/json", "{\n  \"path\": \"/x\"\n}\n"},
		"a failure":  {"/bad", 400, "text/plain; charset=utf-8", "that is bad\n"},
	} {
		// Over a socket, any name is right, with and without an origin: no web page gets there.
		req, err := http.NewRequest("POST", "http://anything.example"+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "http://evil.example")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || resp.Header.Get("Content-Type") != tc.typ || string(body) != tc.answer {
			t.Errorf("%s: %d %q %q, %v", name, resp.StatusCode, resp.Header.Get("Content-Type"), body, err)
		}
	}
}

// A port can be reached by the web pages that somebody on this machine looks at; they are kept out.
func TestKeepsWebPagesOut(t *testing.T) {
	t.Parallel()
	ln := listen(t, "127.0.0.1:0")
	serve(t, ln)
	for name, tc := range map[string]struct {
		method, host, origin string
		status               int
	}{
		"curl":                        {"GET", ln.Addr().String(), "", 200},
		"localhost":                   {"GET", "localhost:1", "", 200},
		"IPv6":                        {"GET", "[::1]:1", "", 200},
		"IPv6 without port":           {"GET", "[::1]", "", 200},
		"a name that was turned here": {"GET", "evil.example", "", 403},
		"an address of another":       {"GET", "10.0.0.1", "", 403},
		"a write of a program":        {"PUT", "127.0.0.1", "", 200},
		"a write of a page":           {"PUT", "127.0.0.1", "http://evil.example", 403},
		"a read of a page":            {"GET", "127.0.0.1", "http://evil.example", 200},
	} {
		req, err := http.NewRequest(tc.method, "http://"+ln.Addr().String()+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tc.host
		if tc.origin != "" {
			req.Header.Set("Origin", tc.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, tc.status)
		}
	}
}

// A server whose end comes before its beginning ends, too.
func TestServeEndsAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := local.Serve(ctx, listen(t, "127.0.0.1:0"), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Where the listener is closed under it, Serve says so.
func TestServeSaysWhyItEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("the listener is broken")
	if err := local.Serve(t.Context(), failing{listen(t, "127.0.0.1:0"), broken}, nil); !errors.Is(err, broken) {
		t.Errorf("Serve ends with %v", err)
	}
}

type failing struct {
	net.Listener
	err error
}

func (f failing) Accept() (net.Conn, error) { return nil, f.err }
