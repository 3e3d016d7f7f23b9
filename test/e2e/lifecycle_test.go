// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// asNobody starts a process as a user without rights, where the tests run as root.
func asNobody(c *exec.Cmd) error {
	if os.Geteuid() == 0 {
		const nobody = 65534
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	}
	return c.Start()
}

// rig starts one proxy on an example.
func rig(t *testing.T, file string, args ...string) *examples.Rig {
	t.Helper()
	r := examples.NewRig(t)
	r.Start(r.Read(file), "", args...)
	return r
}

// held makes a request that the origin holds, waits until it is there, and returns what gives the answer.
func held(t *testing.T, r *examples.Rig, listener string) (answer func() examples.Answer) {
	t.Helper()
	before := r.A.Requests.Load()
	done := make(chan examples.Answer, 1)
	go func() {
		a, err := r.Try(examples.Request{Listener: listener, Header: []string{"x-do: hold"}})
		if err != nil {
			a.Body = err.Error()
		}
		done <- a
	}()
	until(t, "the request is with the origin", func() bool { return r.A.Requests.Load() > before })
	return func() examples.Answer { return <-done }
}

// Both signals that ask for an end drain: the request that is under way is answered, and the exit code is 0.
func TestSignalsThatEnd(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			r := rig(t, "static.yaml", "--drain-quiet-msec", "100")
			answer := held(t, r, "")
			r.Proxy.Signal(s)
			r.Proxy.Logged(`"msg":"draining","reason":"` + s.String() + `","connections":1`)
			if status, body, err := r.Admin.Do("GET", "/ready"); err != nil || status != 503 || body != "DRAINING\n" {
				t.Errorf("/ready during the drain: %d %q, %v", status, body, err)
			}
			r.A.Release()
			if a := answer(); a.Status != 200 {
				t.Errorf("the request that was under way: %d %s", a.Status, a.Body)
			}
			if code := r.Proxy.Wait(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if n := drained(r.Proxy); n != "0" {
				t.Errorf("%s connections were left", n)
			}
		})
	}
}

