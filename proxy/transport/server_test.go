// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
)

// TestServerEcho sends messages of many sizes through each version, so that records are split, joined and held back.
func TestServerEcho(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			far, h := r.accept(r.server(func(m *mesh.TLSContext) { m.ALPN = []string{"h2", "http/1.1"} }), echo)
			cfg := r.trust()
			cfg.MaxVersion, cfg.NextProtos = version, []string{"http/1.1"}
			c := tls.Client(far, cfg)
			for _, n := range []int{1, 100, 16<<10 - 1, 16 << 10, 16<<10 + 1, 1 << 20, 8 << 20} {
				say(t, c, bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n])
			}
			r.wait("the handshake", h.shaken)
			if i := h.info; i.Version != name || i.ALPN != "http/1.1" || i.ServerName != "server.test" || i.Peer != nil || i.Resumed {
				t.Errorf("settled %+v", i)
			}
			c.Close()
			r.wait("the end", h.done)
			if r.count("handshake") != 1 || r.count("versions."+name) != 1 || r.count("no_certificate") != 1 ||
				r.count("ciphers."+h.info.Cipher) != 1 || r.count("curves."+h.info.Group) != 1 || r.count("connection_error") != 0 {
				t.Errorf("not counted: %+v", h.info)
			}
		})
	}
}

func TestServerResumes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*rig, *mesh.TLSContext)
		want   bool
	}{
		{"by default", func(*rig, *mesh.TLSContext) {}, true},
		{"not without tickets", func(_ *rig, m *mesh.TLSContext) { m.NoTickets = true }, false},
		{"not where clients show certificates", func(r *rig, m *mesh.TLSContext) { m.Validation = r.roots() }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			s := r.server(func(m *mesh.TLSContext) { tc.change(r, m) })
			cfg := r.trust()
			cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for i := range 2 {
				far, h := r.accept(s, echo)
				c := tls.Client(far, cfg)
				say(t, c, []byte("hello"))
				c.Close()
				r.wait("the end", h.done)
				if want := tc.want && i == 1; h.info.Resumed != want {
					t.Errorf("connection %d: resumed %v, want %v", i, h.info.Resumed, want)
				}
			}
		})
	}
}

// TestServerClientCertificates: who shows none, or one that is not good, never gets in where one is required.
func TestServerClientCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := testcert.New(t)
	id := testcert.URI("spiffe://mesh/ns/a/sa/b")
	spiffe := mesh.SANMatch{Type: mesh.SANURI, Match: mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "spiffe://mesh/ns/a/"}}
	for _, tc := range []struct {
		name     string
		shown    *testcert.Pair
		optional bool
		sans     []mesh.SANMatch
		want     string // the reason of the failure
		counter  string
	}{
		{name: "good", shown: r.ca.Issue(t, "client.test", id)},
		{name: "good with a name", shown: r.ca.Issue(t, "client.test", id), sans: []mesh.SANMatch{spiffe}},
		{name: "none, optional", optional: true},
		{name: "none", want: "did not return a certificate", counter: "fail_verify_no_cert"},
		{name: "of another authority", shown: other.Issue(t, "client.test"), want: "unknown authority", counter: "fail_verify_error"},
		{name: "of another authority, optional", shown: other.Issue(t, "client.test"), optional: true, want: "unknown authority",
			counter: "fail_verify_error"},
		{name: "expired", shown: r.ca.Issue(t, "client.test", testcert.Expired), want: "expired", counter: "fail_verify_error"},
		{name: "for servers", shown: r.ca.Issue(t, "client.test", testcert.ForServers), want: "not for this use",
			counter: "fail_verify_error"},
		{name: "another name", shown: r.ca.Issue(t, "client.test", testcert.URI("spiffe://mesh/ns/b/sa/b")),
			sans: []mesh.SANMatch{spiffe}, want: "SAN matcher", counter: "fail_verify_san"},
	} {
		for version, v := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
			t.Run(tc.name+" "+version, func(t *testing.T) {
				t.Parallel()
				sub := newRig(t)
				sub.ca = r.ca
				s := sub.server(func(m *mesh.TLSContext) {
					m.Validation, m.RequireClientCertificate = sub.roots(), !tc.optional
					m.Validation.SANs = tc.sans
				})
				far, h := sub.accept(s, echo)
				cfg := sub.trust()
				cfg.MaxVersion = v
				if tc.shown != nil {
					cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.shown.Certificate, nil }
				}
				c := tls.Client(far, cfg)
				if tc.want != "" {
					// With TLS 1.3 the client's handshake is over before its certificate is looked at.
					c.Write([]byte("let me in"))
					if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
						t.Errorf("the client read %d bytes, %v", n, err)
					}
					sub.wait("the end", h.done)
					if h.err == nil || !strings.Contains(h.err.Reason, tc.want) || sub.count(tc.counter) != 1 || sub.count("handshake") != 0 {
						t.Errorf("failed for %v, want %s; %s is %d", h.err, tc.want, tc.counter, sub.count(tc.counter))
					}
					return
				}
				say(t, c, []byte("let me in"))
				sub.wait("the handshake", h.shaken)
				if shown := h.info.Peer != nil; shown != (tc.shown != nil) {
					t.Errorf("a certificate was shown: %v", shown)
				}
			})
		}
	}
}

