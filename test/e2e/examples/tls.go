// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// certificates makes what stands in an example's files.
func (r *Rig) certificates() {
	r.T.Helper()
	if r.Certificates != nil {
		return // several files name them
	}
	dir := filepath.Join(r.Files, filepath.Base(testcert.ExampleDir))
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.T.Fatal(err)
	}
	r.Certificates = testcert.WriteExample(r.T, dir)
	r.Roots.AddCert(r.Certificates.Authority.Certificate)
}

// https serves the origin a behind TLS, to clients with a certificate.
func (r *Rig) https(name string) int {
	r.T.Helper()
	cfg := &tls.Config{
		Certificates: []tls.Certificate{r.Certificates.Authority.Issue(r.T, name).Certificate},
		ClientCAs:    r.Certificates.Authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		r.T.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.join(c) })
		}
	})
	r.T.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).Port
}

// join connects c with the origin a until one of them ends.
func (r *Rig) join(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(sidecar.Hang))
	o, err := net.Dial("tcp", r.A.Addr().String())
	if err != nil {
		return
	}
	defer o.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(o, c) // the other direction tells
		o.Close()
	})
	_, _ = io.Copy(c, o)
	c.Close()
	wg.Wait()
}

func secureRequests() []Request {
	return []Request{
		{
			Name: "over TLS", Listener: "https", Secure: true, Host: "web.example", Path: "/x",
			Want: Want{Status: 200, Line: "a GET /x web.example", Got: []string{"x-forwarded-proto: https"}},
		},
		{
			Name: "plain where TLS is required", Listener: "https", Host: "web.example", Path: "/x",
			Want: Want{Status: 301, Header: []string{"location: https://web.example/x"}},
		},
		{
			Name: "a client's word for it does not count", Listener: "https", Host: "web.example", Header: []string{"x-forwarded-proto: https"},
			Want: Want{Status: 301},
		},
		{
			Name: "a large body both ways", Listener: "https", Secure: true, Host: "web.example", Method: "POST", Body: string(make([]byte, 200_000)),
			Want: Want{Status: 200, Line: "a POST / web.example", Got: []string{"content-length: 200000"}},
		},
	}
}

// mutual: only who shows a certificate of the right name comes through.
func mutual(t *testing.T, r *Rig) {
	dial := func(p *testcert.Pair) *tls.Conn {
		cfg := &tls.Config{RootCAs: r.Roots, ServerName: "web.example"}
		if p != nil {
			cfg.Certificates = []tls.Certificate{p.Certificate}
		}
		return tls.Client(r.Dial("mutual"), cfg)
	}
	c := dial(r.Certificates.Client)
	if name := greeted(t, c); name != "database" {
		t.Errorf("came to %s", name)
	}
	// An end on one side is passed on to the other.
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	r.Proxy.Printed(`(?m)^mutual TLSv1\.3 spiffe://mesh\.example/ns/web/sa/client$`)
	stranger := r.Certificates.Authority.Issue(t, "client.example", testcert.URI("spiffe://mesh.example/ns/other/sa/client"))
	for name, p := range map[string]*testcert.Pair{"no certificate": nil, "another name": stranger, "another authority": testcert.New(t).Issue(t, "client.example")} {
		c := dial(p)
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
	}
	c = tls.Client(r.Dial("https"), &tls.Config{RootCAs: r.Roots, ServerName: "nobody.example"})
	if err := c.Handshake(); err == nil {
		t.Error("a name that no chain is for was let through")
	}
}

func toSecure() []Request {
	const failed = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
	return []Request{
		{Name: "to a host that is verified", Path: "/x", Want: Want{Status: 200, Line: "a GET /x localhost", Got: []string{"x-forwarded-proto: http"}}},
		{Name: "with a body", Method: "POST", Body: string(make([]byte, 200_000)), Want: Want{Status: 200, Got: []string{"content-length: 200000"}}},
		{Name: "to a host of another name", Path: "/stranger", Want: Want{Status: 503, Line: failed}},
		{Name: "to a host without TLS", Path: "/plain", Want: Want{Status: 503, Line: failed}},
	}
}

// toSecureTCP: bytes go over TLS as well, and the checks of hosts do.
func toSecureTCP(t *testing.T, r *Rig) {
	if name := greeted(t, r.Dial("tcp")); name != "one.example" {
		t.Errorf("came to %s", name)
	}
	r.settle("/checked", "a")
	r.A.Unhealthy.Store(true)
	r.Admin.Until("/ready", func(int, string) bool { return r.Do(Request{Path: "/checked"}).Status == 503 })
}
