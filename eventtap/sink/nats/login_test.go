// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestTLS covers who is let in by a server that wants client certificates, and which server a sink trusts.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := sink.NewAuthority(t), sink.NewAuthority(t)
	secure := startBus(t, func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSTimeout = true, true, 5
		o.TLSConfig = ca.Server(t)
	})
	plain := startBus(t, nil)
	clientCert, clientKey := ca.Issue(t)
	strangerCert, strangerKey := other.Issue(t)
	for _, c := range []struct {
		name string
		bus  *bus
		tls  *login.TLS
		must bool
		want string // of the error, "" for none
	}{
		{"both trust each other", secure, &login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: clientKey}, false, ""},
		{"the certificate's other name", secure,
			&login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: clientKey, ServerName: "localhost"}, false, ""},
		{"another name", secure,
			&login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: clientKey, ServerName: "other.test"}, false, "set tls.server_name"},
		{"no client certificate", secure, &login.TLS{CAFile: ca.File}, false, "another client certificate than none: set tls.certificate_file"},
		{"a stranger's certificate", secure, &login.TLS{CAFile: ca.File, CertificateFile: strangerCert, KeyFile: strangerKey}, false,
			"another client certificate than " + strangerCert},
		{"an authority that did not sign", secure, &login.TLS{CAFile: other.File, CertificateFile: clientCert, KeyFile: clientKey}, false,
			"not signed by an authority of " + other.File},
		{"the system's authorities", secure, nil, true, "not signed by an authority that this system trusts: set tls.ca_file"},
		{"a server without TLS", plain, nil, true, "turn it on there, or set allow_plaintext"},
		{"a server without TLS, and certificates", plain, &login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: clientKey}, false,
			"turn it on there, or set allow_plaintext"},
		{"a missing file", secure, &login.TLS{CAFile: "/none"}, false, "open /none: no such file"},
		{"a file without a certificate", secure, &login.TLS{CAFile: clientKey}, false, clientKey + " holds no certificate"},
		{"another's key", secure, &login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: strangerKey}, false,
			strangerKey + " are not a certificate and its key"},
		{"a key that others may read", secure, &login.TLS{CAFile: ca.File, CertificateFile: clientCert, KeyFile: sink.WriteFile(t, "x", 0o644)}, false,
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
		return sink.WriteFile(t, string(text), 0o600)
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
