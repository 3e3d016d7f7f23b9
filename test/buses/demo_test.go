// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// demoTime bounds what a demo has to say, the build of its binaries among it.
const demoTime = 4 * time.Minute

// aDemo is a running `make demo BUS=...`.
type aDemo struct {
	cmd   *exec.Cmd
	mark  string      // in the environment of all its processes
	lines chan string // of its standard output; closed at its end
	errs  output
}

func startDemo(t *testing.T, bus string) *aDemo {
	t.Helper()
	dir := os.Getenv("MESHTAP_BUSES")
	if dir == "" {
		t.Fatal("MESHTAP_BUSES is not set; run make buses")
	}
	tmp, err := os.MkdirTemp("", "demo-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	d := &aDemo{mark: "TMPDIR=" + tmp, lines: make(chan string)}
	d.cmd = exec.Command("make", "--no-print-directory", "-C", "../..", "demo", "BUS="+bus, "CACHE="+filepath.Dir(dir))
	// What this make was given is not meant for that one.
	d.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=") })
	d.cmd.Env = append(d.cmd.Env, d.mark, "XDG_RUNTIME_DIR=", "MESHTAP_CONTEXT="+filepath.Join(tmp, "context.json"), "MESHTAP_RATE=20")
	d.cmd.Stderr = &d.errs
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal does, whose signals go to the group
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.read(out)
	t.Cleanup(func() { // nothing where the test has stopped it
		for _, pid := range d.processes(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for range d.lines {
		}
		_ = d.cmd.Wait()
	})
	return d
}

func (d *aDemo) read(out io.Reader) {
	defer close(d.lines)
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		d.lines <- line
	}
}

// processes returns what runs with the demo's mark in its environment, wherever it belongs by now.
func (d *aDemo) processes(t *testing.T) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, []byte(d.mark+"\x00")) {
			continue // not this one, or it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// requests reads lines until the client has printed an event of a request that each of the three services answered, and returns
// the client, as the demo calls it.
func (d *aDemo) requests(t *testing.T) (client string) {
	t.Helper()
	seen := map[string]bool{}
	for end := time.After(demoTime); len(seen) < 3; {
		select {
		case line, ok := <-d.lines:
			if !ok {
				t.Fatalf("it has ended\n%s", &d.errs)
			}
			if _, name, ok := strings.Cut(line, "is an event, printed by "); ok {
				client = strings.TrimSpace(name)
			}
			if !strings.HasPrefix(line, "{") {
				continue
			}
			e := sink.Decode(t, []byte(strings.TrimSuffix(line, "\n")))
			if e.Kind == event.Request && len(e.Texts[event.RequestID]) > 0 && e.Numbers[event.Status] == 200 {
				seen[string(e.Source)] = true
			}
		case <-end:
			t.Fatalf("requests were seen at %v only\n%s", seen, &d.errs)
		}
	}
	return client
}

// end waits for the end of a demo, which leaves nothing behind.
func (d *aDemo) end(t *testing.T) error {
	t.Helper()
	for end := time.After(demoTime); ; {
		select {
		case _, ok := <-d.lines:
			if ok {
				continue
			}
			err := d.cmd.Wait()
			d.gone(t)
			if left, _ := filepath.Glob(strings.TrimPrefix(d.mark, "TMPDIR=") + "/*"); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
			return err
		case <-end:
			t.Fatalf("it does not end\n%s", &d.errs)
		}
	}
}

// gone waits until no process of a demo is left. Erlang's helpers, which are in a group of their own, end a moment after their
// node was killed.
func (d *aDemo) gone(t *testing.T) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for left := d.processes(t); len(left) > 0; left = d.processes(t) {
		if time.Now().After(end) {
			t.Errorf("the processes %v are left", left)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestDemo runs make demo with each bus until a client that Meshtap did not write has printed events of requests through all
// three services, and then ends it: Ctrl-C, and the death of the client, both of which leave no process and no file.
func TestDemo(t *testing.T) {
	for bus, want := range map[string]string{
		"kafka": "Kafka's console consumer", "rabbitmq": "amqp-consume of RabbitMQ's C client", "zeromq": "pyzmq", "nats": "the nats command",
	} {
		t.Run(bus, func(t *testing.T) {
			d := startDemo(t, bus)
			if client := d.requests(t); client != want {
				t.Errorf("printed by %q, want %q", client, want)
			}
			if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			_ = d.end(t) // make calls it an error to be interrupted, or not, as it likes
			if s := d.errs.String(); strings.Contains(s, "has ended") || strings.Contains(s, "has died") {
				t.Error(s)
			}
		})
	}
	t.Run("the client dies", func(t *testing.T) {
		d := startDemo(t, "zeromq")
		d.requests(t)
		for _, pid := range d.processes(t) {
			args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if err == nil && bytes.Contains(args, []byte("zeromq.py")) {
				err = syscall.Kill(pid, syscall.SIGKILL)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := d.end(t); err == nil || !strings.Contains(d.errs.String(), "make demo: pyzmq has ended") {
			t.Errorf("%v\n%s", err, &d.errs)
		}
	})
	t.Run("a client that cannot be installed", func(t *testing.T) {
		cmd := exec.Command("./install.sh", t.TempDir(), "zeromq")
		cmd.Env = append(os.Environ(), "PIP_INDEX_URL=http://127.0.0.1:1/", "PIP_RETRIES=0", "PIP_NO_CACHE_DIR=1")
		if out, err := cmd.CombinedOutput(); err == nil || !bytes.HasSuffix(out, []byte("pyzmq (PyPI) cannot be installed here\n")) {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("no such bus", func(t *testing.T) {
		d := startDemo(t, "carrier-pigeons")
		if err := d.end(t); err == nil || !strings.Contains(d.errs.String(), "BUS=carrier-pigeons: kafka, rabbitmq, zeromq and nats are allowed") {
			t.Errorf("%v\n%s", err, &d.errs)
		}
	})
}
