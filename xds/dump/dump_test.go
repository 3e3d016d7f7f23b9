// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
)

var rewrite = flag.Bool("rewrite", false, "write the results into testdata")

var (
	started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later   = started.Add(time.Minute)
	one     = netip.MustParseAddrPort("10.0.0.1:80")
)

func raw(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func came(t testing.TB, version string, m proto.Message) *Resource {
	return &Resource{Raw: raw(t, m), Version: version, At: later}
}

// inline is a listener with its routes in it.
func inline(t testing.TB, name string) *listenerpb.Listener {
	l := fakexds.Listener(name, one, "x")
	hcm := &hcmpb.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmpb.HttpConnectionManager_RouteConfig{RouteConfig: fakexds.Routes("inline-"+name, "a")},
	}
	l.FilterChains[0].Filters[0].ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: packed(t, hcm)}
	l.DefaultFilterChain = l.FilterChains[0]
	l.FilterChains = nil
	return l
}

func input(t testing.TB) Input {
	bad := &Failure{Reason: "lb_policy: is unknown", Version: "2", At: later, Raw: raw(t, fakexds.StaticCluster("bad", one))}
	return Input{
		Bootstrap:      &bootstrappb.Bootstrap{Node: &corepb.Node{Id: "me", Cluster: "mesh"}},
		Started:        started,
		ClusterVersion: "2", ListenerVersion: "1",
		Clusters: []Entry{
			{Name: "active", Live: came(t, "1", fakexds.EDSCluster("active")), Next: came(t, "2", fakexds.EDSCluster("active"))},
			{Name: "bad", Failure: bad},
			{Name: "static", Static: true, Live: came(t, "", fakexds.StaticCluster("static", one))},
			{Name: "static-warming", Static: true, Next: came(t, "", fakexds.EDSCluster("static-warming"))},
		},
		Listeners: []Entry{
			{Name: "L", Live: came(t, "1", fakexds.Listener("L", one, "r")), Failure: &Failure{
				Reason: "cannot bind", Version: "2", At: later, Raw: []byte("no listener at all"),
			}},
			{Name: "S", Static: true, Live: &Resource{Raw: raw(t, inline(t, "S"))}},
			{Name: "W", Next: came(t, "1", fakexds.Listener("W", one, "r2"))},
		},
		Routes: []Entry{
			{Name: "r", Live: came(t, "1", fakexds.Routes("r", "active"))},
			{Name: "r2"},
		},
		Endpoints: []Endpoints{
			{Cluster: "active", Resource: came(t, "7", fakexds.Endpoints("active", one))},
			{Cluster: "looked-up", Set: &mesh.EndpointSet{Overprovisioning: 140, Localities: []mesh.LocalityEndpoints{{
				LocalityGroup: mesh.LocalityGroup{Locality: mesh.Locality{Zone: "z"}, Priority: 1, Weight: 3},
				Endpoints: []mesh.Endpoint{
					{Address: mesh.Address{IP: one}, Hostname: "h", Health: mesh.HealthHealthy, Weight: 2},
					{Address: mesh.Address{Pipe: "/run/x"}},
				},
			}}}},
			{Cluster: "static", Static: true, Set: &mesh.EndpointSet{}},
		},
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opt  Options
	}{
		{"all", Options{Endpoints: true}},
		{"no_endpoints", Options{}},
		{"name", Options{Endpoints: true, Name: regexp.MustCompile("^(?:active|r|inline-S)$")}},
		{"part", Options{Part: "dynamic_active_clusters"}},
		{"sources", Options{Endpoints: true, Name: regexp.MustCompile("^(?:active|r)$")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.opt.Redactor = NewRedactor([]byte("key"))
			in := input(t)
			if tt.name == "sources" {
				fromSources(&in)
			}
			got, err := Render(in, tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + tt.name + ".json"
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// fromSources makes everything come from somewhere.
func fromSources(in *Input) {
	in.Sources = []Source{
		{Source: "ADS (GRPC cp)", Connected: true, Since: later, Target: "10.0.0.9:1", ControlPlane: "istiod"},
		{Source: "file /etc/rds.yaml", Connected: true, Since: later, Err: "/etc/rds.yaml:3:1: is \xff"},
	}
	for i := range in.Clusters {
		in.Clusters[i].Source = "ADS (GRPC cp)"
	}
	for i := range in.Routes {
		in.Routes[i].Source = "file /etc/rds.yaml"
	}
}

func TestRenderRefusesUnknownPart(t *testing.T) {
	t.Parallel()
	_, err := Render(input(t), Options{Redactor: NewRedactor(nil), Part: "clusters"})
	if err == nil || !strings.Contains(err.Error(), "dynamic_active_clusters") {
		t.Errorf("error %v", err)
	}
}

const planted = "a planted secret"

// secretCluster holds a private key inside an Any inside a cluster, and a password.
func secretCluster(t testing.TB) *clusterpb.Cluster {
	c := fakexds.StaticCluster("tls", one)
	inlineBytes := &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: []byte(planted)}}
	inlineText := &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: planted}}
	c.TransportSocket = &corepb.TransportSocket{
		Name: "tls",
		ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: packed(t, &tlspb.UpstreamTlsContext{
			CommonTlsContext: &tlspb.CommonTlsContext{TlsCertificates: []*tlspb.TlsCertificate{{
				CertificateChain: &corepb.DataSource{Specifier: &corepb.DataSource_Filename{Filename: "/shown.pem"}},
				PrivateKey:       inlineBytes, Password: inlineText,
			}}},
		})},
	}
	return c
}

