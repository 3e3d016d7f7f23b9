// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

// liveBootstrap serves /orders from a service, and /pay from where nobody listens.
const liveBootstrap = `
node: {id: web-1, cluster: web}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: /orders}, route: {cluster: orders}}
              - {match: {prefix: /pay}, route: {cluster: pay}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: orders
    load_assignment: {cluster_name: orders, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
  - name: pay
    metadata:
      typed_filter_metadata:
        io.meshtap.breaker: {"@type": type.googleapis.com/meshtap.breaker.v1.Breaker, consecutive_failures: 3, open_for: 0.02s}
    load_assignment: {cluster_name: pay, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
`

// live is a proxy in this process.
type live struct {
	admin string // the path of its administration socket
	url   string // of its listener
}

// startLive serves liveBootstrap until the test ends.
func startLive(t *testing.T) *live {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(service.Close)
	dir, err := os.MkdirTemp("", "live") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "bootstrap.yaml")
	port := service.Listener.Addr().(*net.TCPAddr).Port
	if err := os.WriteFile(file, fmt.Appendf(nil, liveBootstrap, 0, port), 0o600); err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	once := sync.OnceFunc(func() { close(started) })
	log := zap.New(watched{zapcore.NewNopCore(), func(e zapcore.Entry) {
		if e.Message == "started" {
			once()
		}
	}})
	level := zap.NewAtomicLevel()
	p := &live{admin: filepath.Join(dir, "admin.sock")}
	a, err := app.New(app.Options{
		Bootstrap: bootstrap.Options{Path: file}, Admin: mesh.Address{Pipe: p.admin}, DrainTime: time.Second,
	}, log, &level)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-started:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	p.url = p.listener(t)
	return p
}

// watched is a log that somebody looks at.
type watched struct {
	zapcore.Core
	see func(zapcore.Entry)
}

func (w watched) Enabled(zapcore.Level) bool { return true }

func (w watched) With([]zapcore.Field) zapcore.Core { return w }

func (w watched) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, w)
}

func (w watched) Write(e zapcore.Entry, _ []zapcore.Field) error {
	w.see(e)
	return nil
}

// listener asks the proxy where it listens.
func (p *live) listener(t *testing.T) string {
	t.Helper()
	admin := cli.NewAdmin(cli.Proxy{Admin: p.admin})
	defer admin.Close()
	body, err := admin.Get(t.Context(), "/listeners")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	_, addr, ok := strings.Cut(strings.TrimSpace(string(text)), "::")
	if !ok {
		t.Fatalf("/listeners: %s", text)
	}
	return "http://" + addr
}

// call sends requests for the paths in turn until done is closed.
func (p *live) call(t *testing.T, done <-chan struct{}, paths ...string) {
	t.Helper()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		res, err := http.Get(p.url + paths[i%len(paths)])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// during runs a command line while requests are sent.
func (p *live) during(t *testing.T, paths []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stdout, stderr, code = execute(ctx, append(args, "--admin", p.admin)...)
	}()
	p.call(t, done, paths...)
	<-done
	return stdout, stderr, code
}

