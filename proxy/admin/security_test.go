// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/metrics"
)

var changing = []string{"/logging?level=debug", "/reset_counters", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok",
	"/reopen_logs", "/quitquitquit", "/runtime_modify?a=b", "/config_rollback?version=1", "/config_release"}

func TestChangesNeedPOST(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, c := start(t, admin.Config{}, f.views(), registry())
	for _, path := range changing {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "X"} {
			res, _ := c.do(t, method, path, "X-HTTP-Method-Override", "POST")
			if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
				t.Errorf("%s %s: %s, Allow %q", method, path, res.Status, res.Header.Get("Allow"))
			}
		}
	}
	if done := f.changes(); done != "" {
		t.Errorf("changed all the same: %s", done)
	}
}

func TestChangesNeedALocalCaller(t *testing.T) {
	t.Parallel()
	refused := [][]string{
		{"Origin", "http://localhost"}, {"Origin", "null"}, {"Origin", ""},
		{"Host", "evil.example"}, {"Host", "evil.example:80"}, {"Host", "localhost.evil.example"}, {"Host", "10.0.0.1"},
		{"Host", "127.0.0.1.nip.io"}, {"Host", "0.0.0.0"}, {"Host", "[::]"}, {"Host", "[fe80::1%25eth0]"}, {"Host", "localhost@evil.example"},
	}
	f := &fake{}
	_, c := start(t, admin.Config{}, f.views(), registry())
	for _, path := range changing {
		for _, h := range refused {
			if res, _ := c.do(t, "POST", path, h...); res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusBadRequest {
				t.Errorf("POST %s with %v: %s", path, h, res.Status)
			}
		}
	}
	if done := f.changes(); done != "" {
		t.Fatalf("changed all the same: %s", done)
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:15000", "[::1]:15000", "[::ffff:127.0.0.1]"} {
		if res, body := c.do(t, "POST", "/healthcheck/ok", "Host", host); res.StatusCode != http.StatusOK {
			t.Errorf("Host %s: %s %s", host, res.Status, body)
		}
	}
	// Reading is free: Prometheus scrapes through a listener, with the pod's address as Host.
	if res, _ := c.do(t, "GET", "/stats/prometheus", "Host", "10.0.0.1:15090"); res.StatusCode != http.StatusOK {
		t.Errorf("a scrape for another Host: %s", res.Status)
	}
}

func TestUnixSocketTakesAnyHost(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, c := start(t, admin.Config{Address: socketPath(t)}, f.views(), registry())
	if res, _ := c.do(t, "POST", "/quitquitquit", "Host", "anything"); res.StatusCode != http.StatusOK || f.changes() != "quit" {
		t.Errorf("POST /quitquitquit over a unix socket: %s", res.Status)
	}
	if res, _ := c.do(t, "POST", "/quitquitquit", "Origin", "http://x"); res.StatusCode != http.StatusForbidden || f.changes() != "" {
		t.Errorf("with an Origin: %s", res.Status)
	}
}

