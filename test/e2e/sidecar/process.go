// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Hang is how long a test waits for something that must happen. It is no measure of how fast it should happen.
const Hang = 60 * time.Second

// Options say what to run.
type Options struct {
	// Bootstrap is the text of the bootstrap, which is written to a file and given with -c; "" gives none.
	Bootstrap string
	// Args are further arguments.
	Args []string
	// Envoy runs this envoy instead of meshtap where it is not "".
	Envoy string
	// Start starts the process, elsewhere or as somebody else; nil starts it here.
	Start func(*exec.Cmd) error
}

// Proxy is a running proxy.
type Proxy struct {
	tb     testing.TB
	cmd    *exec.Cmd
	envoy  bool
	stdout lines
	stderr lines
	exited chan struct{} // closed when the process has ended and all it wrote was read
}

// Run starts a proxy, which is killed at the end of the test if it still runs. It returns as soon as the process is there.
func Run(tb testing.TB, o Options) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, envoy: o.Envoy != "", exited: make(chan struct{})}
	p.cmd = p.command(o)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	start := o.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(p.cmd); err != nil {
		tb.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.stdout.read(out) })
	readers.Go(func() { p.stderr.read(errs) })
	go func() {
		readers.Wait()
		_ = p.cmd.Wait() // what came of it stands in ProcessState
		p.stdout.close()
		p.stderr.close()
		close(p.exited)
	}()
	tb.Cleanup(p.end)
	return p
}

func (p *Proxy) command(o Options) *exec.Cmd {
	args := o.Args
	if o.Bootstrap != "" {
		args = append([]string{"-c", p.file("bootstrap.yaml", o.Bootstrap)}, args...)
	}
	var cmd *exec.Cmd
	if o.Envoy != "" {
		cmd = exec.Command(o.Envoy, append(args, "--disable-hot-restart", "--concurrency", "1")...)
	} else {
		cmd = exec.Command(Meshtap(p.tb), append([]string{"serve"}, args...)...)
	}
	if o.Start == nil {
		// It ends with the tests, whatever becomes of them. The signal comes with the end of the thread that started it,
		// which Start may have made for nothing else.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	return cmd
}

// file writes a file that any user may read, since tests also run the proxy as somebody else.
func (p *Proxy) file(name, text string) string {
	p.tb.Helper()
	dir := p.tb.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		p.tb.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.tb.Fatal(err)
	}
	return path
}

// Pid returns the process id.
func (p *Proxy) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Proxy) Signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Fatal(err)
	}
}

// Exited is closed when the process has ended.
func (p *Proxy) Exited() <-chan struct{} { return p.exited }

// Wait waits for the end of the process and returns its exit code, -1 where a signal ended it.
func (p *Proxy) Wait() int {
	p.tb.Helper()
	select {
	case <-p.exited:
	case <-time.After(Hang):
		p.tb.Fatalf("the process does not end; its log:\n%s", p.Log())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *Proxy) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.exited
}

// end looks for what no test may leave behind.
func (p *Proxy) end() {
	p.Kill()
	log := p.Log()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "panicked", "fatal error:"} {
		if strings.Contains(log, bad) {
			p.tb.Errorf("the proxy's log has %q", bad)
		}
	}
	if p.tb.Failed() {
		const most = 16 << 10
		p.tb.Logf("the proxy's log, at most the last %d bytes:\n%s", most, log[max(0, len(log)-most):])
	}
}

// Log returns what the proxy wrote to its standard error so far.
func (p *Proxy) Log() string { return p.stderr.text() }

// Stdout returns what the proxy wrote to its standard output so far.
func (p *Proxy) Stdout() string { return p.stdout.text() }

// Logged waits for a line of the log that the pattern matches, and returns the match with its groups.
func (p *Proxy) Logged(pattern string) []string {
	p.tb.Helper()
	return p.await(&p.stderr, "log", pattern)
}

// Printed waits for a line of the standard output that the pattern matches, and returns the match with its groups.
func (p *Proxy) Printed(pattern string) []string {
	p.tb.Helper()
	return p.await(&p.stdout, "standard output", pattern)
}

func (p *Proxy) await(l *lines, where, pattern string) []string {
	p.tb.Helper()
	m, ended := l.await(regexp.MustCompile(pattern))
	if m == nil {
		why := "in time"
		if ended {
			why = "before its end"
		}
		p.tb.Fatalf("the proxy did not write %q to its %s %s; its log:\n%s", pattern, where, why, p.Log())
	}
	return m
}

// Ready waits until the proxy serves.
func (p *Proxy) Ready() {
	p.tb.Helper()
	if p.envoy {
		p.Logged("all dependencies initialized. starting workers")
		p.Admin().Until("/ready", func(status int, _ string) bool { return status == 200 })
		return
	}
	p.Logged(`"msg":"started"`)
}

// lines collects what a process writes.
type lines struct {
	mu     sync.Mutex
	all    bytes.Buffer  // guarded by mu
	more   chan struct{} // guarded by mu: closed when there is more, nil where nobody waits
	closed bool          // guarded by mu
}

func (l *lines) read(r io.Reader) {
	for br := bufio.NewReader(r); ; {
		b, err := br.ReadBytes('\n')
		l.mu.Lock()
		l.all.Write(b)
		l.tell()
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.tell()
}

// tell wakes those who wait. l.mu is held.
func (l *lines) tell() {
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// await returns nil where the pattern is not matched in time, or ended where nothing more will come.
func (l *lines) await(pattern *regexp.Regexp) (match []string, ended bool) {
	limit := time.After(Hang)
	for {
		l.mu.Lock()
		m := pattern.FindStringSubmatch(l.all.String())
		if m != nil || l.closed {
			l.mu.Unlock()
			return m, m == nil
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-limit:
			return nil, false
		}
	}
}
