// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

func certificate(name string, p *testcert.Pair) *mesh.Secret {
	return &mesh.Secret{Name: name, Certificate: meshCert(p)}
}

func authority(name string, a *testcert.Authority, sans ...mesh.SANMatch) *mesh.Secret {
	return &mesh.Secret{Name: name, Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{a.Certificate}, SANs: sans}}
}

// factory returns a number of the context itself.
func (r *rig) factory(name string) (n int64) {
	r.reg.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == "listener.l.server_ssl_socket_factory."+name {
			n = m.Value
		}
		return true
	})
	return n
}

// withSecrets returns a Server for a context that names secrets.
func (r *rig) withSecrets(s *Secrets, m *mesh.TLSContext) *Server {
	r.Helper()
	out, err := NewServer(m, s, r.stats)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// TestServerWaitsForSecrets: until all its secrets are there, a chain makes no handshake; then it does, and with each new
// one from the next handshake on. A secret of another type is never taken for nothing.
func TestServerWaitsForSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secrets := NewSecrets()
	s := r.withSecrets(secrets, &mesh.TLSContext{CertificateSecrets: []string{"cert"}, ValidationSecret: "roots", RequireClientCertificate: true})
	own, client := r.ca.Issue(t, "server.test"), r.ca.Issue(t, "client.test")
	shake := func() (*tls.Conn, error) {
		far, _ := r.accept(s, echo)
		cfg := r.trust()
		cfg.Certificates = []tls.Certificate{client.Certificate}
		c := tls.Client(far, cfg)
		err := c.Handshake()
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // a client's certificate is judged after its handshake
		}
		return c, err
	}
	for i, step := range []func(){
		func() {},
		func() { secrets.Set("cert", certificate("cert", own)) },
		func() { secrets.Set("roots", certificate("roots", own)) },
	} {
		step()
		if _, err := shake(); err == nil {
			t.Errorf("step %d: a handshake without all secrets", i)
		}
	}
	if why := s.Unready(); why == nil || !strings.HasPrefix(s.Refuse(0, why).Reason, "TLS_error: ") {
		t.Errorf("ready with a secret of another type: %v", why)
	}
	if n := r.factory("downstream_context_secrets_not_ready"); n != 2 {
		t.Errorf("%d connections were closed for want of secrets, want 2", n)
	}
	secrets.Set("roots", authority("roots", r.ca))
	first, err := shake()
	if err != nil || s.Unready() != nil {
		t.Fatal(err)
	}
	next := r.ca.Issue(t, "server.test")
	secrets.Set("cert", certificate("cert", next))
	second, err := shake()
	if err != nil || !second.ConnectionState().PeerCertificates[0].Equal(next.Leaf) {
		t.Errorf("after the rotation: %v", err)
	}
	if _, err := first.Write([]byte("still here")); err != nil {
		t.Error(err)
	}
	secrets.Set("roots", authority("roots", testcert.New(t)))
	if _, err := shake(); err == nil {
		t.Error("a client of an authority that is not good any more")
	}
	if n := r.factory("ssl_context_update_by_sds"); n != 3 {
		t.Errorf("%d updates, want 3", n)
	}
}

// TestClientWaitsForSecrets: a cluster that is to verify its hosts by a secret never trusts anyone without it.
func TestClientWaitsForSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secrets := NewSecrets()
	cl, err := NewClient(&mesh.TLSContext{
		SNI: "server.test", ValidationSecret: "roots",
		Validation: &mesh.TLSValidation{SANs: []mesh.SANMatch{{Type: mesh.SANDNS, Match: mesh.StringMatch{Value: "server.test"}}}},
	}, secrets, r.stats)
	if err != nil {
		t.Fatal(err)
	}
	addr := r.upstream(&tls.Config{}, echoBack)
	dial := func(cl *Client) error {
		p, err := r.dial(cl, addr)
		if err == nil {
			p.Close()
		}
		return err
	}
	for _, cl := range []*Client{cl, cl.WithALPN([]string{"h2"})} {
		if err := dial(cl); err == nil || !strings.Contains(err.Error(), "Secret is not supplied by SDS") {
			t.Errorf("without the secret: %v", err)
		}
	}
	secrets.Set("roots", authority("roots", testcert.New(t)))
	if err := dial(cl); err == nil {
		t.Error("an unknown authority is good")
	}
	secrets.Set("roots", authority("roots", r.ca))
	if err := dial(cl); err != nil {
		t.Error(err)
	}
	secrets.Set("roots", authority("roots", r.ca, mesh.SANMatch{Type: mesh.SANURI, Match: mesh.StringMatch{Value: "spiffe://mesh"}}))
	if err := dial(cl); err != nil {
		t.Errorf("the names beside the secret's do not count: %v", err)
	}
	// What nothing names any more is forgotten; who is on the way out keeps it.
	secrets.Set("roots", nil)
	if err := dial(cl); err != nil || len(secrets.InForce()) != 0 {
		t.Errorf("%v, in force %v", err, secrets.InForce())
	}
}

// TestRotation is F17: while a certificate changes again and again, each handshake shows one that was in force between its
// begin and its end, and none fails.
func TestRotation(t *testing.T) {
	t.Parallel()
	const clients, rotations, each = 4, 40, 5
	r := newRig(t)
	secrets := NewSecrets()
	pairs := make([]*mesh.Secret, rotations)
	for i := range pairs {
		p := r.ca.Issue(t, "server.test", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i + 1)) })
		pairs[i] = certificate("cert", p)
	}
	// begun and done bracket each change: at no time is one in force that is before done or after begun.
	var begun, done atomic.Int64
	rotate := func(i int64) {
		begun.Store(i)
		secrets.Set("cert", pairs[i-1])
		done.Store(i)
	}
	rotate(1)
	s := r.withSecrets(secrets, &mesh.TLSContext{CertificateSecrets: []string{"cert"}})
	made := make(chan struct{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				oldest := done.Load()
				far, _ := r.accept(s, func(*socket.Worker, *socket.Conn) bool { return false })
				c := tls.Client(far, r.trust())
				err := c.Handshake()
				newest := begun.Load()
				if err != nil {
					t.Errorf("a handshake failed: %v", err)
				} else if got := c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got < oldest || got > newest {
					t.Errorf("certificate %d was shown between %d and %d", got, oldest, newest)
				}
				select {
				case made <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for i := int64(2); i <= rotations; i++ {
		for range each {
			<-made
		}
		rotate(i)
	}
	close(stop)
	wg.Wait()
	if n := r.count("handshake"); n < rotations {
		t.Errorf("%d handshakes", n)
	}
}

// TestConfigDoesNotAllocate: a context without secrets costs a handshake nothing, and neither does one whose secrets stay.
func TestConfigDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	secrets := NewSecrets()
	secrets.Set("cert", certificate("cert", r.ca.Issue(t, "server.test")))
	for _, s := range []*Server{r.server(nil), r.withSecrets(secrets, &mesh.TLSContext{CertificateSecrets: []string{"cert"}})} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := s.tls.config(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