// TestRawRequests sends what no HTTP library would.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, c := start(t, admin.Config{}, f.views(), registry())
	const end = "Connection: close\r\n\r\n"
	for name, tc := range map[string]struct{ request, status string }{
		"absolute form":        {"POST http://evil.example/quitquitquit HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"absolute form local":  {"GET http://localhost/ready HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"asterisk":             {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"two hosts":            {"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n" + end, "400 "},
		"no host":              {"POST /quitquitquit HTTP/1.1\r\n" + end, "400 "},
		"HTTP/1.0":             {"GET /ready HTTP/1.0\r\nHost: localhost\r\n" + end, "426 "},
		"HTTP/1.0 keep-alive":  {"POST /quitquitquit HTTP/1.0\r\nConnection: close\r\n\r\n", "426 "},
		"large body":           {"POST /logging HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n" + end + strings.Repeat("x", 5000), "413 "},
		"large head":           {"GET /ready HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("x", 20000) + "\r\n" + end, "431 "},
		"not HTTP":             {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400 "},
		"control bytes":        {"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n" + end, "4"},
		"long query":           {"GET /stats?filter=" + strings.Repeat("a", 5000) + " HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"long regexp":          {"GET /stats?filter=" + strings.Repeat("a", 1500) + " HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"many parameters":      {"GET /stats?" + strings.Repeat("a&", 40) + " HTTP/1.1\r\nHost: localhost\r\n" + end, "400 "},
		"parameters in a form": {"POST /drain_listeners HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\n" + end + "graceful", "200 "},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.raw(t, tc.request); !strings.HasPrefix(got, "HTTP/1.1 "+tc.status) {
				t.Errorf("%.200q, want status %s", got, tc.status)
			}
		})
	}
	if done := f.changes(); done != "drain+graceful" {
		t.Errorf("did %q, want drain+graceful alone", done)
	}
}

// TestOutputIsClean shows names that hold everything that could be misused, and looks at every answer.
func TestOutputIsClean(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b[31m\r\nforged: 1\x00\x7f\u009b\u202e\u2066\u2028\xff<script>alert(1)</script>\"'"
	reg := stats.NewRegistry(stats.Options{})
	c := metrics.NewCluster(reg, evil)
	c.Code(0, metrics.UpstreamRqCode, 200)
	c.Observe(0, metrics.UpstreamRqTime, 1e6)
	setText(reg, "control_plane", "identifier", evil)

	f := &fake{state: admin.Initializing, waiting: []string{evil}, loggers: []admin.Logger{{Name: evil, Level: "info"}},
		clusters: []*admin.Cluster{{Name: evil, StatName: evil, Hosts: []admin.Host{{Address: mesh.Address{Pipe: evil}, Hostname: evil,
			Locality: mesh.Locality{Region: evil, Zone: evil, SubZone: evil}}}}}}
	f.dump = func(w io.Writer) error {
		for i := range len(evil) { // cut runes apart
			if _, err := io.WriteString(w, evil[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	f.follow = func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, evil)
		return err
	}
	v := f.views()
	v.Listeners = func() []admin.Listener {
		return []admin.Listener{{Name: evil, Addresses: []mesh.Address{{Pipe: evil}}}}
	}
	v.InitDump = func() []admin.Unready { return []admin.Unready{{Name: evil, Targets: []string{evil}}} }
	v.Runtime = func() *admin.Runtime { return &admin.Runtime{Layers: []string{evil}} }
	v.Circuits = func() []admin.Circuit { return []admin.Circuit{{Cluster: evil, Host: evil, Reason: evil}} }
	v.XDS = func() *admin.XDS { return &admin.XDS{ControlPlane: evil} }
	info := serverInfo()
	info.Version, info.Node.ID, info.Options.ConfigPath = evil, evil, evil
	v.ServerInfo = func() *admin.ServerInfo { return info }
	_, client := start(t, admin.Config{}, v, reg)

	for _, path := range []string{"/", "/help", "/ready", "/server_info", "/stats", "/stats?format=json", "/stats?format=html", "/stats/prometheus?text_readouts&go",
		"/stats?format=html&filter=%22%3E%3Cscript%3E|.*|%1b",
		"/clusters", "/clusters?format=json", "/listeners", "/listeners?format=json", "/config_dump", "/init_dump", "/runtime",
		"/circuits", "/xds", "/events", "/events?format=sse", "POST /logging", "/stats?filter=%1b%5b", "/config_dump?name_regex=%1b%5b",
		"/config_dump?%1b=1", "/events?format=%1b", "/nosuch%1b"} {
		method := "GET"
		if p, ok := strings.CutPrefix(path, "POST "); ok {
			method, path = "POST", p
		}
		res, body := client.do(t, method, path)
		for _, r := range body {
			if r == utf8.RuneError && strings.HasPrefix(path, "/stats") || r != '\n' && r != '\t' && (unicode.Is(unicode.C, r) || r == '\u2028') {
				t.Errorf("%s holds %U:\n%.300q", path, r, body)
				break
			}
		}
		if strings.Contains(body, "\nforged") && path != "/config_dump" || strings.Contains(body, "\r") {
			t.Errorf("%s: a name has made a line of its own:\n%q", path, body)
		}
		if strings.Contains(body, "<script>") && strings.Contains(res.Header.Get("Content-Type"), "html") {
			t.Errorf("%s: a script in HTML", path)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, res.Header)
		}
		if ct := res.Header.Get("Content-Type"); strings.Contains(ct, "html") != (path == "/" || strings.Contains(path, "format=html")) {
			t.Errorf("%s: content type %s", path, ct)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: other origins may read", path)
		}
	}
}

func TestPanicsEndOneAnswer(t *testing.T) {
	t.Parallel()
	f := &fake{}
	v := f.views()
	v.Ready = func() (admin.State, []string) { panic("ready") }
	f.dump = func(w io.Writer) error { io.WriteString(w, strings.Repeat("x", 100_000)); panic("dump") }
	_, c := start(t, admin.Config{}, v, registry())
	if res, body := c.do(t, "GET", "/ready"); res.StatusCode != 500 || strings.Contains(body, "panic") {
		t.Errorf("a panic in a view: %s %q", res.Status, body)
	}
	res, err := c.Get(c.base + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a dump that panicked looks whole: %d bytes", len(b))
	}
	if res, _ := c.do(t, "GET", "/listeners"); res.StatusCode != 200 {
		t.Errorf("afterwards: %s", res.Status)
	}
}

// TestBrokenDump: an error in the middle must show.
func TestBrokenDump(t *testing.T) {
	t.Parallel()
	f := &fake{dump: func(w io.Writer) error {
		io.WriteString(w, strings.Repeat("x", 100_000))
		return fmt.Errorf("no more")
	}}
	_, c := start(t, admin.Config{}, f.views(), registry())
	res, err := c.Get(c.base + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a dump that broke off looks whole: %d bytes", len(b))
	}
}

// TestAbsentViews: what has no view has no endpoint.
func TestAbsentViews(t *testing.T) {
	t.Parallel()
	_, c := start(t, admin.Config{}, admin.Views{}, registry())
	for path, want := range map[string]int{"/ready": 404, "/clusters": 404, "/quitquitquit": 404, "/logging": 404, "/events": 404,
		"/stats": 200, "/memory": 200, "/help": 200} {
		if res, _ := c.do(t, "GET", path); res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
	}
}
