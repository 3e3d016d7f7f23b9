// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// spawn starts a shell that writes "up" when it is ready, and returns it then.
func spawn(t *testing.T, n *nursery, script string) *child {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout = in
	c, err := n.spawn("the shell", cmd)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the shell says %q, %v", line, err)
	}
	return c
}

func TestCloseEndsChildren(t *testing.T) {
	t.Parallel()
	n := newNursery()
	c := spawn(t, n, "trap '' TERM INT HUP; echo up; while :; do sleep 60; done")
	pgid, err := syscall.Getpgid(c.cmd.Process.Pid)
	if err != nil || pgid != c.cmd.Process.Pid {
		t.Errorf("the child is in the group %d, %v: Ctrl-C on the terminal would end it", pgid, err)
	}
	n.close()
	<-c.ended
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", c.err)
	}
}

func TestTerm(t *testing.T) {
	t.Parallel()
	n := newNursery()
	defer n.close()
	polite := spawn(t, n, "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")
	term([]*child{polite}, time.Hour)
	if code := polite.cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("a polite one ends with %d", code)
	}
	stubborn := spawn(t, n, "trap '' TERM; echo up; while :; do sleep 0.01; done")
	term([]*child{polite, stubborn}, time.Millisecond)
	if status := stubborn.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("a stubborn one ends with %v", stubborn.err)
	}
}

func TestDeath(t *testing.T) {
	t.Parallel()
	n := newNursery()
	defer n.close()
	for name, tc := range map[string]struct{ script, want string }{
		"silent":      {"echo up", "the shell has died: it ended; it left no log"},
		"with a code": {"echo up; exit 3", "the shell has died: exit status 3; it left no log"},
		"with a log":  {"echo up; echo one >&2; printf two >&2; exit 1", "the shell has died: exit status 1; its last lines:\n  one\n  two"},
	} {
		c := spawn(t, n, tc.script)
		if dead := <-n.deaths; dead != c {
			t.Errorf("%s: somebody else died", name)
		}
		if got := c.death().Error(); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if _, err := n.spawn("nothing", exec.Command("/nowhere/at/all")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "start nothing: ") {
		t.Errorf("a binary that is not there: %v", err)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprint("line ", i))
	}
	for name, tc := range map[string]struct {
		writes []string
		want   []string
	}{
		"nothing":                   {nil, nil},
		"a line in pieces":          {[]string{"o", "ne\ntw", "o"}, []string{"one", "two"}},
		"several in one":            {[]string{"one\n\ntwo\n"}, []string{"one", "", "two"}},
		"more than are kept":        {[]string{strings.Join(all, "\n") + "\n"}, all[8:]},
		"longer than is kept":       {[]string{strings.Repeat("x", 600), "y\nz"}, []string{strings.Repeat("x", 500), "z"}},
		"longer, in a single write": {[]string{strings.Repeat("x", 600) + "\n"}, []string{strings.Repeat("x", 500)}},
	} {
		var kept tail
		for _, w := range tc.writes {
			if n, err := kept.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("%s: Write returns %d, %v", name, n, err)
			}
		}
		if got := kept.lines(); strings.Join(got, "|") != strings.Join(tc.want, "|") {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
