// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = file(t, block("CERTIFICATE", der), 0o644)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue returns the files of a certificate for the loopback and its key.
func (a *authority) issue(t *testing.T) (cert, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "peer"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"nats.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, block("CERTIFICATE", der), 0o644), file(t, block("PRIVATE KEY", pkcs8), 0o600)
}

// TestTLS covers who is let in by a server that wants client certificates, and which server a sink trusts.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	secure := startBus(t, func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSTimeout = true, true, 5
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	})
	plain := startBus(t, nil)
	clientCert, clientKey := ca.issue(t)
	strangerCert, strangerKey := other.issue(t)
	for _, c := range []struct {
		name string
		bus  *bus
		tls  *TLS
		must bool
		want string // of the error, "" for none
	}{
		{"both trust each other", secure, &TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: clientKey}, false, ""},
		{"the certificate's other name", secure,
			&TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: clientKey, ServerName: "nats.test"}, false, ""},
		{"another name", secure,
			&TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: clientKey, ServerName: "other.test"}, false, "set tls.server_name"},
		{"no client certificate", secure, &TLS{CAFile: ca.file}, false, "another client certificate than none: set tls.certificate_file"},
		{"a stranger's certificate", secure, &TLS{CAFile: ca.file, CertificateFile: strangerCert, KeyFile: strangerKey}, false,
			"another client certificate than " + strangerCert},
		{"an authority that did not sign", secure, &TLS{CAFile: other.file, CertificateFile: clientCert, KeyFile: clientKey}, false,
			"not signed by an authority of " + other.file},
		{"the system's authorities", secure, nil, true, "not signed by an authority that this system trusts: set tls.ca_file"},
		{"a server without TLS", plain, nil, true, "turn it on there, or set allow_plaintext"},
		{"a server without TLS, and certificates", plain, &TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: clientKey}, false,
			"turn it on there, or set allow_plaintext"},
		{"a missing file", secure, &TLS{CAFile: "/none"}, false, "open /none: no such file"},
		{"a file without a certificate", secure, &TLS{CAFile: key}, false, key + " holds no certificate"},
		{"another's key", secure, &TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: strangerKey}, false,
			strangerKey + " are not a certificate and its key"},
		{"a key that others may read", secure, &TLS{CAFile: ca.file, CertificateFile: clientCert, KeyFile: file(t, "x", 0o644)}, false,
			"has the mode 0644, at most 0640 is allowed"},
	} {
		cfg := c.bus.config()
		cfg.TLS, cfg.Secure = c.tls, c.must
		s := newSink(cfg)
		if err := s.Open(t.Context()); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCredentialsFile logs in with a JWT and a seed, at a server that knows its operator.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, account, user := newNkey(t, nkeys.CreateOperator), newNkey(t, nkeys.CreateAccount), newNkey(t, nkeys.CreateUser)
	b := startBus(t, func(o *server.Options) {
		claims := jwt.NewAccountClaims(account.public)
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
		token, err := claims.Encode(operator.pair)
		if err != nil {
			t.Fatal(err)
		}
		system := newNkey(t, nkeys.CreateAccount)
		systemToken, err := jwt.NewAccountClaims(system.public).Encode(operator.pair)
		if err != nil {
			t.Fatal(err)
		}
		resolver := &server.MemAccResolver{}
		for name, token := range map[string]string{account.public: token, system.public: systemToken} {
			if err := resolver.Store(name, token); err != nil {
				t.Fatal(err)
			}
		}
		o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operator.public}, resolver, system.public
	})
	creds := func(signer nkeys.KeyPair) string {
		claims := jwt.NewUserClaims(user.public)
		token, err := claims.Encode(signer)
		if err != nil {
			t.Fatal(err)
		}
		seed, err := user.pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.FormatUserConfig(token, seed)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, string(text), 0o600)
	}
	cfg := b.config()
	cfg.CredentialsFile = creds(newNkey(t, nkeys.CreateAccount).pair)
	if err := newSink(cfg).Open(t.Context()); err == nil {
		t.Error("a user whom another account signed was let in")
	}
	cfg.CredentialsFile = creds(account.pair)
	tap := sink.NewTap(t, eventtap.DefaultMemory, newSink(cfg))
	tap.Observe(sink.Outcome("x", 1))
	if err := tap.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.messages(t, stream, nats.UserCredentials(cfg.CredentialsFile)); len(got) != 1 {
		t.Errorf("%d messages", len(got))
	}
}

type nkey struct {
	pair   nkeys.KeyPair
	public string
}

func newNkey(t *testing.T, create func() (nkeys.KeyPair, error)) nkey {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return nkey{k, public}
}
