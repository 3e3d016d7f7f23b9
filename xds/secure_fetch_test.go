// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/test/fakexds"
)

// onSocket returns the path of a unix socket that leads to an address until the test ends.
func onSocket(t *testing.T, addr string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				_ = near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_, _ = near.Close(), far.Close()
				})
			}
		}
	})
	return path
}

// TestPlaneSecretsOfAgent: an agent on a unix socket, as those of SPIRE and Istio, hands out the secrets of the connection to the
// control plane. They are waited for; one that cannot be used is refused; what has been rotated is used by the next
// connection, and where the agent is gone the last ones are.
func TestPlaneSecretsOfAgent(t *testing.T) {
	t.Parallel()
	for name, api := range map[string]string{
		"GRPC":       "api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: agent}}]",
		"DELTA_GRPC": "api_type: DELTA_GRPC, grpc_services: [{envoy_grpc: {cluster_name: agent}}]",
		"REST":       "api_type: REST, cluster_names: [agent], refresh_delay: 0.1s, request_timeout: 5s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeys(t, t.TempDir())
			agent := fakexds.Start(t)
			agent.Set(fakexds.SecretType, "1")
			addr := agent.Addr()
			if name == "REST" {
				addr = agent.ServeREST()
			}
			s := startSecret(t, k, ", sds_config: {initial_fetch_timeout: 2s, api_config_source: {"+api+"}}", fmt.Sprintf(`
  - name: agent
    load_assignment: {cluster_name: agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
`, onSocket(t, addr)))
			s.cp.Set(fakexds.ClusterType, "1")
			s.refused(`the secret "own" of`)
			roots := fakexds.Authorities("roots", k.authority.PEM)
			agent.Set(fakexds.SecretType, "2", roots, fakexds.Certificate("own", []byte("half"), []byte("half")))
			s.refused("is refused: ")
			first := k.authority.Issue(t, "proxy.example")
			agent.Set(fakexds.SecretType, "3", roots, fakexds.Certificate("own", first.CertPEM, first.KeyPEM))
			s.served("the agent has a certificate")
			other := newKeys(t, t.TempDir())
			s.admit(other)
			s.turnedAway()
			second := other.authority.Issue(t, "proxy.example")
			agent.Set(fakexds.SecretType, "4", roots, fakexds.Certificate("own", second.CertPEM, second.KeyPEM))
			s.served("the certificate has been rotated")
			agent.Kill()
			s.cp.Kill()
			s.cp.Restart()
			s.served("the agent is gone")
		})
	}
}
