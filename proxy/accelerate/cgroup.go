// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ownCgroup returns the folder of the cgroup2 that this process is in.
func ownCgroup(proc string) (string, error) {
	mount, err := cgroup2Mount(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(proc, "self", "cgroup"))
	if err != nil {
		return "", fmt.Errorf("which cgroup is this process in: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return filepath.Join(mount.at, strings.TrimPrefix(path, mount.root)), nil
		}
	}
	return "", missing("a cgroup2 hierarchy", "use a kernel with CONFIG_CGROUPS", nil)
}

// mount is where a part of the hierarchy can be seen: root in it is at.
type mount struct{ root, at string }

// cgroup2Mount looks for the file system (proc(5), mountinfo: id parent dev root at options [optional] - type ...).
func cgroup2Mount(file string) (mount, error) {
	f, err := os.Open(file)
	if err != nil {
		return mount{}, fmt.Errorf("where is cgroup2 mounted: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		left, right, _ := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 1 || r[0] != "cgroup2" {
			continue
		}
		// Spaces and such are octal escapes; a cgroup below a folder with spaces can be named by hand.
		return mount{root: strings.TrimSuffix(l[3], "/"), at: l[4]}, nil
	}
	if err := s.Err(); err != nil {
		return mount{}, fmt.Errorf("where is cgroup2 mounted: %w", err)
	}
	return mount{}, missing("a cgroup2 file system",
		"mount one (mount -t cgroup2 none /sys/fs/cgroup), or say where it is: --accelerate=sockmap:/path", nil)
}
