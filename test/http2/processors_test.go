// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// apart keeps the last processor free for a proxy until the end of the test, as if the proxy were on a machine of its own:
// this process, and what it starts, has the others. start is for sidecar.Options, and starts a proxy on that processor. It
// is nil where there is but one.
func apart(t testing.TB) (start func(*exec.Cmd) error) {
	var all, own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Log("there is one processor: the proxy shares it")
		return nil
	}
	last := 0
	for i, left := 0, all.Count(); left > 0; i++ {
		if all.IsSet(i) {
			last = i
			left--
		}
	}
	own.Set(last)
	others := all
	others.Clear(last)
	move(t, &others)
	t.Cleanup(func() { move(t, &all) })
	return func(cmd *exec.Cmd) error {
		// A child begins with the affinity of the thread that made it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := unix.SchedSetaffinity(0, &own)
		if err == nil {
			err = cmd.Start()
		}
		return errors.Join(err, unix.SchedSetaffinity(0, &others))
	}
}

// move moves this process. Threads that begin meanwhile are where the one is that made them: the second look finds them.
func move(t testing.TB, to *unix.CPUSet) {
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if tid, err := strconv.Atoi(thread.Name()); err == nil {
				_ = unix.SchedSetaffinity(tid, to) // one that has just ended needs none
			}
		}
	}
}
