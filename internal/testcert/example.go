// SPDX-License-Identifier: Apache-2.0

package testcert

import (
	"os"
	"path/filepath"
	"testing"
)

// ExampleDir is where the files of configs/ have their certificates.
const ExampleDir = "/tmp/meshtap-tls"

// Example is what stands in the files of ExampleDir: ca.pem has signed server.pem, for web.example, and client.pem.
type Example struct {
	Authority *Authority
	Client    *Pair
}

// WriteExample makes these files in dir.
func WriteExample(t testing.TB, dir string) *Example {
	t.Helper()
	a := New(t)
	server := a.Issue(t, "web.example")
	e := &Example{a, a.Issue(t, "client.example", URI("spiffe://mesh.example/ns/web/sa/client"))}
	for name, text := range map[string][]byte{
		"ca.pem": a.PEM, "server.pem": server.CertPEM, "server.key": server.KeyPEM, "client.pem": e.Client.CertPEM, "client.key": e.Client.KeyPEM,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return e
}
