// SPDX-License-Identifier: Apache-2.0

package certs_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/mesh"
)

func until(end time.Time) testcert.Change {
	return func(c *x509.Certificate) { c.NotAfter = end }
}

func secretOf(name string, p *testcert.Pair) *mesh.Secret {
	return &mesh.Secret{Name: name, Certificate: &mesh.TLSCertificate{Chain: []*x509.Certificate{p.Leaf}}}
}

// TestInForce: what a snapshot and secrets hold is listed, what only names secrets is not.
func TestInForce(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	web, pay := ca.Issue(t, "web.test"), ca.Issue(t, "pay.test")
	s := &mesh.Snapshot{
		Listeners: map[string]*mesh.Listener{
			"plain": {Chains: []*mesh.FilterChain{{}}},
			"sds":   {Chains: []*mesh.FilterChain{{TLS: &mesh.TLSContext{CertificateSecrets: []string{"web"}}}}},
			"web": {Chains: []*mesh.FilterChain{{TLS: &mesh.TLSContext{Certificates: []*mesh.TLSCertificate{{Chain: []*x509.Certificate{web.Leaf}}}}}},
				DefaultChain: &mesh.FilterChain{TLS: &mesh.TLSContext{Certificates: []*mesh.TLSCertificate{{Chain: []*x509.Certificate{pay.Leaf}}}}}},
		},
		Clusters: map[string]*mesh.Cluster{"pay": {TLS: &mesh.TLSContext{Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{ca.Certificate}}}}},
	}
	var got []string
	for _, u := range certs.InForce(s, []*mesh.Secret{secretOf("own", pay)}) {
		got = append(got, fmt.Sprintf("%s%s %d %d", u.Secret, u.Resource, len(u.Chains), len(u.Authorities)))
	}
	if want := []string{"own 1 0", `listener "web" 2 0`, `cluster "pay" 0 1`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestDue: a certificate is told of once when its end is near, again only after it was away, and also where it is over.
func TestDue(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	now := time.Now().Truncate(time.Second)
	soon, later := ca.Issue(t, "soon.test", until(now.Add(48*time.Hour))), ca.Issue(t, "later.test", until(now.Add(30*24*time.Hour)))
	w := certs.Watch{Within: 7 * 24 * time.Hour}
	list := func(pairs ...*testcert.Pair) (out []certs.Use) {
		for i, p := range pairs {
			s := secretOf(fmt.Sprint("s", i), p)
			out = append(out, certs.InForce(&mesh.Snapshot{}, []*mesh.Secret{s, s})...)
		}
		return out
	}
	for _, step := range []struct {
		name  string
		at    time.Time
		list  []certs.Use
		want  string
		times int
	}{
		{"one of two", now, list(soon, later), "soon.test", 1},
		{"not again", now.Add(time.Hour), list(soon, later), "", 0},
		{"it was replaced", now.Add(2 * time.Hour), list(later), "", 0},
		{"it is back", now.Add(3 * time.Hour), list(soon, later), "soon.test", 1},
		{"exactly at the threshold", now.Add(23 * 24 * time.Hour), list(later), "later.test", 1},
		{"over", now.Add(31 * 24 * time.Hour), list(later, soon), "soon.test", 1},
	} {
		got := w.Due(step.at, step.list)
		if len(got) != step.times {
			t.Fatalf("%s: told of %+v", step.name, got)
		}
		for _, n := range got {
			if want := "CN=" + step.want + ",O=test"; n.Subject != want || n.Secret == "" || n.Serial == "" || n.NotAfter == 0 {
				t.Errorf("%s: told of %+v, want %s", step.name, n, want)
			}
		}
	}
}

// TestFirst: a bundle stands for the authority that ends first.
func TestFirst(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	first := ca.Issue(t, "first.test", until(time.Now().Add(time.Minute)))
	s := &mesh.Secret{Validation: &mesh.TLSValidation{Roots: []*x509.Certificate{ca.Certificate, first.Leaf}}}
	if got := certs.First(s); !got.Equal(first.Leaf) {
		t.Errorf("got %v", got.Subject)
	}
}
