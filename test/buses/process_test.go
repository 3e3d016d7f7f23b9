// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/meshtap/meshtap/eventtap"
)

// installed is where install.sh has put what it installs.
func installed(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("MESHTAP_BUSES")
	if dir == "" {
		t.Fatal("MESHTAP_BUSES is not set; run make buses")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePorts returns ports of the loopback that are free now. They are below those that the system gives to clients, which
// could otherwise take one while its server is killed.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for tries := 0; len(ports) < n; tries++ {
		port := strconv.Itoa(12000 + rand.IntN(20000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			if tries > 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return ports
}

// server is a process that can be killed and run again.
type server struct {
	addr  string
	args  []string
	ready func(addr string) error // nil once it works
	cmd   *exec.Cmd
	out   *output
}

// output keeps the end of what a server prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 64<<10 {
		o.b.Reset()
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs the server and waits until it works. It is killed at the end of the test.
func start(t testing.TB, s *server) *server {
	t.Helper()
	s.run(t)
	t.Cleanup(s.end)
	return s
}

func (s *server) revive(t *testing.T) { s.run(t) }

func (s *server) run(t testing.TB) {
	t.Helper()
	s.out = &output{}
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a server may have helpers, which go with it
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := time.After(90 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.ready(s.addr)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s does not work: %v\n%s", s.args[0], err, s.out)
		}
	}
}

// kill ends the server and what it has started with SIGKILL.
func (s *server) kill(*testing.T) { s.end() }

func (s *server) end() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
}

// pause stops the server without ending it; resume lets it go on.
func (s *server) pause(*testing.T)  { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGSTOP) }
func (s *server) resume(*testing.T) { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT) }

func deps(t testing.TB) eventtap.SinkDeps {
	return eventtap.SinkDeps{Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)), Random: func() float64 { return 0.5 }}
}

// run runs a program and returns its standard output.
func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out, &stderr)
	}
	return string(out)
}
