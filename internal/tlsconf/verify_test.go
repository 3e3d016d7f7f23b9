// SPDX-License-Identifier: Apache-2.0

package tlsconf

import (
	"crypto/x509"
	"net"
	"net/url"
	"regexp"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

func TestNames(t *testing.T) {
	t.Parallel()
	cert := &x509.Certificate{
		DNSNames: []string{"a.test", "*.wild.test"}, EmailAddresses: []string{"me@mail.test"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1")},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "mesh", Path: "/ns/a"}},
	}
	exact := func(s string) mesh.StringMatch { return mesh.StringMatch{Value: s} }
	for _, tc := range []struct {
		name string
		kind mesh.SANType
		m    mesh.StringMatch
		want bool
	}{
		{"DNS", mesh.SANDNS, exact("a.test"), true},
		{"DNS in any case", mesh.SANDNS, exact("A.Test"), true},
		{"a wildcard", mesh.SANDNS, exact("x.wild.test"), true},
		{"a wildcard is one label", mesh.SANDNS, exact("x.y.wild.test"), false},
		{"a wildcard is not none", mesh.SANDNS, exact("wild.test"), false},
		{"a wildcard is not empty", mesh.SANDNS, exact(".wild.test"), false},
		{"DNS is no URI", mesh.SANURI, exact("a.test"), false},
		{"URI", mesh.SANURI, exact("spiffe://mesh/ns/a"), true},
		{"URI in another case", mesh.SANURI, exact("spiffe://mesh/ns/A"), false},
		{"URI, case ignored", mesh.SANURI, mesh.StringMatch{Value: "spiffe://mesh/ns/a", IgnoreCase: true}, true},
		{"URI by prefix", mesh.SANURI, mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "spiffe://mesh/"}, true},
		{"URI by suffix", mesh.SANURI, mesh.StringMatch{Kind: mesh.MatchSuffix, Value: "/a"}, true},
		{"URI by part", mesh.SANURI, mesh.StringMatch{Kind: mesh.MatchContains, Value: "ns"}, true},
		{"URI by expression", mesh.SANURI, mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile(`\Aspiffe://mesh/.*\z`)}, true},
		{"URI by another expression", mesh.SANURI, mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile(`\Aspiffe://other/.*\z`)}, false},
		{"email", mesh.SANEmail, exact("me@mail.test"), true},
		{"IP", mesh.SANIP, exact("10.0.0.1"), true},
		{"another IP", mesh.SANIP, exact("10.0.0.2"), false},
		{"any type", mesh.SANAny, exact("10.0.0.1"), true},
	} {
		v := &Verifier{sans: []mesh.SANMatch{{Match: exact("nothing")}, {Type: tc.kind, Match: tc.m}}}
		if err := v.Names(cert); (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if err := (&Verifier{}).Names(cert); err != nil {
		t.Errorf("no test: %v", err)
	}
	if err := (&Verifier{sans: []mesh.SANMatch{{Match: exact("a")}}}).Names(&x509.Certificate{}); err != ErrSAN {
		t.Errorf("no name: %v", err)
	}
}
