// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"fmt"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestClientConfig: each resource is there once, with what became of the last that came; secrets are hidden.
func TestClientConfig(t *testing.T) {
	t.Parallel()
	c := &clusterpb.Cluster{Name: "a"}
	in := Input{
		Clusters: []Entry{
			{Name: "ok", Live: came(t, "1", c)},
			{Name: "warming", Live: came(t, "1", c), Next: came(t, "2", c)},
			{Name: "refused", Live: came(t, "1", c), Failure: &Failure{Reason: "no", Version: "2", Raw: raw(t, c)}},
			{Name: "never good", Failure: &Failure{Reason: "no", Version: "2", Raw: []byte("\xff")}},
			{Name: "static", Static: true, Live: came(t, "", secretCluster(t))},
		},
		Secrets:   []Entry{{Name: "not here yet"}},
		Endpoints: []Endpoints{{Cluster: "ok", Set: &mesh.EndpointSet{}}},
	}
	got, err := ClientConfig(in, &corepb.Node{Id: "me"}, NewRedactor([]byte("key")), false)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, x := range got.GetGenericXdsConfigs() {
		lines = append(lines, fmt.Sprintf("%s %q %s %q %v", x.GetClientStatus(), x.GetName(), x.GetVersionInfo(), x.GetErrorState().GetDetails(), x.GetXdsConfig() != nil))
	}
	want := []string{
		`ACKED "ok" 1 "" true`, `ACKED "warming" 2 "" true`, `NACKED "refused" 1 "no" true`, `NACKED "never good"  "no" false`,
		`ACKED "static"  "" true`, `REQUESTED "not here yet"  "" false`, `ACKED "ok"  "" true`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") || got.GetNode().GetId() != "me" {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if text := protojson.Format(got); strings.Contains(text, planted) {
		t.Errorf("a secret is shown: %s", text)
	}
	got, err = ClientConfig(in, nil, NewRedactor([]byte("key")), true)
	if text := protojson.Format(got); err != nil || strings.Contains(text, "Config\":") || strings.Contains(text, "failedConfiguration") {
		t.Errorf("resources are there: %s, error %v", text, err)
	}
}

// TestClientConfigOfSets: scopes and virtual hosts are there once, whoever has them, with one that was refused.
func TestClientConfigOfSets(t *testing.T) {
	t.Parallel()
	in := scopedInput(t)
	in.Listeners, in.Routes = nil, nil
	in.ScopeSets = append(in.ScopeSets, in.ScopeSets[0], ScopeSet{Name: "elsewhere", Source: "x", Scopes: []Entry{
		{Name: "A", Source: "x", Live: came(t, "7", fakexds.Scope("A", "a", "r"))},
	}})
	in.Hosts[0] = []Entry{{Name: "q/bad", Failure: &Failure{Reason: "no", Version: "2", Raw: raw(t, fakexds.Host("q", "bad", "c"))}}}
	got, err := ClientConfig(in, nil, NewRedactor([]byte("key")), false)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, x := range got.GetGenericXdsConfigs() {
		typ := x.GetTypeUrl()[strings.LastIndexByte(x.GetTypeUrl(), '.')+1:]
		lines = append(lines, fmt.Sprintf("%s %q %s %s %v", typ, x.GetName(), x.GetVersionInfo(), x.GetClientStatus(), x.GetXdsConfig() != nil))
	}
	want := []string{
		`ScopedRouteConfiguration "A" 2 ACKED true`, `ScopedRouteConfiguration "held"  REQUESTED false`, `ScopedRouteConfiguration "A" 7 ACKED true`,
		`VirtualHost "q/bad"  NACKED false`, `VirtualHost "r/a.example" 2 ACKED true`, `VirtualHost "r/held"  REQUESTED false`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
