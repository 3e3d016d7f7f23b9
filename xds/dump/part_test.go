// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"strings"
	"testing"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func bytesOf(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParts: secrets are shown as static, active and warming, with the certificate and without the key; filters as they came.
func TestParts(t *testing.T) {
	t.Parallel()
	inline := func(s string) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: s}}
	}
	secret := func(name string) *Resource {
		return &Resource{Version: "v1", At: time.Unix(1, 0), Raw: bytesOf(t, &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{
			TlsCertificate: &tlspb.TlsCertificate{CertificateChain: inline("PUBLIC"), PrivateKey: inline("PRIVATE")},
		}})}
	}
	fault, err := anypb.New(&faultpb.HTTPFault{UpstreamCluster: "pay"})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{
		Secrets: []Entry{
			{Name: "active", Live: secret("active"), Failure: &Failure{Reason: "no", Raw: secret("active").Raw}},
			{Name: "own", Static: true, Live: secret("own")},
			{Name: "warming"},
			{Name: "other", Live: secret("other")},
		},
		Filters: []Entry{
			{Name: "active", Live: &Resource{Version: "v2", Raw: bytesOf(t, &corepb.TypedExtensionConfig{Name: "f", TypedConfig: fault})}},
			{Name: "waits"},
		},
	}
	r := &renderer{in: in, opt: Options{Redactor: NewRedactor([]byte("k"))}}
	secrets, filters := r.secrets().(*adminpb.SecretsConfigDump), r.filters().(*adminpb.EcdsConfigDump)
	if r.err != nil {
		t.Fatal(r.err)
	}
	if len(secrets.StaticSecrets) != 1 || len(secrets.DynamicActiveSecrets) != 2 || len(secrets.DynamicWarmingSecrets) != 1 {
		t.Fatalf("got %v", secrets)
	}
	if w := secrets.DynamicWarmingSecrets[0]; w.Name != "warming" || w.VersionInfo != "uninitialized" || w.Secret != nil {
		t.Errorf("warming: %v", w)
	}
	got := &tlspb.Secret{}
	a := secrets.DynamicActiveSecrets[0]
	if err := a.Secret.UnmarshalTo(got); err != nil || a.VersionInfo != "v1" || a.ErrorState.GetDetails() != "no" {
		t.Errorf("active: %v, %v", a, err)
	}
	c := got.GetTlsCertificate()
	if c.GetCertificateChain().GetInlineString() != "PUBLIC" || !strings.HasPrefix(c.GetPrivateKey().GetInlineString(), "[redacted") {
		t.Errorf("shown: %v", c)
	}
	text, err := protojson.Marshal(secrets)
	if err != nil || strings.Contains(string(text), "PRIVATE") {
		t.Errorf("the key is shown, or %v", err)
	}
	if len(filters.EcdsFilters) != 1 || filters.EcdsFilters[0].VersionInfo != "v2" {
		t.Errorf("filters: %v", filters)
	}
}
