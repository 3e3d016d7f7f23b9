// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fake makes a proc file system of files and, where a text begins with "->", links.
func fake(t *testing.T, files map[string]string) FS {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Open(root)
}

// stat is a line of /proc/PID/stat with 300 ticks of user time and 200 of system time.
const stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 300 200 0 0 20 0 3 0 25 1 1"

func TestCPU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  CPU
		fails bool
	}{
		{
			"the threads together",
			map[string]string{"7/stat": stat, "7/task/7/schedstat": "4000000000 1 2\n", "7/task/8/schedstat": "900000001 1 2\n"},
			CPU{4900000001, 3 * time.Second, 2 * time.Second},
			false,
		},
		{
			"no schedstat in the kernel", map[string]string{"7/stat": stat, "7/task/7/comm": "a"},
			CPU{5 * time.Second, 3 * time.Second, 2 * time.Second},
			false,
		},
		{"no such process", map[string]string{"8/stat": stat}, CPU{}, true},
		{"not a stat", map[string]string{"7/stat": "7 (a) S 1", "7/task/7/schedstat": "1 1 1"}, CPU{}, true},
		{"not a schedstat", map[string]string{"7/stat": stat, "7/task/7/schedstat": "x"}, CPU{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := fake(t, tt.files).CPU(7)
			if got != tt.want && !tt.fails || (err != nil) != tt.fails {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestCore(t *testing.T) {
	t.Parallel()
	fs := fake(t, map[string]string{"stat": "cpu  10 1 2 300 5 6 7 8 9 9\ncpu0 5 0 1 150 2 3 3 4 0 0\ncpu1 5 1 1 150 3 3 4 4 0 0\nintr 1\n"})
	got, err := fs.Core(1)
	want := CoreTime{Busy: 14 * tick, Steal: 4 * tick, All: 171 * tick}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, err := fs.Core(-1); err != nil || got.All != 339*tick {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := fs.Core(2); err == nil {
		t.Error("there is a third core")
	}
	if d := (CoreTime{9, 4, 20}).Sub(CoreTime{3, 1, 10}); d != (CoreTime{6, 3, 10}) {
		t.Errorf("%+v", d)
	}
}

func TestRSS(t *testing.T) {
	t.Parallel()
	fs := fake(t, map[string]string{"7/status": "Name:\ta\nVmRSS:\t   31500 kB\nThreads:\t1\n", "8/status": "Name:\tkthread\n"})
	if got, err := fs.RSS(7); err != nil || got != 31500<<10 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := fs.RSS(8); err == nil {
		t.Error("a process without memory has some")
	}
}

// line is a socket in /proc/net/tcp.
func line(port int, state string, inode int) string {
	return fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0\n", port, state, inode)
}

func TestListeners(t *testing.T) {
	t.Parallel()
	const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []Listener
	}{
		{
			"nobody", map[string]string{"net/tcp": header + line(81, "0A", 5), "7/fd/3": "->socket:[5]", "7/comm": "a\n"}, nil,
		},
		{
			"a connection is no listener",
			map[string]string{"net/tcp": header + line(80, "01", 5), "7/fd/3": "->socket:[5]", "7/comm": "a\n"}, nil,
		},
		{
			"one", map[string]string{"net/tcp": header + line(80, "0A", 5), "7/fd/3": "->socket:[5]", "7/comm": "haproxy\n", "8/fd/3": "->/dev/null"},
			[]Listener{{80, 7, "haproxy"}},
		},
		{
			"two share a port",
			map[string]string{
				"net/tcp": header + line(80, "0A", 5) + line(80, "0A", 6), "9/fd/3": "->socket:[5]", "9/comm": "b\n",
				"7/fd/3": "->socket:[6]", "7/fd/4": "->pipe:[5]", "7/comm": "a\n",
			},
			[]Listener{{80, 7, "a"}, {80, 9, "b"}},
		},
		{
			"one with two descriptors counts once",
			map[string]string{"net/tcp": header + line(80, "0A", 5), "7/fd/3": "->socket:[5]", "7/fd/4": "->socket:[5]", "7/comm": "a\n"},
			[]Listener{{80, 7, "a"}},
		},
		{
			"IPv6, of another user", map[string]string{"net/tcp": header, "net/tcp6": header + line(8080, "0A", 5)},
			[]Listener{{8080, 0, ""}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := fake(t, tt.files).Listeners(80, 8080)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	if _, err := fake(t, map[string]string{"stat": ""}).Listeners(80); err == nil {
		t.Error("without a table, nobody listens")
	}
}

// The real file system tells of a real listener.
func TestListenersOfThisProcess(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	fs := Open("/proc")
	got, err := fs.Listeners(port)
	if err != nil || len(got) != 1 || got[0].PID != fs.Self() || got[0].Port != port || got[0].Name == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if s := got[0].String(); !strings.Contains(s, got[0].Name) || !strings.Contains(s, fmt.Sprint(port)) {
		t.Errorf("it is told as %q", s)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	before := map[int]usage{1: {"quiet", 5 * time.Second}, 2: {"compile", time.Second}, 3: {"me", 0}}
	after := map[int]usage{
		1: {"quiet", 5*time.Second + 40*time.Millisecond}, 2: {"compile", 1500 * time.Millisecond}, 3: {"me", time.Second},
		4: {"new", 900 * time.Millisecond},
	}
	got := busy(before, after, time.Second, 3)
	want := []Process{{4, "new", 0.9}, {2, "compile", 0.5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDisturbed(t *testing.T) {
	t.Parallel()
	if why := (Quiet{Load: 0.4, Steal: 0.001}).Disturbed(); why != nil {
		t.Errorf("a quiet machine is disturbed: %q", why)
	}
	why := Quiet{Load: 3, Steal: 0.05, Busy: []Process{{7, "compile", 0.5}}}.Disturbed()
	want := []string{"compile (process 7) uses 50 % of a core", "the host takes 5.0 % of the time", "the load average is 3.00"}
	if !reflect.DeepEqual(why, want) {
		t.Errorf("%q", why)
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	fs := fake(t, map[string]string{"stat": "cpu 1 1 1 1 1 1 1 1\n", "loadavg": "1.25 1 1 1/1 1\n", "7/stat": stat, "7/comm": "a"})
	q, err := fs.Look(t.Context(), time.Millisecond)
	if err != nil || q.Load != 1.25 || q.Busy != nil || q.Steal != 0 {
		t.Errorf("%+v, %v", q, err)
	}
}