// TestLive: the verbs against a proxy that serves.
func TestLive(t *testing.T) {
	t.Parallel()
	p := startLive(t)
	t.Run("tap", func(t *testing.T) {
		out, errOut, code := p.during(t, []string{"/orders/7", "/pay"}, "tap", "-o", "jsonl", "-n", "5", "--type", "request", "--to", "pay")
		if code != 0 || !strings.HasPrefix(errOut, "meshtap: 5 shown of ") {
			t.Fatalf("ended with %d: %s", code, errOut)
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != 5 {
			t.Fatalf("%d lines:\n%s", len(lines), out)
		}
		for _, l := range lines {
			var e struct {
				Subject string `json:"subject"`
				Data    struct {
					Status int    `json:"http.response.status_code"`
					Error  string `json:"error.type"`
				} `json:"data"`
			}
			if err := json.Unmarshal([]byte(l), &e); err != nil || e.Subject != "pay" || e.Data.Status != 503 || e.Data.Error == "" {
				t.Errorf("%v: %s", err, l)
			}
		}
	})
	t.Run("tap for people", func(t *testing.T) {
		for status, wants := range map[string][]string{
			"200": {"TIME ", "web → orders", "GET /orders", " 200 "},
			"404": {"TIME ", "web → -", "404 NR", "└ no_route; next: meshtap explain NR"},
		} {
			out, _, code := p.during(t, []string{"/orders/7", "/none"}, "tap", "-n", "1", "--status", status)
			for _, want := range wants {
				if code != 0 || !strings.Contains(out, want) {
					t.Errorf("ended with %d, without %q:\n%s", code, want, out)
				}
			}
		}
	})
	t.Run("stat", func(t *testing.T) {
		out, errOut, code := p.during(t, []string{"/orders/7", "/pay"}, "stat", "--window", "300ms", "-o", "json")
		if code != 0 {
			t.Fatalf("ended with %d: %s", code, errOut)
		}
		var got struct{ Services []statRow }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		rows := map[string]statRow{}
		for _, r := range got.Services {
			rows[r.Name] = r
		}
		orders, pay, web := rows["orders"], rows["pay"], rows["web"]
		if orders.Success == nil || *orders.Success != 1 || orders.RPS <= 0 || orders.P50 == nil {
			t.Errorf("orders: %+v", orders)
		}
		if pay.Success == nil || *pay.Success != 0 || pay.Circuit != "open" && pay.Circuit != "half_open" {
			t.Errorf("pay: %+v", pay)
		}
		if web.Meshed != "1/1" || web.Dropped == nil || web.EventsPerSecond == nil {
			t.Errorf("web: %+v", web)
		}
	})
	t.Run("status", func(t *testing.T) {
		out, errOut, code := execute(t.Context(), "status", "--admin", p.admin)
		if code != 0 || !strings.Contains(out, "web-1 ") || !strings.Contains(out, " static ") {
			t.Errorf("ended with %d: %s\n%s", code, errOut, out)
		}
	})
	t.Run("circuits", func(t *testing.T) {
		out, errOut, code := execute(t.Context(), "circuits", "--admin", p.admin)
		if code != 0 || !strings.Contains(out, "web-1  pay      -     ") || !strings.Contains(out, "open") {
			t.Errorf("ended with %d: %s\n%s", code, errOut, out)
		}
	})
	t.Run("what the proxy remembers", func(t *testing.T) {
		live, errOut, code := p.during(t, []string{"/pay"}, "tap", "-n", "1", "-o", "jsonl", "--type", "circuit", "--not", "--type", "lost")
		if code != 0 {
			t.Fatalf("ended with %d: %s", code, errOut)
		}
		out, errOut, code := execute(t.Context(), "tap", "-f=false", "-o", "jsonl", "--type", "circuit", "--admin", p.admin)
		if code != 0 || !strings.Contains(out, strings.TrimSpace(live)) {
			t.Errorf("ended with %d: %s\nwithout %s:\n%s", code, errOut, live, out)
		}
		if strings.Contains(out, "too_slow") {
			t.Errorf("what was forgotten before is told as missed:\n%s", out)
		}
	})
}

// stopper cancels at the first byte that is written.
type stopper struct {
	bytes.Buffer
	stop func()
}

func (s *stopper) Write(p []byte) (int, error) {
	defer s.stop()
	return s.Buffer.Write(p)
}

// TestInterrupt: an interrupt ends a verb that goes on for ever, with what it has to say.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	p := startLive(t)
	for _, args := range [][]string{{"tap", "-o", "jsonl"}, {"stat", "-w", "--window", "100ms"}} {
		ctx, cancel := context.WithCancel(t.Context())
		out, errOut := &stopper{stop: cancel}, &bytes.Buffer{}
		done := make(chan struct{})
		code := 0
		go func() {
			defer close(done)
			code = run(ctx, append(append([]string{"meshtap"}, args...), "--admin", p.admin), out, errOut)
		}()
		p.call(t, done, "/orders/1")
		if code != cli.ExitInterrupted || out.Len() == 0 {
			t.Errorf("%v ended with %d: %s", args, code, errOut)
		}
		if args[0] == "tap" && !strings.Contains(errOut.String(), " shown of ") {
			t.Errorf("tap says %q at the end", errOut)
		}
	}
}

// TestPortInUse: a port that another has is a matter of serving, not of the bootstrap.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, liveBootstrap, port, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := execute(t.Context(), "config", "validate", file); code != 0 {
		t.Errorf("config validate ended with %d: %s%s", code, out, errOut)
	}
	_, errOut, code := execute(t.Context(), "serve", "-c", file, "--log-path", os.DevNull)
	if code != cli.ExitFailure || !strings.Contains(errOut, fmt.Sprint(port)) || strings.Count(errOut, "\n") != 1 {
		t.Errorf("serve ended with %d: %s", code, errOut)
	}
}
