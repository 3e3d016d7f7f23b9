// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// A proxy that cannot start says where the trouble is and what to do, in one line that begins with its name, and ends with
// the exit code of docs/cli.md.
func TestStartsThatCannotBe(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	static, err := os.ReadFile(filepath.Join("..", "..", "configs", "static.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, by string) string {
		text := strings.Replace(string(static), old, by, 1)
		if text == string(static) {
			t.Fatalf("static.yaml has no %q", old)
		}
		return text
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, tc := range []struct {
		name string
		text string   // the bootstrap
		args []string // instead of a bootstrap, where there are some
		code int
		want string // a regular expression for the line; FILE stands for the file
	}{
		{
			name: "broken YAML", text: "static_resources:\n  listeners: [\n", code: cli.ExitConfig,
			want: `FILE:2:14  error  .*']' not found`,
		},
		{
			name: "half a file", text: string(static[:700]), code: cli.ExitConfig,
			want: `FILE:19:\d+  error  could not find .*'}'`,
		},
		{
			name: "an unknown field", text: with("stat_prefix:", "stat_prefxi:"), code: cli.ExitConfig,
			want: `FILE:17:\d+  error  unknown field "stat_prefxi" .*did you mean "stat_prefix"\?`,
		},
		{
			name: "an unknown extension", text: with("filters.http.router.v3.Router", "filters.http.nope.v3.Nope"), code: cli.ExitConfig,
			want: `FILE:29:\d+  error  .*envoy\.extensions\.filters\.http\.nope\.v3\.Nope, which is not supported in envoy\.filters\.http; supported: .*router\.v3\.Router`,
		},
		{
			name: "a value that is not allowed", text: with("connect_timeout: 1s", "connect_timeout: 0s"), code: cli.ExitConfig,
			want: `FILE:\d+:\d+  error  .*connect_timeout`,
		},
		{
			name: "half a bootstrap", text: "dynamic_resources:\n  lds_config: {ads: {}}\nnode: {id: n, cluster: c}\n", code: cli.ExitConfig,
			want: `FILE:2:16  error  lds_config\.ads needs dynamic_resources\.ads_config, which says where the control plane is`,
		},
		{
			name: "no node", text: "dynamic_resources:\n  lds_config: {ads: {}}\n", code: cli.ExitConfig,
			want: `error  node\.id is required .*--service-node`,
		},
		{name: "an empty file", text: "# nothing\n", code: cli.ExitConfig, want: `FILE:1:1  error  the text holds no configuration`},
		{
			name: "no such file", args: []string{"-c", "/nowhere/bootstrap.yaml"}, code: cli.ExitConfig,
			want: `/nowhere/bootstrap\.yaml  error  open .*: no such file or directory`,
		},
		{name: "a folder", args: []string{"-c", t.TempDir()}, code: cli.ExitConfig, want: `error  read .*: is a directory`},
		{name: "nothing", args: []string{"--log-level", "info"}, code: cli.ExitUsage, want: `there is nothing to serve`},
		{name: "an unknown flag", args: []string{"--conifg-path", "x"}, code: cli.ExitUsage, want: `unknown flag: --conifg-path`},
		{
			name: "a listener's port is taken", text: strings.Replace(with("9901", "0"), "port_value: 10000", "port_value: "+port, 1), code: cli.ExitFailure,
			want: `listener "http": 127\.0\.0\.1:` + port + `: address already in use .*another process`,
		},
		{
			name: "the administration port is taken", text: with("9901", port), code: cli.ExitFailure,
			want: `admin: 127\.0\.0\.1:` + port + ` is in use by another process; end that, or set another admin\.address`,
		},
		{
			name: "a log that cannot be written", text: with("9901", "0"), args: []string{"--log-path", "/nowhere/log"}, code: cli.ExitFailure,
			want: `--log-path: open /nowhere/log: no such file or directory`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := sidecar.Run(t, sidecar.Options{Bootstrap: tc.text, Args: tc.args})
			if code := p.Wait(); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			want := regexp.MustCompile(strings.Replace(tc.want, "FILE", `\S+/bootstrap\.yaml`, 1))
			first := told(p.Log())
			if len(first) == 0 || !want.MatchString(strings.Join(first, " ")) {
				t.Errorf("it says %q, want %s", first, want)
			}
			if n := strings.Count(p.Log(), "meshtap: "); n != 1 || strings.Contains(p.Log(), "goroutine ") {
				t.Errorf("it says %d times what is wrong:\n%s", n, p.Log())
			}
		})
	}
}

// told returns the lines that are for people.
func told(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

// A file that may not be read is refused by name.
func TestUnreadableBootstrap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(path, []byte("{}"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	p := sidecar.Run(t, sidecar.Options{Args: []string{"-c", path}, Start: asNobody})
	if code := p.Wait(); code != cli.ExitConfig {
		t.Errorf("exit code %d, want %d", code, cli.ExitConfig)
	}
	p.Logged(`meshtap: ` + regexp.QuoteMeta(path) + `  error  open .*: permission denied`)
}

// What --mode validate says is what a start says.
func TestValidateSaysTheSame(t *testing.T) {
	t.Parallel()
	const text = "static_resources:\n  listenerz: []\n"
	start := sidecar.Run(t, sidecar.Options{Bootstrap: text})
	check := sidecar.Run(t, sidecar.Options{Bootstrap: text, Args: []string{"--mode", "validate"}})
	if a, b := start.Wait(), check.Wait(); a != cli.ExitConfig || b != a {
		t.Errorf("exit codes %d and %d", a, b)
	}
	names := regexp.MustCompile(`(meshtap: )?\S+/bootstrap\.yaml`)
	if a, b := names.ReplaceAllString(start.Log(), ""), names.ReplaceAllString(check.Log(), ""); a != b || a == "" {
		t.Errorf("a start says\n%s\nand --mode validate\n%s", a, b)
	}
	good := sidecar.Run(t, sidecar.Options{Args: []string{"-c", filepath.Join("..", "..", "configs", "static.yaml"), "--mode", "validate"}})
	if code := good.Wait(); code != 0 || !strings.Contains(good.Stdout(), "OK") {
		t.Errorf("exit code %d for a good file: %s%s", code, good.Stdout(), good.Log())
	}
}
