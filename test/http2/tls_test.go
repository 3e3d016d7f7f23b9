// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
)

// secured makes a bootstrap's listener speak TLS with the protocols alpn.
func secured(text, dir, alpn string) string {
	socket := fmt.Sprintf(`    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [%s]
            tls_certificates:
            - certificate_chain: {filename: %s}
              private_key: {filename: %s}
      filters:
`, alpn, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	return strings.Replace(text, "    - filters:\n", socket, 1)
}

// negotiated makes a bootstrap's cluster speak TLS, and what the upstream chooses.
func negotiated(text, dir string) string {
	text = strings.Replace(text, "explicit_http_config: {http2_protocol_options: {}}", "auto_config: {}", 1)
	return strings.Replace(text, "    load_assignment:\n", fmt.Sprintf(`    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: web.example
        common_tls_context: {validation_context: {trusted_ca: {filename: %s}}}
    load_assignment:
`, filepath.Join(dir, "ca.pem")), 1)
}

// H2spec's cases all pass over TLS as well.
func TestH2SpecTLS(t *testing.T) {
	dir := t.TempDir()
	testcert.WriteExample(t, dir)
	_, port := listen(t, secured(bootstrap("AUTO", origin(t), ""), dir, "h2, http/1.1"))
	out, err := peer(t, "h2spec", "--host", "127.0.0.1", "--port", port, "--tls", "--insecure", "--strict", "--timeout", "5").CombinedOutput()
	summary := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindString(string(out))
	if err != nil || !strings.Contains(summary, " 0 skipped, 0 failed") {
		t.Fatalf("%v: %s\n%s", err, summary, out)
	}
	t.Log(summary)
}

// What is spoken is negotiated on both sides: the client's protocol by ALPN, the upstream's by its choice. An upstream that
// chooses HTTP/1.1 costs one connection.
func TestNegotiation(t *testing.T) {
	dir := t.TempDir()
	certs := testcert.WriteExample(t, dir)
	for _, tc := range []struct {
		client, upstream []string
		down, up         string
	}{
		{[]string{"h2", "http/1.1"}, []string{"h2", "http/1.1"}, "HTTP/2.0", "HTTP/2.0"},
		{[]string{"http/1.1"}, []string{"h2"}, "HTTP/1.1", "HTTP/2.0"},
		{[]string{"h2"}, []string{"http/1.1"}, "HTTP/2.0", "HTTP/1.1"},
		{nil, nil, "HTTP/1.1", "HTTP/1.1"},
	} {
		t.Run(fmt.Sprintf("%v to %v", tc.client, tc.upstream), func(t *testing.T) {
			text := secured(bootstrap("AUTO", secureOrigin(t, certs, tc.upstream), ""), dir, "h2, http/1.1")
			p, port := listen(t, negotiated(text, dir))
			tr := &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: certs.Authority.Pool(), ServerName: "web.example", NextProtos: tc.client},
				Protocols:       new(http.Protocols),
			}
			tr.Protocols.SetHTTP1(len(tc.client) == 0 || tc.client[len(tc.client)-1] == "http/1.1")
			tr.Protocols.SetHTTP2(len(tc.client) > 0 && tc.client[0] == "h2")
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					resp, err := client.Post("https://"+net.JoinHostPort("127.0.0.1", port)+"/", "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					got, err := io.ReadAll(resp.Body)
					if want := tc.up + " hello"; err != nil || string(got) != want || resp.Proto != tc.down {
						t.Errorf("%v, %s, %q, want %s and %q", err, resp.Proto, got, tc.down, want)
					}
				})
			}
			wg.Wait()
			s := p.Admin().Stats()
			if tc.up == "HTTP/2.0" && s["cluster.server.upstream_cx_total"] != 1 {
				t.Errorf("%d connections for 20 requests over HTTP/2", s["cluster.server.upstream_cx_total"])
			}
			if s["cluster.server.ssl.handshake"] == 0 || s["cluster.server.upstream_cx_connect_fail"] != 0 {
				t.Errorf("%d handshakes, %d failures", s["cluster.server.ssl.handshake"], s["cluster.server.upstream_cx_connect_fail"])
			}
		})
	}
}

// secureOrigin serves TLS with these protocols and answers with its own and the request's body.
func secureOrigin(t *testing.T, certs *testcert.Example, alpn []string) (port string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Proto, body)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(len(alpn) == 0 || alpn[len(alpn)-1] == "http/1.1")
	s.Config.Protocols.SetHTTP2(len(alpn) > 0 && alpn[0] == "h2")
	s.EnableHTTP2 = len(alpn) > 0 && alpn[0] == "h2"
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certs.Authority.Issue(t, "web.example").Certificate}, NextProtos: alpn}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return port
}
