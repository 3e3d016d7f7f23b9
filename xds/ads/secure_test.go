// SPDX-License-Identifier: Apache-2.0

package ads_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/internal/tlsconf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
)

// serveTLS starts a server that speaks TLS; nil speaks plain text.
func serveTLS(t *testing.T, network, address string, config *tls.Config) (*server, ads.Target) {
	t.Helper()
	if config == nil {
		return serve(t, network, address, 1)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{size: 1, headers: make(chan metadata.MD, 100)}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	discoverypb.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return s, ads.Target{Network: network, Address: l.Addr().String()}
}

// pki is an authority, and what a client that trusts it pins: one name.
type pki struct {
	authority *testcert.Authority
	client    *testcert.Pair
}

func newPKI(t *testing.T) pki {
	a := testcert.New(t)
	return pki{a, a.Issue(t, "me.example")}
}

// server returns how a control plane with a certificate speaks TLS, and asks for one.
func (p pki) server(cert *testcert.Pair) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert.Certificate}, ClientCAs: p.authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
}

// context is what a cluster of the bootstrap says.
func (p pki) context() *mesh.TLSContext {
	c := &mesh.TLSContext{SNI: "cp.example", ALPN: []string{"h2"}}
	c.Validation = &mesh.TLSValidation{SANs: []mesh.SANMatch{{Type: mesh.SANURI, Match: mesh.StringMatch{Value: "spiffe://mesh/cp"}}}}
	c.Validation.Roots = append(c.Validation.Roots, p.authority.Certificate)
	key := p.client.PrivateKey.(crypto.Signer)
	c.Certificates = []*mesh.TLSCertificate{{Chain: append(c.Validation.Roots[:0:0], p.client.Leaf), Key: key}}
	return c
}

func (p pki) secure(context.Context) (*tls.Config, error) { return tlsconf.Client(p.context()) }

func (p pki) issue(t *testing.T, uri string, changes ...testcert.Change) *testcert.Pair {
	return p.authority.Issue(t, "cp.example", append(changes, testcert.URI(uri))...)
}

// TestSecure: over TLS with a certificate each, on any network; the server name is sent, and the tokens of the moment.
func TestSecure(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, tt := range []struct{ network, address string }{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(t.TempDir(), "cp.sock")}} {
		t.Run(tt.network, func(t *testing.T) {
			t.Parallel()
			config := p.server(p.issue(t, "spiffe://mesh/cp"))
			var asked atomic.Pointer[string]
			config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				asked.Store(&h.ServerName)
				return nil, nil
			}
			s, target := serveTLS(t, tt.network, tt.address, config)
			out := run(t, ads.Config{
				Targets: []ads.Target{target}, Secure: p.secure, Metadata: []string{"x-a", "1"},
				Tokens: func() ([]string, error) { return []string{"authorization", "Bearer t"}, nil },
			})
			if r := wait[ads.Response](t, out); r.Version != "me" {
				t.Errorf("response %+v", r)
			}
			if md := <-s.headers; fmt.Sprint(md["authorization"], md["x-a"]) != "[Bearer t] [1]" {
				t.Errorf("headers %v", md)
			}
			if name := *asked.Load(); name != "cp.example" {
				t.Errorf("SNI %q", name)
			}
		})
	}
}