// TestSecretsAreHidden plants secrets in every part of a dump and looks for them in the result.
func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	c := secretCluster(t)
	in := input(t)
	in.Bootstrap.StaticResources = &bootstrappb.Bootstrap_StaticResources{Clusters: []*clusterpb.Cluster{c}}
	in.Clusters = []Entry{
		{Name: "a", Live: came(t, "1", c), Failure: &Failure{Raw: raw(t, c)}},
		{Name: "b", Next: came(t, "1", c)},
		{Name: "c", Static: true, Live: came(t, "1", c)},
	}
	got, err := Render(in, Options{Endpoints: true, Redactor: NewRedactor([]byte("key"))})
	if err != nil {
		t.Fatal(err)
	}
	base64 := "YSBwbGFudGVkIHNlY3JldA=="
	if strings.Contains(string(got), planted) || strings.Contains(string(got), base64) {
		t.Errorf("a secret is shown:\n%s", got)
	}
	mask := NewRedactor([]byte("key")).Text([]byte(planted))
	if n := strings.Count(string(got), mask); n != 5 {
		t.Errorf("%d masks %s, want 5", n, mask)
	}
	if n := strings.Count(string(got), "/shown.pem"); n != 5 {
		t.Errorf("what is not sensitive is there %d times, want 5", n)
	}
	// The input is as it was.
	if b := raw(t, c); !bytes.Contains(b, []byte(planted)) || !bytes.Contains(in.Clusters[0].Live.Raw, []byte(planted)) {
		t.Error("the input was changed")
	}
}

func TestRedactorText(t *testing.T) {
	t.Parallel()
	a, b := NewRedactor([]byte("one")), NewRedactor([]byte("two"))
	if got := a.Text([]byte(planted)); !regexp.MustCompile(`^\[redacted len=16 id=[0-9a-f]{8}\]$`).MatchString(got) {
		t.Errorf("mask %q", got)
	}
	if a.Text([]byte("x")) == b.Text([]byte("x")) || a.Text([]byte("x")) == a.Text([]byte("y")) {
		t.Error("ids do not tell values apart, or can be made without the key")
	}
}

// TestRedactorHidesWholeMessages: below a sensitive message everything is hidden, whatever its type.
func TestRedactorHidesWholeMessages(t *testing.T) {
	t.Parallel()
	s, err := structpb.NewStruct(map[string]any{"text": planted, "number": 7, "list": []any{planted, true}, "map": map[string]any{"k": planted}})
	if err != nil {
		t.Fatal(err)
	}
	node := &corepb.Node{
		Id: planted, Metadata: s, UserAgentVersionType: &corepb.Node_UserAgentVersion{UserAgentVersion: planted},
		ClientFeatures: []string{planted}, DynamicParameters: nil,
		Extensions: []*corepb.Extension{{Name: planted, Disabled: true}},
	}
	r := NewRedactor(nil)
	if err := r.message(node.ProtoReflect(), true); err != nil {
		t.Fatal(err)
	}
	b, err := marshal(node)
	if err != nil || strings.Contains(string(b), planted) || node.Extensions[0].Disabled || strings.Contains(string(b), "7}") {
		t.Errorf("left over (error %v):\n%s", err, b)
	}
}

func TestRedactorDescribesUnknownTypes(t *testing.T) {
	t.Parallel()
	c := fakexds.StaticCluster("x", one)
	c.TransportSocket = &corepb.TransportSocket{Name: "own", ConfigType: &corepb.TransportSocket_TypedConfig{
		TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/acme.Secret", Value: []byte(planted)},
	}}
	in := Input{Clusters: []Entry{{Name: "x", Live: came(t, "1", c)}}}
	got, err := Render(in, Options{Redactor: NewRedactor(nil)})
	if err != nil || !json.Valid(got) {
		t.Fatalf("error %v:\n%s", err, got)
	}
	if !strings.Contains(string(got), "16 bytes of a type that is not known here") || !strings.Contains(string(got), "acme.Secret") {
		t.Errorf("got:\n%s", got)
	}
}

func TestRedactorBoundsDepth(t *testing.T) {
	t.Parallel()
	a := packed(t, &corepb.Node{Id: "inner"})
	for range maxDepth + 5 {
		a = packed(t, a)
	}
	if _, err := NewRedactor(nil).any(a); err == nil {
		t.Error("no error for messages that are nested too deep")
	}
}

// FuzzRender renders any bytes as resources that were refused: they must not spoil the dump.
func FuzzRender(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(raw(f, fakexds.EDSCluster("a")))
	f.Add(raw(f, secretCluster(f)))
	forever := fakexds.EDSCluster("forever")
	forever.ConnectTimeout = &durationpb.Duration{Seconds: 1 << 60}
	f.Add(raw(f, forever))
	r := NewRedactor([]byte("key"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := []Entry{{Name: string(b), Failure: &Failure{Raw: b, Reason: string(b)}}}
		got, err := Render(Input{Clusters: e, Listeners: e, Routes: e}, Options{Redactor: r})
		if err != nil || !json.Valid(got) {
			t.Errorf("error %v:\n%s", err, got)
		}
	})
}
