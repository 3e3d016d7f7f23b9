// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// ofChain is a bootstrap with a listener whose chain's end comes from a file.
const ofChain = `
node: {id: one, cluster: tests}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: end
        config_discovery:
          config_source: {path_config_source: {path: %s/end.yaml}}
          type_urls: [type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager]
`

// end is a connection manager that takes its routes from a file of their own, and its router from the file that it is in itself.
func end(dir, table string) string {
	return fmt.Sprintf(`version_info: %[2]s
resources:
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: end
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: http
    rds: {route_config_name: %[2]s, config_source: {path_config_source: {path: %[1]s/%[2]s.yaml}}}
    http_filters:
    - name: router
      config_discovery:
        config_source: {path_config_source: {path: %[1]s/end.yaml}}
        type_urls: [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router]
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: router
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, dir, table)
}

// routes are a table that answers with its name.
func routes(table string) string {
	return fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: %[1]s
  virtual_hosts:
  - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: %[1]s}}}]}
`, table)
}

// TestChainEndChangesUnderLoad: a listener begins with the connection manager that comes by itself, its routes and its router. It is
// changed again and again, each time with another table, while connections that last and new ones bring requests: new connections see
// each change, the others keep what they have, and no request fails.
func TestChainEndChangesUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, ".tmp")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	write("t0", routes("t0"))
	write("end", end(dir, "t0"))
	a, _, err := build(t, fmt.Sprintf(ofChain, dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-a.manager.Ready()
	url := "http://" + a.server.Listeners()[0].Bound.String()
	ask := func(c *http.Client) string {
		res, err := c.Get(url)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Errorf("%d %s, error %v", res.StatusCode, body, err)
		}
		return string(body)
	}
	first := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	if got := ask(first); got != "t0" {
		t.Errorf("at first %q", got)
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range 4 {
		load.Go(func() {
			c := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DisableKeepAlives: i%2 == 0}}
			defer c.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
					ask(c)
				}
			}
		})
	}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i := 1; i <= 5 && !t.Failed(); i++ {
		table := fmt.Sprint("t", i)
		write(table, routes(table))
		write("end", end(dir, table))
		for deadline := time.Now().Add(30 * time.Second); ask(fresh) != table; {
			if time.Now().After(deadline) {
				t.Fatalf("new connections do not see %s", table)
			}
		}
		if got := ask(first); got != "t0" {
			t.Errorf("the first connection has %q", got)
		}
	}
	close(stop)
	load.Wait()
	first.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
