// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds/dump"
)

// secrets records the secrets that are put into force, and checks that none is taken away that is in use.
type secrets struct {
	mu    sync.Mutex
	byKey map[string]*mesh.Secret // guarded by mu
	// set has room for everything that a test provokes.
	set chan *mesh.Secret
}

func newSecrets() *secrets {
	return &secrets{byKey: map[string]*mesh.Secret{}, set: make(chan *mesh.Secret, 1<<16)}
}

func (p *proxy) setSecret(key string, s *mesh.Secret) {
	p.mu.Lock() // before the other one, as in inForce
	defer p.mu.Unlock()
	p.secrets.mu.Lock()
	defer p.secrets.mu.Unlock()
	if s != nil {
		p.secrets.byKey[key] = s
		p.secrets.set <- s
		return
	}
	delete(p.secrets.byKey, key)
	if p.last == nil {
		return
	}
	for name, l := range p.last.Listeners {
		for _, c := range l.Chains {
			if c.TLS != nil && len(c.TLS.CertificateSecrets) > 0 && c.TLS.CertificateSecrets[0] == key {
				p.t.Errorf("secret %q is taken away, and listener %q names it", key, name)
			}
		}
	}
}

// serial is the number of a secret that is in force, "" where it is not.
func (s *secrets) serial(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.byKey[key]; x != nil {
		return certs.Serial(certs.First(x))
	}
	return ""
}

// untilSet waits for a certificate to be put into force.
func (w *moded) untilSet(what string, p *testcert.Pair) *mesh.Secret {
	w.t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case s := <-w.proxy.secrets.set:
			if certs.First(s).Equal(p.Leaf) {
				return s
			}
		case <-timeout:
			st, err := w.m.Status(w.t.Context())
			w.t.Fatalf("%s: not in force; status %+v %v", what, st, err)
		}
	}
}

// pushSecrets makes a listener and a cluster that name secrets, and these, what the proxy is to have.
func (w *moded) pushSecrets(version string, list ...types.Resource) {
	w.t.Helper()
	src := w.source(fakexds.SecretType)
	l := fakexds.SecureListener(fakexds.Listener("L", port(100), "r"), src, "cert")
	c := fakexds.SecureCluster(fakexds.StaticCluster("a", port(0)), src, "roots")
	set := map[string][]types.Resource{
		fakexds.ClusterType: {c}, fakexds.RouteType: {fakexds.Routes("r", "a")}, fakexds.EndpointType: {},
		fakexds.ListenerType: fakexds.From(w.source(fakexds.RouteType), l), fakexds.SecretType: list,
	}
	w.pushAll(version, set)
}

// A listener and a cluster wait for their secrets, in every way that these can come; the secrets change under them, are shown
// and counted; a bad one changes nothing and is named. What is private is nowhere to be seen.
func TestSecretsByEveryWay(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zapcore.DebugLevel)
			w := startLogged(t, mode, zap.New(core))
			ca := testcert.New(t)
			one, two, other := ca.Issue(t, "one.test"), ca.Issue(t, "two.test"), ca.Issue(t, "other.test")
			roots := fakexds.Authorities("roots", ca.PEM)

			w.pushSecrets("1", fakexds.Certificate("cert", one.CertPEM, one.KeyPEM), roots)
			first := w.until("the listener and the cluster", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil && s.Clusters["a"] != nil })
			if got := w.proxy.secrets.serial(first.Listeners["L"].Chains[0].TLS.CertificateSecrets[0]); got != certs.Serial(one.Leaf) {
				t.Errorf("the listener is in force with certificate %q", got)
			}
			if got := w.proxy.secrets.serial(first.Clusters["a"].TLS.ValidationSecret); got != certs.Serial(ca.Certificate) {
				t.Errorf("the cluster is in force with authority %q", got)
			}
			w.ready()

			w.pushSecrets("2", fakexds.Certificate("cert", two.CertPEM, two.KeyPEM), roots)
			w.untilSet("the second certificate", two)
			n := w.notice(mesh.NoticeCertificateRotated)
			if c := n.Certificate; c.Secret != "cert" || c.Serial != certs.Serial(two.Leaf) || c.OldSerial != certs.Serial(one.Leaf) {
				t.Errorf("notice %+v", c)
			}
			w.pushSecrets("3", fakexds.Certificate("cert", one.CertPEM, other.KeyPEM), roots)
			r := w.notice(mesh.NoticeConfigRejected)
			if e := r.Config.Errors[0]; e.Name != "cert" || !strings.Contains(e.Reason, "tls_certificate: private key does not match public key") {
				t.Errorf("refused %+v", e)
			}
			for name, least := range map[string]int64{"update_success": 2, "update_rejected": 1} {
				w.untilCounted("sds.cert."+name, least) // a stream may send what it has sent before
			}
			w.checkShown(logs, one.KeyPEM, two.KeyPEM, other.KeyPEM)
			for s := range drained(w.proxy.applied) {
				if s.Listeners["L"] != first.Listeners["L"] || s.Clusters["a"] != first.Clusters["a"] {
					t.Error("a secret has rebuilt what names it")
				}
			}
		})
	}
}

