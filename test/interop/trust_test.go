// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
)

// trusting is a listener whose connection manager has more to say of trust.
func trusting(name, more string) string {
	return fmt.Sprintf(`  - name: %s
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %s
          %s
          route_config:
            internal_only_headers: [x-secret]
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: web}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, name, name, more)
}

const web = `  clusters:
  - name: web
    load_assignment:
      cluster_name: web
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8081}}}}]}]
`

// trusted are headers that mean something to a proxy, or to those behind it.
var trusted = []string{
	"x-envoy-internal: true", "x-envoy-downstream-service-cluster: c", "x-envoy-downstream-service-node: n", "x-envoy-retry-on: 5xx",
	"x-envoy-retry-grpc-on: cancelled", "x-envoy-max-retries: 2", "x-envoy-upstream-alt-stat-name: a", "x-envoy-upstream-rq-timeout-ms: 3000",
	"x-envoy-upstream-rq-per-try-timeout-ms: 2000", "x-envoy-upstream-rq-timeout-alt-response: 1", "x-envoy-expected-rq-timeout-ms: 1",
	"x-envoy-force-trace: 1", "x-envoy-ip-tags: t", "x-envoy-original-url: u",
	"x-envoy-retriable-status-codes: 404", "x-envoy-retriable-header-names: x-a", "x-envoy-decorator-operation: o",
	"x-envoy-original-path: /p", "x-envoy-original-host: h", "x-envoy-is-timeout-retry: true", "x-envoy-attempt-count: 7",
	"x-envoy-external-address: 192.0.2.1", "x-envoy-overloaded: true", "x-envoy-unknown: 1", "x-envoy-upstream-stream-duration-ms: 1000",
	"x-forwarded-client-cert: By=me", "x-forwarded-host: f", "x-forwarded-port: 7", "x-forwarded-proto: https", "x-request-id: mine",
	"x-secret: s",
}

// Who is believed what is the same in both: what the origin gets of these headers, by where a request comes from.
func TestSameTrust(t *testing.T) {
	t.Parallel()
	const internal = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}, {address_prefix: 10.0.0.0, prefix_len: 8}]}"
	const edge = "use_remote_address: true\n          skip_xff_append: true"
	text := "static_resources:\n  listeners:\n" +
		trusting("inside", "generate_request_id: true") +
		trusting("edge", edge) +
		trusting("inside-internal", internal) +
		trusting("edge-internal", edge+"\n          "+internal) +
		trusting("edge-hop", edge+"\n          xff_num_trusted_hops: 1") +
		web
	theirs, ours := examples.NewRig(t), examples.NewRig(t)
	theirs.Start(theirs.Prepare(text), envoy)
	ours.Start(ours.Prepare(text), "")
	// At the edge, contracts.md has these removed with the others that only we may say; Envoy leaves them.
	stricter := []string{"x-envoy-is-timeout-retry: true", "x-envoy-attempt-count: 7"}
	// What Meshtap's router does not know it does not take away from internal requests either.
	unknown := []string{"x-envoy-upstream-alt-stat-name: a", "x-envoy-upstream-rq-timeout-alt-response: 1", "x-envoy-upstream-stream-duration-ms: 1000"}
	for _, listener := range []string{"inside", "edge", "inside-internal", "edge-internal", "edge-hop"} {
		for _, xff := range []string{"", "10.0.0.1", "192.0.2.7", "192.0.2.7, 10.0.0.1", "nonsense"} {
			q := examples.Request{Name: listener, Listener: listener, Header: trusted}
			if xff != "" {
				q.Header = append(slices.Clone(trusted), "x-forwarded-for: "+xff)
			}
			a, b := lines(theirs.Do(q).Body), lines(ours.Do(q).Body)
			for _, line := range a {
				if !slices.Contains(b, line) && !(strings.HasPrefix(listener, "edge") && slices.Contains(stricter, line)) {
					t.Errorf("%s, x-forwarded-for %q: only Envoy sends %q", listener, xff, line)
				}
			}
			for _, line := range b {
				if !slices.Contains(a, line) && !(slices.Contains(b, "x-envoy-internal: true") && slices.Contains(unknown, line)) {
					t.Errorf("%s, x-forwarded-for %q: only Meshtap sends %q", listener, xff, line)
				}
			}
		}
	}
}

// lines returns what an origin got, with fresh request ids made the same.
func lines(body string) (out []string) {
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if id, ok := strings.CutPrefix(line, "x-request-id: "); ok && id != "mine" {
			line = "x-request-id: fresh"
		}
		out = append(out, line)
	}
	return out
}
