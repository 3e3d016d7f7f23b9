// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// cgroup is a cgroup2 for a proxy, its clients and its upstreams: what is spliced in the kernel is found by it.
type cgroup struct {
	dir  string
	file *os.File
}

// newCgroup makes one below that of this process. proc is where the proc file system is.
func newCgroup(proc string) (*cgroup, error) {
	own, err := ownCgroup(proc)
	if err != nil {
		return nil, err
	}
	c := &cgroup{dir: filepath.Join(own, fmt.Sprintf("meshtap-bench-%d", os.Getpid()))}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("it wants a cgroup, which takes root: %w", err)
	}
	if c.file, err = os.Open(c.dir); err != nil {
		return nil, errors.Join(err, os.Remove(c.dir))
	}
	return c, nil
}

// put makes a command begin in the cgroup; without one it changes nothing.
func (c *cgroup) put(a *syscall.SysProcAttr) {
	if c != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(c.file.Fd())
	}
}

// Close takes the cgroup away. Its processes must have ended.
func (c *cgroup) Close() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.file.Close(), os.Remove(c.dir))
}

// ownCgroup looks where the cgroup2 of this process is (proc(5): mountinfo, cgroup).
func ownCgroup(proc string) (string, error) {
	mounts, err1 := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	groups, err2 := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if len(f) < 5 || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		for group := range strings.Lines(string(groups)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(group), "0::"); ok {
				return filepath.Join(f[4], strings.TrimPrefix(path, strings.TrimSuffix(f[3], "/"))), nil
			}
		}
	}
	return "", errors.New("it wants a cgroup2 file system, and none is mounted")
}
