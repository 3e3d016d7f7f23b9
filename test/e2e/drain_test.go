// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// fleet is several proxies of one configuration in front of the same origin, and the list of those that clients know.
type fleet struct {
	t     *testing.T
	r     *examples.Rig // the origin's
	text  string
	known atomic.Pointer[[]string]
	turn  atomic.Int64
}

func newFleet(t *testing.T) *fleet {
	r := examples.NewRig(t)
	return &fleet{t: t, r: r, text: r.Read("static.yaml")}
}

// start starts one more proxy and returns it with its address.
func (f *fleet) start(args ...string) (*sidecar.Proxy, string) {
	p := sidecar.Run(f.t, sidecar.Options{Bootstrap: f.text, Args: args})
	p.Ready()
	return p, p.Admin().Listeners()["http"]
}

func (f *fleet) know(addrs ...string) { f.known.Store(&addrs) }

// addr returns an address that is known, in turn.
func (f *fleet) addr() string {
	known := *f.known.Load()
	return known[int(f.turn.Add(1))%len(known)]
}

// Proxies leave one after another while requests are made: their clients are told, go elsewhere, and lose nothing (F20,
// F22).
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	rounds := 3
	if soak() {
		rounds = 50
	}
	f := newFleet(t)
	args := []string{"--drain-quiet-msec", "300"}
	old, oldAddr := f.start(args...)
	other, otherAddr := f.start(args...)
	f.know(oldAddr, otherAddr)
	l := load.Start(t, load.Options{Workers: 16, Rate: 1000, Addr: f.addr})
	for range rounds {
		l.After(100)
		old.Signal(syscall.SIGTERM)
		old.Logged(`"msg":"draining"`)
		// The clients do not hear of it at once, and connect to it again until they do.
		l.After(200)
		next, nextAddr := f.start(args...)
		f.know(otherAddr, nextAddr)
		if code := old.Wait(); code != 0 {
			t.Errorf("a proxy that has drained ends with %d, want 0", code)
		}
		if n := drained(old); n != "0" {
			t.Errorf("%s connections were left at the end of a drain", n)
		}
		old, oldAddr, other, otherAddr = other, otherAddr, next, nextAddr
	}
	_ = oldAddr
	res := l.Stop()
	t.Logf("figure: %d proxies drained one after another: %v", rounds, res)
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
	if n := f.r.A.Requests.Load(); n != res.Requests {
		t.Errorf("%d requests were made and %d came to the origin: one was on its way when its connection ended", res.Requests, n)
	}
}

// drained returns how many connections were left when a proxy had drained.
func drained(p *sidecar.Proxy) string { return p.Logged(`"msg":"drained","connections_left":(\d+)`)[1] }

// hold makes a request that is not answered, and waits until it has come to the origin.
func hold(t *testing.T, r *examples.Rig, addr string) (answer func() error) {
	t.Helper()
	before := r.A.Requests.Load()
	done := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/", nil)
		if err == nil {
			req.Header.Set("x-do", "hang")
			var resp *http.Response
			if resp, err = (&http.Transport{}).RoundTrip(req); err == nil {
				resp.Body.Close()
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		done <- err
	}()
	until(t, "the request is with the origin", func() bool { return r.A.Requests.Load() > before })
	return func() error { return <-done }
}

// A drain waits for the requests that are under way; a second signal does not.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, second := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		f := newFleet(t)
		f.text = neverTimesOut(f.text)
		p, addr := f.start("--drain-time-s", "600", "--drain-quiet-msec", "100")
		answer := hold(t, f.r, addr)
		p.Signal(syscall.SIGTERM)
		p.Logged(`"msg":"draining"`)
		// It goes on serving meanwhile, and says that the connection ends: at once, or a moment after the news was logged.
		until(t, "an answer says that the connection ends", func() bool {
			resp, err := http.Get("http://" + addr + "/")
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("a request during the drain: %v, %v", resp, err)
			}
			resp.Body.Close()
			return resp.Close
		})
		select {
		case <-p.Exited():
			t.Error("it has ended with a request under way")
		default:
		}
		p.Signal(second)
		if code := p.Wait(); code != 0 {
			t.Errorf("exit code %d after the second signal, want 0", code)
		}
		p.Logged("a second signal: ending at once")
		if err := answer(); err == nil {
			t.Error("a request that was cut off was answered")
		}
	}
}

// The drain time is the longest that a drain takes, whatever clients do.
func TestDrainTimeIsTheLimit(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.text = neverTimesOut(f.text)
	p, addr := f.start("--drain-time-s", "1", "--drain-quiet-msec", "100")
	answer := hold(t, f.r, addr)
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if n := drained(p); n != "1" {
		t.Errorf("%s connections are said to be left, want 1", n)
	}
	if err := answer(); err == nil {
		t.Error("a request that was cut off was answered")
	}
}

// An idle connection is told by its end, a busy one by its answer.
func TestIdleConnectionsEndWithTheDrain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	p, _ := f.start("--drain-quiet-msec", "100")
	f.r.Proxy, f.r.Admin = p, p.Admin()
	f.r.Relisten()
	c := f.r.Dial("")
	br := bufio.NewReader(c)
	ask := func() *http.Response {
		io.WriteString(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
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
	idle := f.r.Dial("")
	p.Signal(syscall.SIGTERM)
	p.Logged(`"msg":"draining"`)
	if !ask().Close {
		t.Error("the answer does not say that the connection ends")
	}
	for name, c := range map[string]io.Reader{"told": br, "idle": idle} {
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("the connection that is %s does not end: %q, %v", name, rest, err)
		}
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