// drained yields what a channel holds.
func drained[T any](c chan T) func(func(T) bool) {
	return func(yield func(T) bool) {
		for {
			select {
			case v := <-c:
				if !yield(v) {
					return
				}
			default:
				return
			}
		}
	}
}

// checkShown: the dump has the certificate and not the key, and neither has the log.
func (w *moded) checkShown(logs *observer.ObservedLogs, keys ...[]byte) {
	w.t.Helper()
	in, err := w.m.Dump(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := dump.Render(in, dump.Options{Redactor: dump.NewRedactor([]byte("key"))})
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(out)
	for _, want := range []string{`"dynamic_active_secrets"`, `"name": "cert"`, `"private_key"`, "W3JlZGFjdGVk", `"error_state"`, "does not match"} {
		if !strings.Contains(text, want) {
			w.t.Errorf("the dump is without %s", want)
		}
	}
	st, err := w.m.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range logs.All() {
		text += fmt.Sprintln(e.Message, e.ContextMap())
	}
	text += fmt.Sprintf("%+v", st)
	for _, answer := range answers(w.cp) {
		text += fmt.Sprintf("%+v", answer)
	}
	for _, k := range keys {
		if line := string(bytes.Split(k, []byte("\n"))[1]); strings.Contains(text, line) {
			w.t.Error("a private key can be seen")
		}
	}
}

func answers(cp *fakexds.Server) (out []fakexds.Answer) {
	for {
		select {
		case a := <-cp.Answers():
			out = append(out, a)
		default:
			return out
		}
	}
}

func (w *moded) notice(kind mesh.NoticeKind) mesh.Notice {
	w.t.Helper()
	timeout := time.After(hang)
	for {
		select {
		case n := <-w.proxy.notices:
			if n.Kind == kind {
				return n
			}
		case <-timeout:
			w.t.Fatalf("no notice of kind %d", kind)
		}
	}
}

// untilCounted waits for a counter.
func (w *moded) untilCounted(name string, least int64) {
	w.t.Helper()
	deadline := time.Now().Add(hang)
	for {
		_, err := w.m.Status(w.t.Context()) // the loop has done with what it was at
		got, _ := counter(w.reg, name)
		if got >= least {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is %d, want %d; error %v", name, got, least, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A secret that does not come holds up what names it until initial_fetch_timeout is over; the one that comes late is taken.
func TestSecretsLate(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"ADS GRPC", "ADS DELTA_GRPC"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			w.patience = 100 * time.Millisecond
			w.pushSecrets("1", fakexds.Authorities("roots", testcert.New(t).PEM))
			w.until("the listener without its secret", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
			for { // on a slow machine, others may be late as well
				if n := w.notice(mesh.NoticeConfigTimeout); n.Config.Kind == mesh.KindSecret && n.Config.Errors[0].Name == "cert" {
					break
				}
			}
			w.untilCounted("sds.cert.init_fetch_timeout", 1)
			late := testcert.New(t).Issue(t, "late.test")
			w.pushSecrets("2", fakexds.Certificate("cert", late.CertPEM, late.KeyPEM), fakexds.Authorities("roots", testcert.New(t).PEM))
			w.untilSet("the late one", late)
		})
	}
}

// The files of a secret are read again when Kubernetes turns the link of the directory, and when they are written one by one:
// while they do not fit, the old certificate stays.
func TestSecretFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS GRPC")
	ca := testcert.New(t)
	dir := filepath.Join(w.dir, "mount")
	publish := func(version string, p *testcert.Pair) {
		t.Helper()
		to := filepath.Join(dir, ".."+version)
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(to, "tls.crt"), p.CertPEM)
		put(t, filepath.Join(to, "tls.key"), p.KeyPEM)
		tmp := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(".."+version, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"tls.crt", "tls.key"} {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
	}
	publish("0", ca.Issue(t, "v0.test"))
	secret := fakexds.CertificateFiles("cert", filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), dir)
	w.pushSecrets("1", secret, fakexds.Authorities("roots", ca.PEM))
	w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil })
	for i := range 3 {
		p := ca.Issue(t, fmt.Sprintf("v%d.test", i+1))
		publish(fmt.Sprint(i+1), p)
		w.untilSet("the link was turned", p)
	}

	p := ca.Issue(t, "last.test")
	put(t, filepath.Join(dir, "..data", "tls.crt"), p.CertPEM)
	for { // while it is being written, it may be no PEM at all
		e := w.notice(mesh.NoticeConfigRejected).Config.Errors[0]
		if e.Name != "cert" {
			t.Errorf("refused %+v", e)
		}
		if strings.Contains(e.Reason, "does not match") {
			break
		}
	}
	w.untilCounted("sds.cert.key_rotation_failed", 1)
	put(t, filepath.Join(dir, "..data", "tls.key"), p.KeyPEM)
	w.untilSet("both were written", p)
}

