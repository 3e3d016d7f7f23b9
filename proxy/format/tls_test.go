// SPDX-License-Identifier: Apache-2.0

package format

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// secure is the outcome of a request of a client with a certificate, and of one whose handshake failed.
func secure(o mesh.Outcome) *mesh.Outcome {
	o.TLS = &mesh.TLSInfo{
		Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519", Peer: &x509.Certificate{
			Raw: []byte("raw"), SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "a\nb"}, Issuer: pkix.Name{CommonName: "root"},
			DNSNames: []string{"a.test", "b.test"}, EmailAddresses: []string{"me@a.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "mesh", Path: "/a"}},
		},
	}
	o.DownstreamTransportFailure = "TLS_error: it failed"
	return &o
}

func TestTLSOperators(t *testing.T) {
	t.Parallel()
	const all = "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_TLS_GROUP% %DOWNSTREAM_PEER_SUBJECT% " +
		"%DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_URI_SAN% " +
		"%DOWNSTREAM_PEER_IP_SAN% %DOWNSTREAM_PEER_EMAIL_SAN% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%"
	for _, tc := range []struct {
		name string
		o    *mesh.Outcome
		want string
	}{
		{"a certificate", secure(mesh.Outcome{}), "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519 CN=a_b CN=root 0abc a.test,b.test " +
			"spiffe://mesh/a 127.0.0.1 me@a.test TLS_error:_it_failed"},
		{"none", &mesh.Outcome{TLS: &mesh.TLSInfo{Version: "TLSv1.2"}}, "TLSv1.2 - - - - - - - - - -"},
		{"plain", &mesh.Outcome{}, "- - - - - - - - - - -"},
	} {
		if got := string(env.Append(nil, parse(t, all), tc.o, Log)); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
