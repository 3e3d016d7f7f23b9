// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// nursery starts processes from one thread that lives as long as it does: the kernel ends a child with the thread that
// started it (prctl(2), PR_SET_PDEATHSIG), and Go ends threads as it likes.
type nursery struct {
	work chan func()
	wg   sync.WaitGroup
	// deaths has a place for each child: those that have ended and were reaped, in this order.
	deaths chan *child
	// children are all that were started, for the goroutine that starts and closes.
	children []*child
}

// maxChildren bounds the processes of a nursery.
const maxChildren = 32

func newNursery() *nursery {
	n := &nursery{work: make(chan func()), deaths: make(chan *child, maxChildren)}
	n.wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range n.work {
			f()
		}
	})
	return n
}

// close kills the children that are left, and waits for their end and that of the thread, which would not end them where it
// is the first of the process: that one stays until the process goes.
func (n *nursery) close() {
	for _, c := range n.children {
		c.signal(syscall.SIGKILL)
	}
	close(n.work)
	n.wg.Wait()
}

// start starts a process that ends with this one, away from the signals of the terminal.
func (n *nursery) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	n.work <- func() { done <- cmd.Start() }
	return <-done
}

// child is a process of the world.
type child struct {
	name  string
	cmd   *exec.Cmd
	tail  tail
	ended chan struct{} // closed when it has ended and was reaped
	err   error         // how, after ended
}

// pipeTime bounds how long the output of a process is read after its end: a grandchild may hold it open.
const pipeTime = time.Second

// spawn starts a process and reaps it. Its standard error is kept, the last lines of it, and its standard output, too,
// unless the command has one.
func (n *nursery) spawn(name string, cmd *exec.Cmd) (*child, error) {
	c := &child{name: name, cmd: cmd, ended: make(chan struct{})}
	cmd.Stderr, cmd.WaitDelay = &c.tail, pipeTime
	if cmd.Stdout == nil {
		cmd.Stdout = &c.tail
	}
	// What is set for the commands that people type is not meant for these.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MESHTAP_") })
	if err := n.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	n.children = append(n.children, c)
	n.wg.Go(func() {
		c.err = cmd.Wait()
		close(c.ended)
		n.deaths <- c
	})
	return c, nil
}

// death describes the end of a process that should not have ended.
func (c *child) death() error {
	how := "it ended"
	if c.err != nil {
		how = c.err.Error()
	}
	lines := c.tail.lines()
	if len(lines) == 0 {
		return fmt.Errorf("%s has died: %s; it left no log", c.name, how)
	}
	return fmt.Errorf("%s has died: %s; its last lines:\n  %s", c.name, how, strings.Join(lines, "\n  "))
}

// term asks processes to end and waits; those that are left after a while are killed.
func term(children []*child, patience time.Duration) {
	for _, c := range children {
		c.signal(syscall.SIGTERM)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for i, c := range children {
		select {
		case <-c.ended:
		case <-timer.C:
			for _, left := range children[i:] {
				left.signal(syscall.SIGKILL)
			}
			for _, left := range children[i:] {
				<-left.ended
			}
			return
		}
	}
}

func (c *child) signal(s os.Signal) {
	// A process that has ended needs no signal.
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_, _ = c.tail.Write([]byte(err.Error() + "\n"))
	}
}

// tail keeps the last lines that are written to it.
type tail struct {
	mu   sync.Mutex
	kept []string // guarded by mu
	rest []byte   // guarded by mu: a line that has not ended
}

const (
	maxLines = 12
	maxLine  = 500
)

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for {
		line, after, ended := bytes.Cut(p, []byte("\n"))
		if room := maxLine - len(t.rest); len(line) > room {
			line = line[:room]
		}
		t.rest = append(t.rest, line...)
		if !ended {
			return n, nil
		}
		if len(t.kept) == maxLines {
			t.kept = append(t.kept[:0], t.kept[1:]...)
		}
		t.kept = append(t.kept, string(t.rest))
		t.rest, p = t.rest[:0], after
	}
}

// lines returns what is kept.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := append([]string(nil), t.kept...)
	if len(t.rest) > 0 {
		out = append(out, string(t.rest))
	}
	return out
}
