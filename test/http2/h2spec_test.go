// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// H2spec's cases, the strict ones too, all pass over prior knowledge.
func TestH2Spec(t *testing.T) {
	p, port := listen(t, bootstrap("HTTP2", origin(t), ""))
	out, err := peer(t, "h2spec", "--host", "127.0.0.1", "--port", port, "--strict", "--timeout", "5").CombinedOutput()
	summary := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindString(string(out))
	if err != nil || summary == "" || !strings.Contains(summary, " 0 skipped, 0 failed") {
		t.Fatalf("%v: %s\n%s", err, summary, out)
	}
	t.Log(summary)
	if s := p.Admin().Stats(); s["http.web.downstream_cx_http2_total"] < 100 {
		t.Errorf("only %d connections spoke HTTP/2", s["http.web.downstream_cx_http2_total"])
	}
}

// origin starts a server of HTTP/2 with prior knowledge that answers when it has a request to its end.
func origin(t testing.TB) (port string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "here\n")
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	_, port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return port
}

// free returns a port that nobody listens on.
func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