// numPairs is how many certificates states choose from.
const numPairs = 3

// addSecrets makes the listeners of a state that have certificates name them as secrets.
func (w *moded) addSecrets(set map[string][]types.Resource, s state) {
	for len(w.pairs) < numPairs {
		w.pairs = append(w.pairs, testcert.New(w.t).Issue(w.t, "web.test"))
	}
	set[fakexds.SecretType] = []types.Resource{}
	for _, r := range set[fakexds.ListenerType] {
		l := r.(*listenerpb.Listener)
		i, secure := s.secrets[l.GetName()]
		if !secure {
			continue
		}
		name := "cert-" + l.GetName()
		fakexds.SecureListener(l, w.source(fakexds.SecretType), name)
		set[fakexds.SecretType] = append(set[fakexds.SecretType], fakexds.Certificate(name, w.pairs[i].CertPEM, w.pairs[i].KeyPEM))
	}
}

// place is that of the certificate of a secret in force among the pairs, -1 where there is none.
func (w *moded) place(key string) int {
	serial := w.proxy.secrets.serial(key)
	return slices.IndexFunc(w.pairs, func(p *testcert.Pair) bool { return certs.Serial(p.Leaf) == serial })
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a snapshot of the history names is kept as long as that, since it may be asked for again, and no longer.
func TestSecretsOfTheHistoryAreKept(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS GRPC")
	own := testcert.New(t).Issue(t, "own.test")
	w.pushSecrets("1", fakexds.Certificate("cert", own.CertPEM, own.KeyPEM), fakexds.Authorities("roots", own.CertPEM))
	w.until("the listener", func(s *mesh.Snapshot) bool { return s.Listeners["L"] != nil && s.Clusters["a"] != nil })
	gone := func() (n int) {
		for range 40 { // more than the history keeps
			n++
			s := one(n, fmt.Sprint("c", n))
			w.push(fmt.Sprint("gone", n), s)
			w.untilInForce(s)
			if w.proxy.secrets.serial("cert") == "" {
				break
			}
		}
		return n
	}()
	if gone < 2 || gone == 40 {
		t.Errorf("the secret went after %d changes", gone)
	}
}

// A file that cannot be read is told without a word of what is in it.
func TestBadFileOfSecretsIsNotQuoted(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	w := startLogged(t, "file", zap.New(core))
	w.pushSecrets("1")
	const key = "MyVeryOwnPrivateKey"
	for what, text := range map[string]string{
		"no base64":  "tls_certificate: {certificate_chain: {inline_string: x}, private_key: {inline_bytes: \"" + key + "!\"}}",
		"no message": "tls_certificate: {certificate_chain: {inline_string: x}, private_key: " + key + "}",
		"no PEM":     "tls_certificate: {certificate_chain: {inline_string: x}, private_key: {inline_string: " + key + "}}",
		"a list":     "tls_certificate: {certificate_chain: {inline_string: x}, private_key: {inline_string: [" + key + "]}}",
	} {
		before := logs.Len()
		w.put(fakexds.SecretType, []byte("version_info: \""+what+"\"\nresources:\n- \"@type\": "+fakexds.SecretType+"\n  name: cert\n  "+text+"\n"))
		w.degraded(what, "")
		for deadline := time.Now().Add(hang); logs.FilterLevelExact(zapcore.WarnLevel).Len()+logs.FilterLevelExact(zapcore.ErrorLevel).Len() == 0 || logs.Len() == before; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not told", what)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	st, err := w.m.Status(t.Context())
	text := fmt.Sprintf("%+v %v", st, err)
	for _, e := range logs.All() {
		text += fmt.Sprintln(e.Message, e.ContextMap())
	}
	if strings.Contains(text, key) {
		t.Errorf("the key is told: %s", text)
	}
}

// After the stream broke, the secrets are asked for again, and what has changed meanwhile is taken.
func TestSecretsAfterReconnect(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"ADS GRPC", "ADS DELTA_GRPC", "GRPC"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			ca := testcert.New(t)
			roots := fakexds.Authorities("roots", ca.PEM)
			one, two := ca.Issue(t, "one.test"), ca.Issue(t, "two.test")
			w.pushSecrets("1", fakexds.Certificate("cert", one.CertPEM, one.KeyPEM), roots)
			w.untilSet("the first", one)
			w.cp.Kill()
			w.pushSecrets("2", fakexds.Certificate("cert", two.CertPEM, two.KeyPEM), roots)
			w.cp.Restart()
			w.untilSet("the second", two)
		})
	}
}