// TestRogue (F08): a control plane that is not the right one is refused, over either protocol, and the reason says which
// certificate it has shown. Nothing is taken from it.
func TestRogue(t *testing.T) {
	t.Parallel()
	p, other := newPKI(t), newPKI(t)
	good := p.issue(t, "spiffe://mesh/cp")
	old := p.server(good)
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	strict := p.server(good)
	strict.ClientCAs = other.authority.Pool()
	strict.MaxVersion = tls.VersionTLS12 // in 1.3 our handshake is over before it is refused, and the alert may come after a broken pipe
	http1 := p.server(good)
	http1.NextProtos = []string{"http/1.1"}
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"another name", p.server(p.issue(t, "spiffe://mesh/rogue")), `verify failed: SAN matcher; its certificate is for ["spiffe://mesh/rogue" "cp.example"], good from`},
		{"expired", p.server(p.issue(t, "spiffe://mesh/cp", testcert.Expired)), "the certificate has expired or is not valid yet; its certificate is for"},
		{"another authority", other.server(other.issue(t, "spiffe://mesh/cp")), "unknown authority; its certificate is for"},
		{"not for servers", p.server(p.issue(t, "spiffe://mesh/cp", forClients)), "the certificate is not for this use"},
		{"plain text", nil, "the other side does not speak TLS"},
		{"an old version", old, "version"},
		{"our certificate is not good there", strict, "unknown certificate authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, target := serveTLS(t, "tcp", "127.0.0.1:0", tt.config)
			out := run(t, ads.Config{Targets: []ads.Target{target}, Secure: p.secure})
			refused(t, out, tt.want)
			if len(s.headers) > 0 {
				t.Errorf("the stream has reached it: %v", <-s.headers)
			}
			polls := answering(t, tt.config)
			refused(t, run(t, ads.Config{
				Targets: []ads.Target{polls}, Secure: p.secure, MaxResponseBytes: 1000,
				Poll: &ads.Poll{Path: "/v3/discovery:clusters", Delay: time.Millisecond, Timeout: hang, Host: "cp"},
			}), tt.want)
		})
	}
	t.Run("no HTTP/2", func(t *testing.T) {
		t.Parallel()
		target := answering(t, http1)
		refused(t, run(t, ads.Config{Targets: []ads.Target{target}, Secure: p.secure}), "no application protocol")
	})
	t.Run("no files", func(t *testing.T) {
		t.Parallel()
		s, target := serve(t, "tcp", "127.0.0.1:0", 1)
		gone := func(context.Context) (*tls.Config, error) { return nil, errors.New("the file has gone") }
		refused(t, run(t, ads.Config{Targets: []ads.Target{target}, Secure: gone}), "the file has gone")
		token := func() ([]string, error) { return nil, errors.New("the token has gone") }
		refused(t, run(t, ads.Config{Targets: []ads.Target{target}, Tokens: token}), "the token has gone")
		if len(s.headers) > 0 {
			t.Error("a stream has come without its credentials")
		}
	})
}

// refused waits for the end of a try, which must not have brought anything.
func refused(t *testing.T, out <-chan ads.Event, want string) {
	t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case ev := <-out:
			switch e := ev.(type) {
			case ads.Response:
				t.Fatalf("took %+v", e)
			case ads.Disconnected:
				if e.Responded || !strings.Contains(e.Err.Error(), want) {
					t.Errorf("disconnected: %v, want %q", e.Err, want)
				}
				return
			}
		case <-timeout:
			t.Fatal("no end of the try")
		}
	}
}

// TestPollSecure: REST over TLS, with a certificate each.
func TestPollSecure(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	target := answering(t, p.server(p.issue(t, "spiffe://mesh/cp")))
	out := run(t, ads.Config{
		Targets: []ads.Target{target}, Secure: p.secure, MaxResponseBytes: 1000,
		Poll: &ads.Poll{Path: "/v3/discovery:clusters", Delay: time.Millisecond, Timeout: hang, Host: "cp"},
	})
	if r := wait[ads.Response](t, out); r.Version != "1" {
		t.Errorf("response %+v", r)
	}
}

// TestSecureAnew: each connection is made with the certificates of its time.
func TestSecureAnew(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	config := p.server(p.issue(t, "spiffe://mesh/cp"))
	config.MaxVersion = tls.VersionTLS12 // see TestRogue: in 1.3 the first try may end with a broken pipe instead
	_, target := serveTLS(t, "tcp", "127.0.0.1:0", config)
	var calls atomic.Int32
	secure := func(ctx context.Context) (*tls.Config, error) {
		c, err := p.secure(ctx)
		if calls.Add(1) == 1 {
			c.Certificates = nil // as before the certificate was there
		}
		return c, err
	}
	out := run(t, ads.Config{Targets: []ads.Target{target}, Secure: secure})
	refused(t, out, "handshake failure (alert of the other side)")
	wait[ads.Response](t, out)
}

func forClients(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// answering serves the same answer to each poll; nil is plain text.
func answering(t *testing.T, config *tls.Config) ads.Target {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, answerWith("1"))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if config == nil {
		s.Start()
	} else {
		s.TLS = config.Clone()
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return ads.Target{Network: "tcp", Address: s.Listener.Addr().String()}
}
