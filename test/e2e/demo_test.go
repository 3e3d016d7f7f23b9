// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// aDemo is a running demo.
type aDemo struct {
	t       *testing.T
	p       *sidecar.Proxy
	env     []string
	context string
	runtime string // the directory that private directories are made in
	file    struct {
		PID     int `json:"pid"`
		Proxies []struct{ Name, Service, Admin string }
		Bus     struct{ URL, Token, Stream, Subject string }
		Control struct{ Admin string }
		Faults  string `json:"faults"`
	}
	url string
}

// startDemo starts a demo and waits until it says that it is ready.
func startDemo(t *testing.T, binary string) *aDemo {
	t.Helper()
	dir := shortDir(t)
	d := &aDemo{t: t, context: filepath.Join(dir, "state", "context.json"), runtime: filepath.Join(dir, "run")}
	if err := os.Mkdir(d.runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	d.env = []string{"MESHTAP_CONTEXT=" + d.context, "XDG_RUNTIME_DIR=" + d.runtime, "NO_COLOR=1"}
	d.p = runAs(t, d.env, binary, "demo", "--rate", "50")
	t.Logf("figure: meshtapd demo is ready after %s s", d.p.Printed(`ready in ([0-9.]+) s`)[1])
	d.url = d.p.Printed(`web +(http://\S+)`)[1]
	d.p.Printed(`Ctrl-C stops`)
	text, err := os.ReadFile(d.context)
	if err == nil {
		err = json.Unmarshal(text, &d.file)
	}
	if err != nil || d.file.PID != d.p.Pid() {
		t.Fatalf("the context file: %v\n%s", err, text)
	}
	return d
}

// cli runs meshtap to its end.
func (d *aDemo) cli(args ...string) string {
	d.t.Helper()
	p := d.start(args...)
	if code := p.Wait(); code != 0 {
		d.t.Fatalf("meshtap %q ends with %d: %s%s", args, code, p.Stdout(), p.Log())
	}
	return p.Stdout()
}

func (d *aDemo) start(args ...string) *sidecar.Proxy {
	d.t.Helper()
	return runAs(d.t, d.env, sidecar.Meshtap(d.t), args...)
}

// get calls the first service.
func (d *aDemo) get() (int, string) {
	d.t.Helper()
	resp, err := http.Get(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// children returns the processes below the demo. The kernel tells only the threads of a process, so all are looked at.
func (d *aDemo) children() (pids []int) {
	d.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		after := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(after) > 1 && after[1] == strconv.Itoa(d.p.Pid()) { // state, ppid
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				d.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone reports whether none of the processes is left.
func gone(pids []int) bool {
	return !slices.ContainsFunc(pids, func(pid int) bool {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		// One that nobody has reaped yet has ended, too.
		return err == nil && !strings.Contains(string(text), ") Z ")
	})
}

// testDemo is the demo as its page tells it: it is ready, tap shows its requests, breaking a service opens a circuit whose fallback
// answers, mending it closes the circuit, all of it is on the bus, and Ctrl-C leaves nothing behind.
func testDemo(t *testing.T, binary string) {
	d := startDemo(t, binary)
	if status, body := d.get(); status != 200 || !strings.Contains(body, `"payments":{"service":"payments"`) {
		t.Errorf("a request through all services: %d %q", status, body)
	}
	var event struct {
		Type string         `json:"type"`
		Data map[string]any `json:"data"`
	}
	line, _, _ := strings.Cut(d.cli("tap", "-n", "1", "--from", "web", "--to", "orders", "--type", "request", "-o", "jsonl"), "\n")
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.Type != "io.meshtap.outcome.v1" || event.Data["http.response.status_code"] != 200.0 {
		t.Errorf("tap shows %q, %v", line, err)
	}
	if out := d.cli("status"); strings.Count(out, "✓") != 12 || !strings.Contains(out, "web-1") {
		t.Errorf("status:\n%s", out)
	}
	if out := d.cli("stat"); !strings.Contains(out, "orders") || !strings.Contains(out, "closed") {
		t.Errorf("stat:\n%s", out)
	}
	d.breakAndMend()
	d.faultSwitches()
	d.stop(os.Interrupt)
}

// breakAndMend switches a fault on and off and looks at the circuit from all sides.
func (d *aDemo) breakAndMend() {
	t := d.t
	t.Helper()
	transitions := d.subscribe("meshtap.events.circuit.>")
	d.cli("fault", "add", "orders", "--abort", "100%")
	transitions("closed", "open")
	// The circuit may be half-open for the moment of this request; then orders' own failure shows.
	until(t, "the fallback answers", func() bool {
		status, body := d.get()
		return status == 200 && strings.Contains(body, `"orders":{"service":"fallback"`)
	})
	if out := d.cli("fault", "ls"); !strings.Contains(out, "orders   100% with 503") {
		t.Errorf("fault ls:\n%s", out)
	}
	transitions("open", "half_open")
	transitions("half_open", "open") // a probe has failed
	d.cli("fault", "rm", "orders")
	transitions("half_open", "closed")
	until(t, "orders answers again", func() bool {
		status, body := d.get()
		return status == 200 && strings.Contains(body, `"service":"payments"`)
	})
	if out := d.cli("fault", "ls", "-o", "json"); strings.Contains(out, "abort_percent") {
		t.Errorf("fault ls:\n%s", out)
	}
	if out := d.cli("events", "ls", "--type", "circuit", "--since", "10m"); !strings.Contains(out, "closed → open") || !strings.Contains(out, "half-open → closed") {
		t.Errorf("events ls:\n%s", out)
	}
}

// subscribe reads from the bus and returns a function that waits for a transition of the circuit.
func (d *aDemo) subscribe(subject string) func(from, to string) {
	d.t.Helper()
	if c, err := nats.Connect(d.file.Bus.URL); err == nil {
		c.Close()
		d.t.Error("the bus lets anybody in")
	}
	c, err := nats.Connect(d.file.Bus.URL, nats.Token(d.file.Bus.Token))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	sub, err := c.SubscribeSync(subject)
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return func(from, to string) {
		d.t.Helper()
		for {
			m, err := sub.NextMsg(sidecar.Hang)
			if err != nil {
				d.t.Fatalf("no transition from %s to %s comes over the bus: %v", from, to, err)
			}
			if strings.Contains(string(m.Data), `"meshtap.from":"`+from+`","meshtap.to":"`+to+`"`) {
				return
			}
		}
	}
}

// faultSwitches tries what the switches must refuse.
func (d *aDemo) faultSwitches() {
	d.t.Helper()
	p := d.start("fault", "add", "nowhere", "--abort", "1%")
	if code := p.Wait(); code == 0 || !strings.Contains(p.Log(), "there are web, orders, payments") {
		d.t.Errorf("a fault of a service that is not there: %d %q", code, p.Log())
	}
}

// stop ends the demo with a signal and looks for what is left.
func (d *aDemo) stop(s os.Signal) {
	d.t.Helper()
	pids := d.children()
	if len(pids) != 6 {
		d.t.Errorf("the demo has %d processes", len(pids))
	}
	d.p.Signal(s)
	if code := d.p.Wait(); code != 0 {
		d.t.Errorf("the demo ends with %d:\n%s", code, d.p.Log())
	}
	if !gone(pids) {
		d.t.Errorf("of %v some are left", pids)
	}
	for _, path := range []string{d.context, d.file.Faults, filepath.Dir(d.file.Faults)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			d.t.Errorf("%s is left: %v", path, err)
		}
	}
	if left, err := os.ReadDir(d.runtime); err != nil || len(left) > 0 {
		d.t.Errorf("%s holds %v, %v", d.runtime, left, err)
	}
}

// testDemoIsPrivate: only its owner may look into its directory, its sockets and its context.
func testDemoIsPrivate(t *testing.T, binary string) {
	d := startDemo(t, binary)
	for path, want := range map[string]os.FileMode{
		d.context: 0o600, filepath.Dir(d.file.Faults): 0o700 | os.ModeDir, d.file.Faults: 0o600 | os.ModeSocket,
		d.file.Control.Admin: 0o600 | os.ModeSocket, d.file.Proxies[0].Admin: 0o600 | os.ModeSocket,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	second := runAs(t, d.env, binary, "demo")
	if code := second.Wait(); code != 1 || !strings.Contains(second.Log(), "runs already, as process "+strconv.Itoa(d.p.Pid())) {
		t.Errorf("a second demo: %d %q", code, second.Log())
	}
	for _, addr := range listening(t, append(d.children(), d.p.Pid())...) {
		if !strings.HasPrefix(addr, "0100007F:") { // 127.0.0.1 as /proc/net/tcp has it
			t.Errorf("something of the demo listens on %s", addr)
		}
	}
	d.stop(syscall.SIGTERM)
}

// testDemoIsKilled: where a demo is killed, the kernel ends its processes, and the next demo removes what it has left.
func testDemoIsKilled(t *testing.T, binary string) {
	d := startDemo(t, binary)
	pids := d.children()
	d.p.Kill()
	until(t, "the processes have ended", func() bool { return gone(pids) })
	stale := d.start("status")
	if code := stale.Wait(); code != 4 || !strings.Contains(stale.Log(), "has ended") {
		t.Errorf("status with the context of a killed demo: %d %q", code, stale.Log())
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(filepath.Dir(d.file.Faults), "lock"), old, old); err != nil {
		t.Fatal(err)
	}
	next := &aDemo{t: t, env: d.env, context: d.context, runtime: d.runtime}
	next.p = runAs(t, d.env, binary, "demo")
	next.p.Printed("ready in")
	if _, err := os.Lstat(filepath.Dir(d.file.Faults)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the killed demo left is there: %v", err)
	}
	next.p.Signal(syscall.SIGHUP) // the end of its terminal
	if code := next.p.Wait(); code != 0 {
		t.Errorf("the next demo ends with %d", code)
	}
}

// testDemoSaysWhoDied: a process of the demo that dies ends the demo, which says which one and what it logged last.
func testDemoSaysWhoDied(t *testing.T, binary string) {
	d := startDemo(t, binary)
	for _, pid := range d.children() {
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err == nil && strings.Contains(string(line), "orders.yaml") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code := d.p.Wait(); code != 1 || !strings.Contains(d.p.Log(), "sidecar orders-1 has died: signal: killed") {
		t.Errorf("the demo ends with %d: %q", code, d.p.Log())
	}
	if _, err := os.Lstat(d.context); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the context is left: %v", err)
	}
}

// testDemoWithoutMeshtap: without the sidecar's binary there is no demo, and it says what is missing.
func testDemoWithoutMeshtap(t *testing.T, binary string) {
	alone := filepath.Join(shortDir(t), "meshtapd")
	if err := os.Link(binary, alone); err != nil {
		t.Fatal(err)
	}
	p := runAs(t, []string{"PATH=/nowhere"}, alone, "demo")
	if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), "the binary meshtap, which the sidecars are, is neither at") {
		t.Errorf("it ends with %d: %q", code, p.Log())
	}
	toy := runAs(t, nil, alone, "toy")
	if code := toy.Wait(); code != 2 || !strings.Contains(toy.Log(), "meshtapd demo starts it") {
		t.Errorf("a toy without a demo ends with %d: %q", code, toy.Log())
	}
}
