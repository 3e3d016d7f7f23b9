// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOwnCgroup(t *testing.T) {
	t.Parallel()
	const other = "22 20 0:20 / /sys rw - sysfs sysfs rw\n"
	for _, tt := range []struct{ name, mounts, groups, want string }{
		{"beside the old ones", other + "31 24 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", "4:memory:/a\n0::/b/c\n", "/sys/fs/cgroup/unified/b/c"},
		{"a part of it", "31 24 0:28 /pod /cg rw - cgroup2 none rw\n", "0::/pod/x\n", "/cg/x"},
		{"not mounted", other, "0::/\n", ""},
		{"no such hierarchy", "31 24 0:28 / /cg rw - cgroup2 none rw\n", "1:cpu:/\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range map[string]string{"mountinfo": tt.mounts, "cgroup": tt.groups} {
				if err := os.MkdirAll(filepath.Join(dir, "self"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "self", name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := ownCgroup(dir)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// Who wants no cgroup is started as ever.
func TestNoCgroup(t *testing.T) {
	t.Parallel()
	var c *cgroup
	var a syscall.SysProcAttr
	c.put(&a)
	if a.UseCgroupFD {
		t.Error("it is put into a cgroup that is not there")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
