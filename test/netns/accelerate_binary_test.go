// SPDX-License-Identifier: Apache-2.0

//go:build netns

package netns_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/netns"
)

// echo is a proxy in front of one server, all in one namespace.
const echo = `admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]
`

// accelerated runs the built proxy with --accelerate in a namespace, with a server behind it.
func accelerated(t *testing.T, uid int, how string) (p *sidecar.Proxy, admin *sidecar.Admin, client *http.Client, ns *netns.Namespace) {
	t.Helper()
	ns = netns.New(t, "pod")
	app := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "app")
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})}
	l := listen(t, ns, "127.0.0.1:8080")
	done := make(chan struct{})
	go func() { defer close(done); app.Serve(l) }()
	t.Cleanup(func() { app.Close(); <-done })
	p = sidecar.Run(t, sidecar.Options{Bootstrap: echo, Args: []string{"--accelerate=" + how}, Start: func(c *exec.Cmd) error {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		return ns.Do(c.Start)
	}})
	p.Ready()
	transport := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return dialAs(ns, 0, addr) }}
	t.Cleanup(transport.CloseIdleConnections)
	return p, p.AdminAt("127.0.0.1:9901", transport), &http.Client{Transport: transport, Timeout: hang}, ns
}

// ask makes a request and wants its answer.
func ask(t *testing.T, c *http.Client, body []byte) {
	t.Helper()
	var resp *http.Response
	var err error
	want := []byte("app")
	if body == nil {
		resp, err = c.Get("http://127.0.0.1:8000/x")
	} else {
		want = body
		resp, err = c.Post("http://127.0.0.1:8000/x", "application/octet-stream", bytes.NewReader(body))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, want) {
		t.Fatalf("%d, %d bytes of %d, %v", resp.StatusCode, len(got), len(want), err)
	}
}

// The whole proxy serves as ever with its connections spliced: kept, closed, reset, with small and large bodies.
func TestAccelerateInTheBinary(t *testing.T) {
	cg := netns.NewCgroup(t)
	cg.Enter()
	p, admin, client, ns := accelerated(t, 0, "sockmap")
	if said := regexp.MustCompile(`"--accelerate has no effect.*newer.*`).FindString(p.Log()); said != "" {
		t.Skip(said)
	}
	p.Logged(regexp.QuoteMeta(`local connections are spliced in the kernel`))
	for range 50 {
		ask(t, client, nil)
	}
	for _, n := range []int{1, 4 << 10, 64 << 10, 300 << 10, 4 << 20} {
		body := make([]byte, n)
		fillFrom(body, uint64(n), 0)
		ask(t, client, body)
		ask(t, client, nil)
	}
	s := admin.Stats()
	if s["meshtap.accelerate.on"] != 1 || s["meshtap.accelerate.spliced_messages"] < 4*50 || s["meshtap.accelerate.full"] != 0 {
		t.Errorf("on %d, entered %d, %d messages spliced", s["meshtap.accelerate.on"], s["meshtap.accelerate.entered"], s["meshtap.accelerate.spliced_messages"])
	}
	// A client that goes away in the middle of its request, in order and with a reset.
	for _, linger := range []int{-1, 0} {
		c := dial(t, ns, 0, "127.0.0.1:8000").(*net.TCPConn)
		fmt.Fprint(c, "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nhalf of it")
		c.SetLinger(linger)
		c.Close()
		ask(t, client, nil)
	}
	// A client that has said all it has to say.
	c := dial(t, ns, 0, "127.0.0.1:8000").(*net.TCPConn)
	fmt.Fprint(c, "GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(answer), "app") {
		t.Errorf("a half-closed client got %q, %v", answer, err)
	}
	admin.UntilStats(func(s sidecar.Stats) bool { return s["http.in.downstream_rq_active"] == 0 })
	client.CloseIdleConnections()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if out, err := exec.Command("cat", "/proc/self/cgroup").Output(); err != nil || !strings.Contains(string(out), "meshtap-test-") {
		t.Fatalf("this test is not in its cgroup: %s, %v", out, err)
	}
}

// Where it cannot be had, one line says what is missing and what to do, and everything is served by plain TCP.
func TestAccelerateFallsBack(t *testing.T) {
	cg, other := netns.NewCgroup(t), netns.NewCgroup(t)
	cg.Enter()
	for _, tc := range []struct {
		name, how   string
		uid         int
		missing, do string
	}{
		{"no such folder", "sockmap:/no/such", 0, "the cgroup2 folder", "--accelerate=sockmap:/sys/fs/cgroup/NAME"},
		{"not a cgroup", "sockmap:/proc", 0, "the cgroup2 folder", "--accelerate=sockmap:/sys/fs/cgroup/NAME"},
		{"another's cgroup", "sockmap:" + other.Dir, 0, "this process in the cgroup " + other.Dir, "that it is in or below"},
		{"no rights", "sockmap", proxyUser, "the right to load and attach BPF programs", "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, admin, client, _ := accelerated(t, tc.uid, tc.how)
			p.Logged(`"--accelerate has no effect; local connections use plain TCP","missing":"` + regexp.QuoteMeta(tc.missing) + `[^"]*","do":"[^"]*` + regexp.QuoteMeta(tc.do))
			if n := strings.Count(p.Log(), "accelerate has no effect"); n != 1 {
				t.Errorf("%d lines say so", n)
			}
			ask(t, client, nil)
			ask(t, client, make([]byte, 300<<10))
			if s := admin.Stats(); s["meshtap.accelerate.on"] != 0 || s["meshtap.accelerate.entered"] != 0 {
				t.Errorf("on %d, entered %d", s["meshtap.accelerate.on"], s["meshtap.accelerate.entered"])
			}
		})
	}
}