// A signal before there is anything to serve ends the process, too.
func TestSignalDuringStart(t *testing.T) {
	t.Parallel()
	r := examples.NewRig(t)
	text := r.Read("ads.yaml")
	r.ControlPlane.Kill()
	p := sidecar.Run(t, sidecar.Options{Bootstrap: text, Args: []string{"--drain-quiet-msec", "100"}})
	p.Admin()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// SIGHUP says that it is ignored, and SIGUSR1 opens the access logs anew; both go on serving.
func TestSignalsThatDoNotEnd(t *testing.T) {
	t.Parallel()
	r := rig(t, "accesslog.yaml")
	ask := func(path string) {
		t.Helper()
		if a := r.Do(examples.Request{Path: path}); a.Status != 200 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	log, moved := filepath.Join(r.Files, "meshtap-access.log"), filepath.Join(r.Files, "moved.log")
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
	ask("/one")
	r.Admin.Until("/ready", func(int, string) bool { return strings.Contains(read(log), "/one") })
	r.Proxy.Signal(syscall.SIGHUP)
	r.Proxy.Logged("SIGHUP is ignored")
	if err := os.Rename(log, moved); err != nil {
		t.Fatal(err)
	}
	r.Proxy.Signal(syscall.SIGUSR1)
	r.Admin.Until("/ready", func(int, string) bool { _, err := os.Stat(log); return err == nil })
	ask("/two")
	r.Admin.Until("/ready", func(int, string) bool { return strings.Contains(read(log), "/two") })
	if text := read(moved); strings.Contains(text, "/two") {
		t.Errorf("the file that was moved away is written to: %s", text)
	}
}

// /quitquitquit ends at once, but only for those who may ask for it.
func TestQuit(t *testing.T) {
	t.Parallel()
	r := rig(t, "static.yaml")
	if status, _, err := r.Admin.Do("GET", "/quitquitquit"); err != nil || status != http.StatusMethodNotAllowed {
		t.Errorf("GET /quitquitquit: %d, %v", status, err)
	}
	req, err := http.NewRequest("POST", "http://"+r.Admin.Addr()+"/quitquitquit", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "http://evil.example")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("POST /quitquitquit from a page of somebody else's: %+v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	held(t, r, "") // it does not wait for this one
	r.Admin.Post("/quitquitquit")
	if code := r.Proxy.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	r.Proxy.Logged(`"msg":"ending","reason":"quitquitquit"`)
}

// directions are an inbound and an outbound listener.
func directions(text string) string {
	l := text[strings.Index(text, "  - name: http"):strings.Index(text, "  clusters:")]
	one := func(name, direction string) string {
		return strings.Replace(l, "name: http", "name: "+name+"\n    traffic_direction: "+direction, 1)
	}
	return strings.Replace(text, l, one("in", "INBOUND")+one("out", "OUTBOUND"), 1)
}

// /drain_listeners closes listeners, at once or when their clients were told; the process goes on, and so does what is
// under way.
func TestDrainListeners(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, query string
		told        bool     // whether an open connection is told
		closed      []string // the listeners that take no connections at the end
	}{
		{name: "at once", query: "", closed: []string{"in", "out"}},
		{name: "inbound only", query: "?inboundonly", closed: []string{"in"}},
		{name: "graceful", query: "?graceful", told: true, closed: []string{"in", "out"}},
		{name: "graceful, inbound only", query: "?graceful&inboundonly", told: true, closed: []string{"in"}},
		{name: "without the exit", query: "?skip_exit", told: true},
		{name: "graceful, without the exit", query: "?graceful&skip_exit", told: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := examples.NewRig(t)
			// Each connection that is tried makes it less quiet, so it is the drain time that ends the drain.
			r.Start(directions(r.Read("static.yaml")), "", "--drain-quiet-msec", "300", "--drain-time-s", "1")
			answer := held(t, r, "in")
			open := r.Dial("in")
			br := bufio.NewReader(open)
			ask := func() *http.Response {
				t.Helper()
				io.WriteString(open, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				return resp
			}
			if ask().Close {
				t.Error("a connection is closed without a reason")
			}
			r.Admin.Post("/drain_listeners" + tc.query)
			if got := ask(); got.StatusCode != 200 || tc.told && !got.Close {
				t.Errorf("on a connection that was open: %d, close %v", got.StatusCode, got.Close)
			}
			open.Close()
			r.A.Release()
			if a := answer(); a.Status != 200 {
				t.Errorf("the request that was under way: %d %s", a.Status, a.Body)
			}
			for _, l := range []string{"in", "out"} {
				wantAccepts(t, r, l, !slices.Contains(tc.closed, l))
			}
			r.Admin.Post("/quitquitquit")
			if code := r.Proxy.Wait(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		})
	}
}

// wantAccepts waits until a listener takes no connections, or wants that it serves.
func wantAccepts(t *testing.T, r *examples.Rig, listener string, accepts bool) {
	t.Helper()
	if accepts {
		if a := r.Do(examples.Request{Listener: listener}); a.Status != 200 {
			t.Errorf("%s: %d %s", listener, a.Status, a.Body)
		}
		return
	}
	addr := r.Addr(listener)
	r.Admin.Until("/ready", func(int, string) bool {
		var d net.Dialer
		c, err := d.DialContext(context.Background(), "tcp", addr)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// /healthcheck/fail makes the proxy unready until /healthcheck/ok, without a change to what is served.
func TestHealthCheckFails(t *testing.T) {
	t.Parallel()
	r := rig(t, "static.yaml")
	want := func(status int) {
		t.Helper()
		if got, body, err := r.Admin.Do("GET", "/ready"); err != nil || got != status {
			t.Errorf("/ready: %d %q, %v; want %d", got, body, err, status)
		}
		if a := r.Do(examples.Request{}); a.Status != 200 {
			t.Errorf("a request: %d %s", a.Status, a.Body)
		}
	}
	want(200)
	r.Admin.Post("/healthcheck/fail")
	want(503)
	r.Admin.Post("/healthcheck/ok")
	want(200)
}
