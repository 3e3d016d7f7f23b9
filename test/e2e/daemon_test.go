// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// TestDaemon runs the built meshtapd with the meshtap that is tested beside it.
func TestDaemon(t *testing.T) {
	t.Parallel()
	binary := daemon(t)
	for name, test := range map[string]func(*testing.T, string){
		"demo": testDemo, "private": testDemoIsPrivate, "killed": testDemoIsKilled, "who died": testDemoSaysWhoDied,
		"without meshtap": testDemoWithoutMeshtap,
		"control":         testControl, "control bus": testControlBus, "control refuses": testControlRefuses, "control over TLS": testControlTLS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, binary)
		})
	}
}

// daemon builds meshtapd beside the meshtap that is tested, and returns its path.
func daemon(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	path := filepath.Join(dir, "meshtapd")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/meshtap/meshtap/cmd/meshtapd")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	meshtap, err := filepath.Abs(sidecar.Meshtap(t))
	if err == nil {
		err = os.Symlink(meshtap, filepath.Join(dir, "meshtap"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// shortDir makes a directory whose path leaves room for the names of sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "md-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runAs runs another program as a process of the rig. It ends with the tests.
func runAs(t *testing.T, env []string, name string, args ...string) *sidecar.Proxy {
	t.Helper()
	return sidecar.Run(t, sidecar.Options{Start: func(cmd *exec.Cmd) error {
		cmd.Path, cmd.Args, cmd.Env = name, append([]string{name}, args...), append(os.Environ(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd.Start()
	}})
}

// listening returns the TCP addresses that processes listen on, as the kernel writes them.
func listening(t *testing.T, pids ...int) (out []string) {
	t.Helper()
	for _, pid := range pids {
		own := map[string]bool{}
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil {
				own[to] = true
			}
		}
		for _, table := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(dir + "/net/" + table)
			if err != nil {
				continue // there is no IPv6
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) > 9 && f[3] == "0A" && own["socket:["+f[9]+"]"] { // TCP_LISTEN
					out = append(out, f[1])
				}
			}
		}
	}
	return out
}

// meshOf is a mesh in which web calls orders, and nothing else.
func meshOf(outbound string, orders *origin.HTTP) string {
	return "services:\n  web:\n    outbound: " + outbound + "\n  orders:\n    endpoints:\n    - address: " + orders.Addr().String() + "\n"
}

// replace puts a file in the place of another, as careful programs write.
func replace(t *testing.T, path, text string) {
	t.Helper()
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// testControl: what the file says is what a real proxy serves; a change of the file changes it, and a broken file does not.
func testControl(t *testing.T, binary string) {
	g := &origin.Group{}
	a, b := origin.Start(t, "a", g), origin.Start(t, "b", g)
	out := freeAddr(t)
	file := filepath.Join(shortDir(t), "mesh.yaml")
	replace(t, file, meshOf(out, a))
	p := runAs(t, nil, binary, "control", "--config", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--bus-dir", filepath.Join(filepath.Dir(file), "bus"))
	m := p.Logged(`"msg":"serving".*"proxies":"127.0.0.1:(\d+)","admin":"([^"]+)"`)
	admin := p.AdminAt(m[2], http.DefaultTransport)

	bootstrap, err := os.ReadFile(filepath.Join(examples.Dir(), "ads.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("port_value: 18000", "port_value: "+m[1], "port_value: 9901", "port_value: 0").Replace(string(bootstrap))
	proxy := sidecar.Run(t, sidecar.Options{Bootstrap: text})
	proxy.Ready()
	if got := callOrders(t, out); got != "a" {
		t.Errorf("%s answers, a should", got)
	}
	admin.Until("/proxies", func(_ int, body string) bool {
		return strings.Contains(body, `"id": "web-1"`) && strings.Count(body, `"state": "synced"`) == 4
	})

	replace(t, file, meshOf(out, b))
	until(t, "the changed file is in force", func() bool { return callOrders(t, out) == "b" })

	broken := strings.Replace(meshOf(out, a), "endpoints", "endpiont", 1)
	if err := os.WriteFile(file, []byte(broken), 0o600); err != nil { // in its place, as editors do
		t.Fatal(err)
	}
	p.Logged(`"problem":"[^"]*mesh.yaml:5:5: unknown field \\"endpiont\\" in services.orders  did you mean \\"endpoints\\"\?`)
	if stats := admin.Stats(); stats["control.mesh.valid"] != 0 || stats["control.proxies"] != 1 {
		t.Errorf("the operator is told %v", stats)
	}
	if problem := admin.Get("/mesh"); !strings.Contains(problem, "mesh.yaml:5:5") || !strings.Contains(problem, "services.orders.endpiont") {
		t.Errorf("/mesh says %s", problem)
	}
	if got := callOrders(t, out); got != "b" {
		t.Errorf("%s answers after a broken edit, b should", got)
	}
	replace(t, file, meshOf(out, a))
	until(t, "the mended file is in force", func() bool { return callOrders(t, out) == "a" })
	admin.Until("/mesh", func(_ int, body string) bool { return !strings.Contains(body, "problem") })

	// The event bus runs, and nobody can reach it.
	if got := listening(t, p.Pid()); len(got) != 2 {
		t.Errorf("it listens on %v, and should for proxies and for its operator", got)
	}
	if info := admin.Get("/bus"); !strings.Contains(info, `"stream": "MESHTAP"`) || strings.Contains(info, "url") {
		t.Errorf("/bus says %s", info)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	if got := callOrders(t, out); got != "a" {
		t.Errorf("%s answers without a control plane, a should", got)
	}
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// callOrders calls orders by its name and returns the origin that answers.
func callOrders(t *testing.T, addr string) string {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "orders"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Origin")
}

// testControlBus: the bus listens where it is asked to, and lets in who has the token.
func testControlBus(t *testing.T, binary string) {
	file := filepath.Join(shortDir(t), "mesh.yaml")
	replace(t, file, "services: {web: {}}\n")
	args := []string{"control", "-c", file, "--listen", "unix:" + file + ".xds", "--admin", ""}
	dir := filepath.Join(filepath.Dir(file), "bus")
	p := runAs(t, nil, binary, append(args, "--bus-dir", dir, "--bus-listen", "127.0.0.1:0")...)
	url := p.Logged(`"bus":"(nats://[^"]+)","token_file":"` + dir + `/token"`)[1]
	if got := listening(t, p.Pid()); len(got) != 1 {
		t.Errorf("it listens on %v", got)
	}
	if c, err := nats.Connect(url); err == nil {
		c.Close()
		t.Error("the bus lets anybody in")
	}
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := nats.Connect(url, nats.Token(strings.TrimSpace(string(token))))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	second := runAs(t, nil, binary, append(args, "--bus-dir", dir)...)
	if code := second.Wait(); code != 1 || !strings.Contains(second.Log(), dir+": in use by another process") {
		t.Errorf("a second bus on the same directory: %d %q", code, second.Log())
	}
	p.Signal(os.Interrupt)
	if code := p.Wait(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	without := runAs(t, []string{"HOME="}, binary, append(args, "--no-bus")...)
	without.Logged(`"msg":"serving"`)
	if got := listening(t, without.Pid()); len(got) != 0 {
		t.Errorf("without a bus, it listens on %v", got)
	}
	without.Signal(syscall.SIGTERM)
	if code := without.Wait(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
}

// testControlRefuses: what cannot be served is refused at once, with the exit code for it.
func testControlRefuses(t *testing.T, binary string) {
	file := filepath.Join(shortDir(t), "mesh.yaml")
	replace(t, file, "services:\n  web:\n    polcy: {}\n")
	good := file + ".good"
	replace(t, good, "services: {web: {}}\n")
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a broken file", []string{"-c", file, "--no-bus"}, 3, file + `:3:5  error  unknown field "polcy" in services.web  did you mean "policy"?`},
		{"no file", []string{"--no-bus"}, 2, "there is nothing to serve"},
		{"a file that is not there", []string{"-c", file + "x", "--no-bus"}, 1, "no such file"},
		{"an unknown flag", []string{"--confg", file}, 2, "did you mean --config?"},
		{"a bus for all without a token", []string{"-c", good, "--bus-dir", file + ".bus", "--bus-listen", "0.0.0.0:0"}, 1, "choose a token"},
		{"administration for all", []string{"-c", good, "--no-bus", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"}, 1, "can be reached from other machines"},
		{"a bus and none", []string{"-c", good, "--no-bus", "--bus-listen", "127.0.0.1:0"}, 2, "exclude each other"},
	} {
		p := runAs(t, nil, binary, append([]string{"control"}, tc.args...)...)
		if code := p.Wait(); code != tc.code || !strings.Contains(p.Log(), tc.want) {
			t.Errorf("%s: it ends with %d, want %d, and says %q", tc.name, code, tc.code, p.Log())
		}
	}
}
