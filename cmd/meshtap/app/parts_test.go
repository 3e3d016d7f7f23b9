// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/testcert"
)

// ofParts is a bootstrap whose tap, one filter and certificate come from files.
const ofParts = `
node: {id: one, cluster: tests}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
bootstrap_extensions:
- name: tap
  typed_config:
    "@type": type.googleapis.com/envoy.config.core.v3.ExtensionConfigSource
    config_source: {path_config_source: {path: %[1]s/ecds.yaml}}
    type_urls: [type.googleapis.com/meshtap.tap.v1.Tap]
    default_config:
      "@type": type.googleapis.com/meshtap.tap.v1.Tap
      sinks: [{name: all, typed_config: {"@type": type.googleapis.com/meshtap.tap.v1.FileSink, path: %[1]s/all.jsonl}}]
static_resources:
  listeners:
  - name: https
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [{name: web, sds_config: {path_config_source: {path: %[1]s/sds.yaml}}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hello}}}]}
          http_filters:
          - name: fault
            config_discovery:
              config_source: {path_config_source: {path: %[1]s/ecds.yaml}}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault]
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

// ecds is a file with the configurations of the tap and the filter: with another sink, and with answers in place of the
// route's.
func ecds(version string, dir string, more bool, status int) string {
	sink := `{name: %s, typed_config: {"@type": type.googleapis.com/meshtap.tap.v1.FileSink, path: %s/%[1]s.jsonl}}`
	sinks := fmt.Sprintf(sink, "all", dir)
	if more {
		sinks += ", " + fmt.Sprintf(sink, "more", dir)
	}
	fault := ""
	if status > 0 {
		fault = fmt.Sprintf(", abort: {http_status: %d, percentage: {numerator: 100}}", status)
	}
	const resource = `
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: %s
  typed_config: {"@type": type.googleapis.com/%s%s}`
	return fmt.Sprintf("version_info: %q\nresources:", version) + fmt.Sprintf(resource, "tap", "meshtap.tap.v1.Tap", ", sinks: ["+sinks+"]") +
		fmt.Sprintf(resource, "fault", "envoy.extensions.filters.http.fault.v3.HTTPFault", fault) + "\n"
}

func sds(p *testcert.Pair) string {
	return fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: web
  tls_certificate: {certificate_chain: {inline_string: %q}, private_key: {inline_string: %q}}
`, p.CertPEM, p.KeyPEM)
}

// TestPartsChangeWhileItRuns: a certificate, the configuration of a filter and that of the tap are changed under requests.
// New requests see each change, none fails by it, and no event is lost.
func TestPartsChangeWhileItRuns(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, ".tmp")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	ca := testcert.New(t)
	one, two := ca.Issue(t, "web.test"), ca.Issue(t, "web.test")
	write("sds.yaml", sds(one))
	write("ecds.yaml", ecds("1", dir, false, 418))
	a, opt, err := build(t, fmt.Sprintf(ofParts, dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-a.manager.Ready()
	url := fmt.Sprintf("https://web.test:%d/", a.server.Listeners()[0].Bound.IP.Port())
	requests := 0
	ask := func() (status int, serial string) {
		t.Helper()
		tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "web.test"}}
		tr.DialTLSContext = func(context.Context, string, string) (c net.Conn, err error) {
			return tls.Dial("tcp", a.server.Listeners()[0].Bound.String(), tr.TLSClientConfig)
		}
		res, err := (&http.Client{Transport: tr}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		requests++
		return res.StatusCode, certs.Serial(res.TLS.PeerCertificates[0])
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); <-time.After(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not in time", what)
			}
		}
	}
	if status, serial := ask(); status != 418 || serial != certs.Serial(one.Leaf) {
		t.Errorf("at first: %d, certificate %s", status, serial)
	}
	write("sds.yaml", sds(two))
	until("the second certificate", func() bool { _, serial := ask(); return serial == certs.Serial(two.Leaf) })
	write("ecds.yaml", ecds("2", dir, true, 0))
	until("the filter and the tap", func() bool {
		status, _ := ask()
		more, err := os.ReadFile(filepath.Join(dir, "more.jsonl"))
		return status == 200 && err == nil && len(more) > 0
	})
	admin, err := os.ReadFile(opt.AdminAddressPath)
	if err != nil {
		t.Fatal(err)
	}
	if text := get(t, "http://"+string(admin)+"/certs"); !bytes.Contains([]byte(text), []byte(certs.Serial(two.Leaf))) {
		t.Errorf("/certs: %s", text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	checkEvents(t, filepath.Join(dir, "all.jsonl"), requests, certs.Serial(two.Leaf))
}

// checkEvents: a sink that was there all the time has each request, and that the certificate was replaced.
func checkEvents(t *testing.T, path string, requests int, serial string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line := range bytes.Lines(b) {
		var e struct {
			Type string
			Data map[string]any
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		count[e.Type]++
		if e.Type == "io.meshtap.certificate.v1" && e.Data["meshtap.result"] == "rotated" && e.Data["meshtap.serial"] != serial {
			t.Errorf("event %s", line)
		}
	}
	// The certificates of tests end soon, which is told as well.
	if count["io.meshtap.outcome.v1"] != requests || count["io.meshtap.lost.v1"] != 0 || count["io.meshtap.certificate.v1"] < 2 {
		t.Errorf("%v after %d requests", count, requests)
	}
}
