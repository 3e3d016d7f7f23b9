// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"bytes"
	"os"
	"regexp"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/meshtap/meshtap/test/fakexds"
)

// scopedInput has scopes from both places, and a table to which a virtual host came.
func scopedInput(t testing.TB) Input {
	written := &hcmpb.HttpConnectionManager{RouteSpecifier: &hcmpb.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmpb.ScopedRoutes{
		Name: "written",
		ConfigSpecifier: &hcmpb.ScopedRoutes_ScopedRouteConfigurationsList{ScopedRouteConfigurationsList: &hcmpb.ScopedRouteConfigurationsList{
			ScopedRouteConfigurations: []*routepb.ScopedRouteConfiguration{fakexds.Scope("A", "a", "r"), fakexds.Scope("B", "b", "r")},
		}},
	}}}
	l := inline(t, "S")
	l.DefaultFilterChain.Filters[0].ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: packed(t, written)}
	ads := &corepb.ConfigSource{ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}}
	return Input{
		Started:   started,
		Listeners: []Entry{{Name: "S", Static: true, Live: &Resource{Raw: raw(t, l)}}},
		Routes: []Entry{
			{Name: "q", Live: came(t, "1", fakexds.Routes("q", "c"))},
			{Name: "r", Live: came(t, "1", fakexds.WithHosts(fakexds.Routes("r", "c"), ads))},
		},
		Hosts: map[int][]Entry{1: {{Name: "r/a.example", Live: came(t, "2", fakexds.Host("r", "a.example", "c"))}, {Name: "r/held"}}},
		ScopeSets: []ScopeSet{{Name: "came", Version: "3", Scopes: []Entry{
			{Name: "A", Live: came(t, "2", fakexds.Scope("A", "a", "r"))}, {Name: "held"},
		}}},
	}
}

func TestRenderScopes(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Options{
		"scopes":      {},
		"scopes_name": {Name: regexp.MustCompile("^B$")},
		"scopes_part": {Part: "dynamic_scoped_route_configs"},
	} {
		opt.Redactor = NewRedactor([]byte("key"))
		got, err := Render(scopedInput(t), opt)
		if err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + name + ".json"
		if *rewrite {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, got:\n%s", name, err, got)
		}
	}
}
