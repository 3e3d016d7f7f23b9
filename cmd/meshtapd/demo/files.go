// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"strings"
	"text/template"
)

// lastService is the one that calls nobody: its name is in the answer to a request that got through all.
const lastService = "payments"

// meshText is the mesh of the demo. Callers of orders have a circuit breaker: a few failures open it, and while it is open,
// the fallback answers.
const meshText = `# The mesh of the demo. What you save here goes into force at once; see docs/mesh-yaml.md.
services:
  web:
    outbound: {{.web.Outbound}}
    endpoints:
    - {address: {{.web.Inbound}}, app: {{.web.App}}}
  orders:
    outbound: {{.orders.Outbound}}
    endpoints:
    - {address: {{.orders.Inbound}}, app: {{.orders.App}}}
    policy:
      breaker:
        window: 5s
        min_volume: 10
        error_rate: 20%
        consecutive_failures: 5
        open_for: 2s
        probe_successes: 3
    routes:
    - match: {prefix: /orders}
      timeout: 2s
      fallback:
        on: [open_circuit, no_healthy_host]
        status: 200
        headers: {content-type: application/json, x-answered-by: fallback}
        body: '{"service":"fallback","note":"orders is not asked while its circuit is open"}'
  payments:
    outbound: {{.payments.Outbound}}
    endpoints:
    - {address: {{.payments.Inbound}}, app: {{.payments.App}}}
    routes:
    - match: {prefix: /orders}
      timeout: 1s
      retry: {on: [connect-failure, reset], retries: 1}
`

// bootstrapText is what a sidecar starts with: where its control plane and the event bus are. All else comes from there.
const bootstrapText = `node: {id: {{.Proxy}}, cluster: {{.Service}}}
admin:
  address: {pipe: {path: {{printf "%q" .Admin}}}}
bootstrap_extensions:
- name: meshtap.tap
  typed_config:
    "@type": type.googleapis.com/meshtap.tap.v1.Tap
    sinks:
    - name: nats
      typed_config:
        "@type": type.googleapis.com/meshtap.tap.v1.NatsSink
        urls: [{{printf "%q" .BusURL}}]
        stream: {{.Stream}}
        token_file: {{printf "%q" .TokenFile}}
{{- range .Sinks}}
    - {{.}}
{{- end}}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control-plane
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: {{printf "%q" .Control}}}}}}]}]
`

// fill fills a template in, all of whose fields must be there.
func fill(text string, v any) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, v)
	return b.String(), err
}
