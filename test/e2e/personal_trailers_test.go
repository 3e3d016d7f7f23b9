// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// teller answers calls with personal data in its trailers and in what it says of a failure: behind messages, or in a head
// alone where the path is /head. It counts the requests with trailers.
type teller struct{ trailers atomic.Int64 }

func (o *teller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // trailers are behind it
	if r.Trailer.Get("x-mail") != "" {
		o.trailers.Add(1)
	}
	h := w.Header()
	h.Set("content-type", r.Header.Get("content-type"))
	prefix := ""
	if !strings.HasSuffix(r.URL.Path, "/head") {
		prefix = http.TrailerPrefix
		_ = http.NewResponseController(w).Flush() // so that the answer is in chunks
		_, _ = io.WriteString(w, "a body")
	}
	h.Set(prefix+"grpc-status", "5")
	h.Set(prefix+"grpc-message", "jane.doe@example.com has no card 4111111111111111")
	h.Set(prefix+"grpc-status-details-bin", "eyJhbGciOiJIUzI1NiJ9")
	h.Set(prefix+"x-session", "s3cr3t")
}

// Trailers of requests and of answers, in HTTP/1.1 and HTTP/2, and what gRPC says of a failure, are told nowhere (F88).
func TestNothingPersonalInTrailers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, upstream string
		shown          bool // Go's server of HTTP/2 hides trailers of which no header told before
	}{
		"HTTP/1.1 to the upstream": {"tap.yaml", "http_protocol_options: {enable_trailers: true}", true},
		"HTTP/2 to the upstream":   {"tap-spool.yaml", "http2_protocol_options: {}", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &teller{}
			r := tellTrailers(t, o, c.file, c.upstream)
			const rounds = 60
			for _, http2 := range []bool{false, true} {
				client := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
				client.Protocols.SetHTTP1(!http2)
				client.Protocols.SetUnencryptedHTTP2(http2)
				for n := range rounds {
					plant(t, client, "http://"+r.Addr("")+[]string{"/shop.v1.Payments/Pay", "/head"}[n%2], []string{"application/grpc", "text/plain"}[n/2%2])
				}
				client.CloseIdleConnections()
			}
			if got := o.trailers.Load(); got != 2*rounds && c.shown {
				t.Errorf("%d requests of %d came with their trailers", got, 2*rounds)
			}
			r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["meshtap.tap.produced"] >= rounds })
			outputs := fmt.Sprint(tellsNothing(t, r))
			if !strings.Contains(outputs, `"meshtap.grpc_status":5`) {
				t.Error("no event tells how a call ended")
			}
		})
	}
}

// tellTrailers starts a proxy on an example, whose cluster is the handler, with trailers.
func tellTrailers(t *testing.T, o http.Handler, file, upstream string) *examples.Rig {
	t.Helper()
	srv := httptest.NewUnstartedServer(o)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := examples.NewRig(t)
	text := r.Read(file)
	for old, now := range map[string]string{
		"stat_prefix: http\n": "stat_prefix: http\n          http_protocol_options: {enable_trailers: true}\n",
		"  - name: web\n": "  - name: web\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n" +
			"        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n" +
			"        explicit_http_config: {" + upstream + "}\n",
		"port_value: " + strconv.Itoa(int(r.A.Addr().Port())): "port_value: " + port,
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("%s does not have %q once", file, old)
		}
		text = strings.Replace(text, old, now, 1)
	}
	r.Start(text, "")
	if r.Bus != nil {
		r.Bus.Kill() // so that events stay on the disk
	}
	return r
}

// plant makes a call with personal data in its trailers, and looks whether the answer came with its own.
func plant(t *testing.T, client http.RoundTripper, url, contentType string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(strings.NewReader("a body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("content-type", contentType)
	req.Header.Set("te", "trailers")
	req.Trailer = http.Header{"X-Mail": {"jane.doe@example.com"}, "X-Card": {"4111111111111111"}, "X-Token": {"eyJhbGciOiJIUzI1NiJ9"}}
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	at := resp.Trailer
	if strings.HasSuffix(url, "/head") {
		at = resp.Header
	}
	if at.Get("x-session") != "s3cr3t" || !strings.Contains(at.Get("grpc-message"), "jane.doe") {
		t.Fatalf("%s: the answer came without its trailers: %v %v", url, resp.Header, resp.Trailer)
	}
}
