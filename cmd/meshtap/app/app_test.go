// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

const good = `
node: {id: one, cluster: tests}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hello}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

func options(t *testing.T, yaml string) Options {
	return Options{
		Bootstrap: bootstrap.Options{YAML: yaml, LookupEnv: os.LookupEnv}, DrainTime: 5 * time.Second,
		AdminAddressPath: filepath.Join(t.TempDir(), "admin"),
	}
}

func build(t *testing.T, yaml string) (*App, Options, error) {
	t.Helper()
	level := zap.NewAtomicLevel()
	opt := options(t, yaml)
	a, err := New(opt, zaptest.NewLogger(t), &level)
	return a, opt, err
}

func TestRun(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2) // starts a goroutine of os/signal that never ends
	before := runtime.NumGoroutine()
	a, opt, err := build(t, good)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-a.manager.Ready()
	at, err := os.ReadFile(opt.AdminAddressPath)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, "http://"+string(at)+"/ready"); got != "LIVE\n" {
		t.Errorf("/ready: %q", got)
	}
	var listeners struct {
		All []struct {
			Local struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+string(at)+"/listeners?format=json")), &listeners); err != nil || len(listeners.All) != 1 {
		t.Fatalf("/listeners: %v, %d listeners", err, len(listeners.All))
	}
	if got := get(t, fmt.Sprintf("http://127.0.0.1:%d/", listeners.All[0].Local.Socket.Port)); got != "hello" {
		t.Errorf("the proxy answers %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	expectGoroutines(t, before)
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// expectGoroutines waits until no more goroutines run than before: one that was joined may be on its last steps yet.
func expectGoroutines(t *testing.T, before int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
}

func TestNewRefuses(t *testing.T) {
	before := runtime.NumGoroutine()
	tap := `{name: meshtap.tap, typed_config: {"@type": type.googleapis.com/meshtap.tap.v1.Tap, sinks: [{name: out, typed_config: {"@type": type.googleapis.com/meshtap.tap.v1.StdoutSink}}]}}`
	for _, tt := range []struct{ name, yaml, want string }{
		{"unknown field", "nod: {}", `unknown field "nod"`},
		{"two taps", "bootstrap_extensions: [" + tap + ", " + tap + "]\n" + good, "there may be one event tap"},
	} {
		_, _, err := build(t, tt.yaml)
		var config ConfigError
		if !errors.As(err, &config) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a ConfigError with %q", tt.name, err, tt.want)
		}
	}
	expectGoroutines(t, before)
}

// TestStartFails: an address in use ends Run, and everything that was made with it.
func TestStartFails(t *testing.T) {
	before := runtime.NumGoroutine()
	first, opt, err := build(t, good)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	<-first.manager.Ready()
	at, err := os.ReadFile(opt.AdminAddressPath)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(string(at), ":")
	second, _, err := build(t, strings.Replace(good, "port_value: 0", "port_value: "+port, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second one's end: %v, want that the address is in use", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	expectGoroutines(t, before)
}

func TestTableHasNoDoubles(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, e := range NewExtensions(io.Discard).All() {
		if e.Name == "" || e.Category == "" || e.Status == "" || e.Posture == "" || len(e.TypeURLs) == 0 {
			t.Errorf("the row of %q lacks something: %+v", e.Name, e)
		}
		for _, u := range e.TypeURLs {
			if other, double := seen[u]; double {
				t.Errorf("%s and %s both are %s", other, e.Name, u)
			}
			seen[u] = e.Name
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"debug", "info", "warning", "error", "critical", "off"} {
		if got := levelName(Level(name)); got != name {
			t.Errorf("%s becomes %s", name, got)
		}
	}
}

func TestNoticesAreLogged(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	for _, n := range []*mesh.Notice{
		{Kind: mesh.NoticeCircuit, Circuit: &mesh.CircuitNotice{}}, {Kind: mesh.NoticeEjection, Ejection: &mesh.EjectionNotice{}},
		{Kind: mesh.NoticeHealth, Health: &mesh.HealthNotice{}}, {Kind: mesh.NoticeStart, Lifecycle: &mesh.LifecycleNotice{}},
		{Kind: mesh.NoticeDrain, Lifecycle: &mesh.LifecycleNotice{}}, {Kind: mesh.NoticeStop, Lifecycle: &mesh.LifecycleNotice{}},
	} {
		logNotice(zap.New(core), n)
	}
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Message)
	}
	if got, want := strings.Join(got, " "), "circuit outlier health started draining stopped"; got != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}
