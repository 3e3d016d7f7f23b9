// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// cacheVariable names the folder that keeps the peers.
const cacheVariable = "MESHTAP_PEERS_CACHE"

// peers is the folder with the programs that the binary is driven with.
var peers string

func TestMain(m *testing.M) {
	if os.Getenv(attackVariable) != "" {
		os.Exit(m.Run())
	}
	dir, err := build(os.Getenv(cacheVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/http2 DID NOT RUN:", err)
		os.Exit(1)
	}
	peers = dir
	os.Exit(sidecar.Main(m))
}

func build(dir string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("set %s to a folder that may keep the peers (about 120 MB), or use `make http2`", cacheVariable)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "google.golang.org/grpc/interop/client",
		"google.golang.org/grpc/interop/server", "github.com/summerwind/h2spec/cmd/h2spec", "github.com/bojand/ghz/cmd/ghz")
	cmd.Dir = filepath.Join("..", "peers")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the peers: %w\n%s", err, out)
	}
	return dir, nil
}

// peer returns the command of a peer.
func peer(t testing.TB, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), filepath.Join(peers, name), args...)
}

// bootstrap is a proxy that speaks codec to clients, and HTTP/2 to the port of a server on loopback. route are further
// fields of the route's action.
func bootstrap(codec, port, route string) string {
	return fmt.Sprintf(`node: {id: proxy, cluster: c}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          codec_type: %s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: server, timeout: 0s%s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: server
    circuit_breakers: {thresholds: [{max_retries: 1000}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: server
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]
`, codec, route, port)
}

// listen starts the proxy and returns it with the port that it listens on.
func listen(t *testing.T, bootstrap string) (p *sidecar.Proxy, port string) {
	p = sidecar.Run(t, sidecar.Options{Bootstrap: bootstrap})
	p.Ready()
	addr := p.Admin().Listeners()["web"]
	_, port, ok := cutLast(addr, ':')
	if !ok {
		t.Fatalf("the listener is at %q", addr)
	}
	return p, port
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}
