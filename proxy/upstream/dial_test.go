// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// TestDial: a connection for a client of its own goes to a host in service, over TLS with HTTP/2 where the cluster speaks
// it, and never in plain text then.
func TestDial(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	at := s.Listener.Addr().String()
	trusts := func(c *x509.Certificate) func(*mesh.Cluster) {
		return func(m *mesh.Cluster) {
			m.ConnectTimeout = 5 * time.Second
			m.TLS = &mesh.TLSContext{Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{c}}}
		}
	}
	r := newRig(t)
	for _, c := range []struct {
		name   string
		change func(*mesh.Cluster)
		hosts  []string
		ok     bool
	}{
		{"in plain text", func(m *mesh.Cluster) { m.ConnectTimeout = 5 * time.Second }, []string{at}, true},
		{"over TLS", trusts(s.Certificate()), []string{at}, true},
		{"to whom it does not trust", trusts(&x509.Certificate{Raw: []byte("nobody")}), []string{at}, false},
		{"to nobody", func(*mesh.Cluster) {}, nil, false},
	} {
		cl := r.cluster(config(c.change), c.hosts...)
		conn, err := cl.Dial(t.Context())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		if conn.RemoteAddr().String() != at {
			t.Errorf("%s: connected to %s", c.name, conn.RemoteAddr())
		}
		secured, isTLS := conn.(*tls.Conn)
		if isTLS != (cl.Config.TLS != nil) || isTLS && secured.ConnectionState().NegotiatedProtocol != "h2" {
			t.Errorf("%s: TLS %v", c.name, isTLS)
		}
		conn.Close()
	}
	// One whose TLS cannot be made speaks to nobody.
	broken := r.cluster(config(func(m *mesh.Cluster) {
		m.TLS = &mesh.TLSContext{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}
	}), at)
	if conn, err := broken.Dial(t.Context()); err == nil {
		t.Errorf("connected to %s", conn.RemoteAddr())
	}
}
