// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/testcert"
	"github.com/meshtap/meshtap/test/fakexds"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

// replaceFile replaces a file as careful programs do.
func replaceFile(t *testing.T, path string, text []byte) {
	t.Helper()
	err := os.WriteFile(path+".new", text, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// response writes secrets as a file of resources.
func response(t *testing.T, list ...types.Resource) []byte {
	t.Helper()
	r := &discoverypb.DiscoveryResponse{VersionInfo: "1"}
	for _, m := range list {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Resources = append(r.Resources, a)
	}
	text, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// secretStream is the aggregated stream to a control plane whose cluster takes its secrets by name.
type secretStream struct {
	t      *testing.T
	cp     *fakexds.Server
	keys   *keys
	events chan ads.Event
}

// startSecret opens the stream; sds is where the bootstrap says the two secrets come from, and static what it holds.
func startSecret(t *testing.T, k *keys, sds, static string) *secretStream {
	t.Helper()
	s := &secretStream{t, fakexds.StartWith(t, fakexds.Options{TLS: k.server(k.issue(t))}), k, make(chan ads.Event)}
	host, port, _ := strings.Cut(s.cp.Addr(), ":")
	text := fmt.Sprintf(`
node: {id: one, cluster: test}
dynamic_resources:
  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]}
  cds_config: {ads: {}}
static_resources:
  clusters:
  - name: control-plane
    load_assignment: {cluster_name: control-plane, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: control.example
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: own%[3]s}]
          combined_validation_context:
            default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%[4]s"}}]}
            validation_context_sds_secret_config: {name: roots%[3]s}
%[5]s`, host, port, sds, planeName, static)
	b, err := bootstrap.Load(bootstrap.Options{YAML: text, Parsers: resourcetest.Parsers()})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := xds.NewStreams(b, zap.NewNop()).Aggregated()
	if err != nil {
		t.Fatal(err)
	}
	stream.Subscribe(fakexds.ClusterType, []string{ads.Wildcard}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx, s.events) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// served waits for a response.
func (s *secretStream) served(what string) {
	s.t.Helper()
	s.await(what, func(ev ads.Event) bool {
		_, ok := ev.(ads.Response)
		return ok
	})
}

// refused waits for the stream to fail for a reason.
func (s *secretStream) refused(why string) {
	s.t.Helper()
	s.await(why, func(ev ads.Event) bool {
		d, ok := ev.(ads.Disconnected)
		return ok && strings.Contains(fmt.Sprint(d.Err), why)
	})
}

// turnedAway waits for the control plane to refuse our certificate. In TLS 1.3 it says so behind the handshake, and where we
// write first we may learn no more than that it has closed the connection.
func (s *secretStream) turnedAway() {
	s.t.Helper()
	s.await("the certificate is refused", func(ev ads.Event) bool {
		d, ok := ev.(ads.Disconnected)
		return ok && slices.ContainsFunc([]string{"unknown certificate authority", "broken pipe", "connection reset by peer"},
			func(why string) bool { return strings.Contains(fmt.Sprint(d.Err), why) })
	})
}

func (s *secretStream) await(what string, right func(ads.Event) bool) {
	s.t.Helper()
	var last ads.Event
	for timeout := time.After(2 * hang); ; {
		select {
		case last = <-s.events:
			if right(last) {
				return
			}
		case <-timeout:
			s.t.Fatalf("%s: not seen; last: %+v", what, last)
		}
	}
}

// admit makes the control plane serve proxies of one authority alone, and end what is open.
func (s *secretStream) admit(of *keys) {
	s.t.Helper()
	s.cp.Kill()
	s.cp.SetTLS(&tls.Config{
		Certificates: []tls.Certificate{s.keys.issue(s.t).Certificate}, ClientCAs: of.authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	})
	s.cp.Restart()
}

func (s *secretStream) files(p *testcert.Pair) {
	s.t.Helper()
	replaceFile(s.t, filepath.Join(s.keys.dir, "own.key"), p.KeyPEM)
	replaceFile(s.t, filepath.Join(s.keys.dir, "own.pem"), p.CertPEM)
}

// TestPlaneSecretsFromFiles: a control plane's own cluster takes its secrets from a file of resources, which need not be there at
// the start. What the file names, and the file itself, may change; half of a change costs nothing that has been good.
func TestPlaneSecretsFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKeys(t, dir)
	sds := filepath.Join(dir, "sds.json")
	s := startSecret(t, k, fmt.Sprintf(", sds_config: {path_config_source: {path: %q}}", sds), "")
	s.refused("sds.json: no such file")
	roots := fakexds.Authorities("roots", k.authority.PEM)
	replaceFile(t, sds, response(t, roots))
	s.refused(`has no secret "own"`)
	named := fakexds.CertificateFiles("own", filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key"), dir)
	replaceFile(t, sds, response(t, named, roots))
	s.cp.Set(fakexds.ClusterType, "1")
	s.served("the secrets are there")

	other := newKeys(t, t.TempDir())
	s.admit(other)
	s.turnedAway()
	replaceFile(t, filepath.Join(dir, "own.pem"), []byte("half"))
	s.turnedAway() // the last good one is used on
	s.files(other.authority.Issue(t, "proxy.example"))
	s.served("the certificate has changed")

	third := newKeys(t, t.TempDir())
	s.admit(third)
	s.turnedAway()
	replaceFile(t, sds, []byte("resources: ["))
	s.turnedAway()
	p := third.authority.Issue(t, "proxy.example")
	replaceFile(t, sds, response(t, fakexds.Certificate("own", p.CertPEM, p.KeyPEM), roots))
	s.served("the file of secrets has changed")
}

// TestPlaneSecretsOfBootstrap: secrets of the bootstrap do as well; their files are read anew for each connection.
func TestPlaneSecretsOfBootstrap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKeys(t, dir)
	s := startSecret(t, k, "", fmt.Sprintf(`
  secrets:
  - {name: own, tls_certificate: {certificate_chain: {filename: %[1]s/own.pem}, private_key: {filename: %[1]s/own.key}}}
  - {name: roots, validation_context: {trusted_ca: {filename: %[1]s/ca.pem}}}
`, dir))
	s.cp.Set(fakexds.ClusterType, "1")
	s.served("the secrets of the bootstrap")
	other := newKeys(t, t.TempDir())
	s.admit(other)
	s.turnedAway()
	s.files(other.authority.Issue(t, "proxy.example"))
	s.served("the certificate has changed")
}