// TestNewServerRefuses what cannot be honoured, instead of being weaker.
func TestNewServerRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	own := []*mesh.TLSCertificate{meshCert(r.ca.Issue(t, "server.test"))}
	for name, m := range map[string]*mesh.TLSContext{
		"no certificate":              {},
		"clients without authorities": {Certificates: own, RequireClientCertificate: true},
		"no roots":                    {Certificates: own, Validation: &mesh.TLSValidation{}},
		"no version":                  {Certificates: own, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12},
	} {
		if _, err := NewServer(m, nil, r.stats); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestServerALPN: a client whose protocols are all unknown here is refused (RFC 7301 3.2); one that offers none is not.
func TestServerALPN(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.server(func(m *mesh.TLSContext) { m.ALPN = []string{"h2"} })
	far, h := r.accept(s, echo)
	cfg := r.trust()
	cfg.NextProtos = []string{"spdy/1"}
	if err := tls.Client(far, cfg).Handshake(); err == nil {
		t.Error("a client that offers another protocol got in")
	}
	r.wait("the end", h.done)
	far, h = r.accept(s, echo)
	c := tls.Client(far, r.trust())
	say(t, c, []byte("hello"))
	r.wait("the handshake", h.shaken)
	if h.info.ALPN != "" {
		t.Errorf("settled %q", h.info.ALPN)
	}
}

// TestServerVersionsAndSuites: what the configuration leaves out is not spoken.
func TestServerVersionsAndSuites(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		server mesh.TLSContext
		client func(*tls.Config)
		want   func(*mesh.TLSInfo) bool // nil: no handshake
	}{
		{"1.3 only", mesh.TLSContext{MinVersion: tls.VersionTLS13}, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil},
		{"1.2 only", mesh.TLSContext{MaxVersion: tls.VersionTLS12}, func(*tls.Config) {}, func(i *mesh.TLSInfo) bool { return i.Version == "TLSv1.2" }},
		{"never 1.1", mesh.TLSContext{}, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, nil},
		{"one suite", mesh.TLSContext{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}},
			func(*tls.Config) {}, func(i *mesh.TLSInfo) bool { return i.Cipher == "ECDHE-ECDSA-AES256-GCM-SHA384" }},
		{"one group", mesh.TLSContext{Groups: []uint16{uint16(tls.CurveP384)}}, func(*tls.Config) {},
			func(i *mesh.TLSInfo) bool { return i.Group == "P-384" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			m := tc.server
			m.Certificates = []*mesh.TLSCertificate{meshCert(r.ca.Issue(t, "server.test"))}
			s, err := NewServer(&m, nil, r.stats)
			if err != nil {
				t.Fatal(err)
			}
			far, h := r.accept(s, echo)
			cfg := r.trust()
			tc.client(cfg)
			err = tls.Client(far, cfg).Handshake()
			r.wait("the handshake", h.shaken)
			if (err == nil) != (tc.want != nil) || (h.err == nil) != (tc.want != nil) {
				t.Fatalf("client %v, server %v", err, h.err)
			}
			if tc.want != nil && !tc.want(h.info) {
				t.Errorf("settled %+v", h.info)
			}
		})
	}
}
