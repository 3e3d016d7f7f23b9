// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtap/meshtap/test/bench/proc"
)

// startLimit is how long a peer may take until it listens.
const startLimit = 20 * time.Second

// Running is a peer that listens.
type Running struct {
	PID int

	cmd   *exec.Cmd
	ended chan struct{}
	log   string
}

// Start starts a peer on a core and returns once it, and nobody else, listens. The caller stops it; it also dies with the
// caller.
func (p *Peer) Start(ctx context.Context, found Program, at Place, core int) (*Running, error) {
	if err := os.MkdirAll(at.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	if at.TLS {
		if err := Issue(at.Identity()); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	text, err := p.Config(at)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(at.Dir, p.file)
	if p.file != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	r := &Running{log: filepath.Join(at.Dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	defer log.Close()
	r.cmd = exec.Command(found.Path, p.args(at, file)...)
	r.cmd.Env = append(os.Environ(), found.Env...)
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = at.Dir, log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if at.Cgroup != nil {
		r.cmd.SysProcAttr.UseCgroupFD, r.cmd.SysProcAttr.CgroupFD = true, int(at.Cgroup.Fd())
	}
	if err := startOn(r.cmd, core); err != nil {
		return nil, fmt.Errorf("peer: start %s: %w", p.Name, err)
	}
	r.PID = r.cmd.Process.Pid
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait()
	}()
	err = r.listens(ctx, at)
	if text := r.tail(); err == nil && p.refused != "" && strings.Contains(text, p.refused) {
		err = errors.New(text)
	}
	if err != nil {
		r.Stop()
		return nil, fmt.Errorf("peer: %s: %w", p.Name, err)
	}
	return r, nil
}

// startOn starts a command on one core: a child begins with the affinity of the thread that made it. The child is killed
// when that thread ends, which it does with the process.
func startOn(cmd *exec.Cmd, core int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	want.Set(core)
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return err
	}
	defer func() { _ = unix.SchedSetaffinity(0, &was) }()
	return cmd.Start()
}

// listens waits until the peer takes connections, and looks whether somebody shares its port.
func (r *Running) listens(ctx context.Context, at Place) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for {
		if c, err := net.Dial("tcp", at.Listen.String()); err == nil {
			_ = c.Close()
			break
		}
		select {
		case <-pace.C:
		case <-r.ended:
			return fmt.Errorf("it ended: %s", r.tail())
		case <-limit.C:
			return fmt.Errorf("it does not listen on %s after %v: %s", at.Listen, startLimit, r.tail())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	who, err := proc.Open("/proc").Listeners(at.Listen.Port())
	if err != nil {
		return err
	}
	for _, l := range who {
		if l.PID != r.PID {
			return fmt.Errorf("%s; end it, or the two share the load", l)
		}
	}
	return nil
}

// Ended is closed when the process has ended.
func (r *Running) Ended() <-chan struct{} { return r.ended }

// Stop kills the process and waits for its end.
func (r *Running) Stop() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// tail returns the last lines of the peer's log.
func (r *Running) tail() string {
	b, _ := os.ReadFile(r.log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
