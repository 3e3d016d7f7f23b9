// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Cgroup is a cgroup2 of a test.
type Cgroup struct {
	// Dir is its folder.
	Dir string
	t   testing.TB
}

// cgroupName is the start of the name of each; the process follows.
const cgroupName = "meshtap-test-"

// NewCgroup makes a cgroup2 below the root of the hierarchy, which is taken away when the test ends. Its processes must have
// ended or left by then.
func NewCgroup(t testing.TB) *Cgroup {
	t.Helper()
	root, err := cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup{Dir: filepath.Join(root, fmt.Sprintf("%s%d-%s", cgroupName, os.Getpid(), suffix(t))), t: t}
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		t.Fatalf("netns: make a cgroup: %v", err)
	}
	t.Cleanup(func() { c.remove() })
	return c
}

// remove takes the cgroup away. A process that was killed and waited for may still be on its way out of it.
func (c *Cgroup) remove() {
	for range 100 {
		err := os.Remove(c.Dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		if !errors.Is(err, syscall.EBUSY) {
			c.t.Errorf("netns: %v", err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Errorf("netns: the cgroup %s still has processes", c.Dir)
}

// Enter moves this process into the cgroup until the test ends: sockets that it opens meanwhile belong to it.
func (c *Cgroup) Enter() { c.EnterFor(c.t) }

// EnterFor is Enter until another test ends.
func (c *Cgroup) EnterFor(t testing.TB) {
	t.Helper()
	was, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	back, err := cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(was)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			back = filepath.Join(back, path)
		}
	}
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err := move(c.Dir); err != nil {
		t.Fatalf("netns: enter a cgroup: %v", err)
	}
	t.Cleanup(func() {
		if err := move(back); err != nil {
			t.Errorf("netns: leave a cgroup: %v", err)
		}
	})
}

// cgroup2 returns where the hierarchy is mounted.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("netns: no cgroup2 file system is mounted, which these tests need")
}

// sweepCgroups takes away what killed tests have left.
func sweepCgroups() {
	root, err := cgroup2()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(root, cgroupName+"*"))
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupName), "-")
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(dir) // another process may have done it
		}
	}
}
