// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/meshtap/meshtap/internal/stats"
)

// What the programs do is proved by test/netns with real sockets; here is what needs no rights.

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		value, cgroup string
		on, fails     bool
	}{
		{value: ""},
		{value: "sockmap", on: true},
		{value: "sockmap:/sys/fs/cgroup/pod", cgroup: "/sys/fs/cgroup/pod", on: true},
		{value: "sockmap:pod", fails: true},
		{value: "sockmap:", fails: true},
		{value: "Sockmap", fails: true},
		{value: "xdp", fails: true},
		{value: ":/sys", fails: true},
	} {
		t.Run(tc.value, func(t *testing.T) {
			t.Parallel()
			cfg, on, err := Parse(tc.value)
			if cfg.Cgroup != tc.cgroup || on != tc.on || (err != nil) != tc.fails {
				t.Errorf("got %+v, %v, %v", cfg, on, err)
			}
			if err != nil && !strings.Contains(err.Error(), tc.value) {
				t.Errorf("the error does not say what was given: %v", err)
			}
		})
	}
}

func TestOwnCgroup(t *testing.T) {
	t.Parallel()
	const other = "22 20 0:20 / /sys rw - sysfs sysfs rw\n"
	for _, tc := range []struct{ name, mounts, groups, want string }{
		{"unified", "31 24 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n", "0::/a/b\n", "/sys/fs/cgroup/a/b"},
		{"beside the old ones", other + "31 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n", "4:memory:/m\n0::/\n", "/sys/fs/cgroup/unified"},
		{"a part of it", "31 24 0:28 /pod /cg rw - cgroup2 none rw\n", "0::/pod/x\n", "/cg/x"},
		{"not mounted", other, "0::/\n", ""},
		{"no such hierarchy", "31 24 0:28 / /cg rw - cgroup2 none rw\n", "1:cpu:/\n", ""},
		{"cut short", "31 24 - cgroup2\n", "0::/\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "self"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"mountinfo": tc.mounts, "cgroup": tc.groups} {
				if err := os.WriteFile(filepath.Join(dir, "self", name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := ownCgroup(dir)
			var why *UnavailableError
			if got != tc.want || (tc.want == "") != errors.As(err, &why) {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	if _, err := ownCgroup(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without /proc: %v", err)
	}
}

// Each cause has one line that says what is missing and what to do.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		err           error
		missing, doIt string
	}{
		{"no right", syscall.EPERM, "the right", "CAP_BPF"},
		{"no right to open", &fs.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}, "the right", "CAP_NET_ADMIN"},
		{"no folder", &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, "the cgroup2 folder", "--accelerate=sockmap:/"},
		{"not a cgroup", syscall.EBADF, "the cgroup2 folder", "--accelerate=sockmap:/"},
		{"no such map", ebpf.ErrNotSupported, "hash of sockets", "6.13"},
		{"rejected", &ebpf.VerifierError{Cause: syscall.EINVAL}, "need of this kernel", "6.13"},
		{"no memory", syscall.ENOMEM, "memory", "more"},
		{"known", missing("a", "b", nil), "a", "b"},
		{"unknown", syscall.EXDEV, "does as expected", "leave --accelerate out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var why *UnavailableError
			err := explain(tc.err)
			if !errors.As(err, &why) || !strings.Contains(why.Missing, tc.missing) || !strings.Contains(why.Do, tc.doIt) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "\n") || why.Err != nil && !errors.Is(err, why.Err) {
				t.Errorf("not one line, or without its cause: %q", err)
			}
		})
	}
}

// The programs hold together: all jumps have a target, and nothing is too far.
func TestProgramsAssemble(t *testing.T) {
	t.Parallel()
	m := tables{3, 4, 5, 6, 7}
	for name, in := range map[string]asm.Instructions{
		"pair": m.pair(), "splice": m.splice(offsets{rmem: 192, writeSeq: 1576, copied: 1600}),
	} {
		var b bytes.Buffer
		if err := in.Marshal(&b, binary.LittleEndian); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("figure: %s has %d instructions", name, b.Len()/asm.InstructionSize)
	}
}

func TestOffsetOf(t *testing.T) {
	t.Parallel()
	u32 := &btf.Int{Name: "u32", Size: 4}
	inner := &btf.Struct{Members: []btf.Member{{Name: "len", Type: u32}, {Name: "rmem_alloc", Type: u32, Offset: 32}}}
	sock := &btf.Struct{Name: "sock", Members: []btf.Member{
		{Name: "first", Type: u32}, {Name: "sk_backlog", Type: &btf.Typedef{Name: "backlog_t", Type: inner}, Offset: 64},
	}}
	if at, err := offsetOf(sock, []string{"sk_backlog", "rmem_alloc"}); at != 12 || err != nil {
		t.Errorf("got %d, %v; want 12", at, err)
	}
	for _, path := range [][]string{{"gone"}, {"sk_backlog", "gone"}, {"first", "below"}} {
		if at, err := offsetOf(sock, path); err == nil {
			t.Errorf("%v is at %d", path, at)
		}
	}
}

// Where nothing can be spliced, the numbers say so.
func TestPublishNothing(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{Shards: 1})
	Publish(reg, nil)
	seen := map[string]int64{}
	reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		seen[string(m.AppendName(nil))] = m.Value
		return true
	})
	if v, ok := seen["meshtap.accelerate.on"]; !ok || v != 0 {
		t.Errorf("got %v", seen)
	}
}

// The trial finds bytes that were changed, are too few, or come in another order.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		do   func(b []byte) []byte
		ok   bool
	}{
		{"as sent", func(b []byte) []byte { return b }, true},
		{"one less", func(b []byte) []byte { return b[:len(b)-1] }, false},
		{"one more", func(b []byte) []byte { return append(b, pattern(len(b))) }, false},
		{"changed", func(b []byte) []byte { b[7777]++; return b }, false},
		{"halves changed places", func(b []byte) []byte { return append(b[len(b)/2:len(b):len(b)], b[:len(b)/2]...) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			from, to, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			defer to.Close()
			b := make([]byte, 100_000)
			write(b, 0)
			go func() {
				from.Write(tc.do(b))
				from.CloseWrite()
			}()
			if err := verify(to, len(b)); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}
