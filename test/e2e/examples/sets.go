// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"fmt"
	"strings"
	"testing"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3" // configs/vhds-resources.yaml has it
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/test/fakexds"
)

func scopes() []Request {
	place := func(stage string) []string { return []string{"x-tenant: shop", "x-place: zone=eu;stage=" + stage} }
	return []Request{
		{Name: "the key leads to the table", Header: place("prod"), Want: Want{Status: 200, Line: "a GET / localhost"}},
		{Name: "another key to another one", Header: place("test"), Want: Want{Status: 200, Line: "b GET / localhost"}},
		{Name: "a key that no scope has", Header: place("beta"), Want: Want{Status: 404}},
		{Name: "a part of the key is missing", Header: []string{"x-tenant: shop"}, Want: Want{Status: 404}},
	}
}

var ofShop = []string{"x-tenant: shop"}

func virtualHosts() []Request {
	return []Request{
		{Name: "the table's own virtual host", Header: ofShop, Want: Want{Status: 200, Line: "a GET / localhost"}},
		{Name: "one that came to it", Host: "shop.example", Header: ofShop, Want: Want{Status: 200, Line: "a GET / shop.example"}},
		{Name: "without a scope there is none", Host: "shop.example", Want: Want{Status: 404}},
	}
}

// onDemand: a request for a host that is not there is held while the host is asked for, and goes on when it has come, or when
// there is none; others are not held.
func onDemand(t *testing.T, r *Rig) {
	if r.Envoy {
		return // it would wait for ever for what the control plane's cache does not answer
	}
	for _, tt := range []struct {
		host   string
		answer *discoverypb.DeltaDiscoveryResponse
		want   int
	}{
		{"new.example", &discoverypb.DeltaDiscoveryResponse{Resources: []*discoverypb.Resource{wrap(t, "new.example", "")}}, 200},
		{"alias.example", &discoverypb.DeltaDiscoveryResponse{Resources: []*discoverypb.Resource{wrap(t, "alias.example", "routes/alias.example")}}, 200},
		{"none.example", &discoverypb.DeltaDiscoveryResponse{RemovedResources: []string{"routes/none.example"}}, 404},
		{"empty.example", &discoverypb.DeltaDiscoveryResponse{Resources: []*discoverypb.Resource{{Name: "routes/empty.example"}}}, 404},
	} {
		status := make(chan int, 1)
		go func() { status <- r.Do(Request{Host: tt.host, Header: ofShop}).Status }()
		for a := range r.ControlPlane.Answers() {
			if a.TypeURL == fakexds.HostType && fmt.Sprint(a.Names) == "[routes/"+tt.host+"]" {
				break
			}
		}
		virtualHosts()[0].Check(t, r.Do(virtualHosts()[0]))
		tt.answer.TypeUrl, tt.answer.SystemVersionInfo = fakexds.HostType, tt.host
		r.ControlPlane.InjectDelta(tt.answer)
		if got := <-status; got != tt.want {
			t.Errorf("%s: status %d, want %d", tt.host, got, tt.want)
		}
	}
	dump := r.Admin.Get("/config_dump")
	for _, want := range []string{`"dynamic_scoped_route_configs"`, `"name": "routes/new.example"`, `"name": "routes/shop.example"`} {
		if !strings.Contains(dump, want) {
			t.Errorf("/config_dump has no %s", want)
		}
	}
	for _, name := range []string{"http.http.scoped_rds.tenants.active_scopes: 1", "http.http.vhds.routes.config_reload: 3"} {
		if stats := r.Admin.Get("/stats"); !strings.Contains(stats, name) {
			t.Errorf("/stats has no %q", name)
		}
	}
	for _, kind := range []string{"scoped_route_configuration", "virtual_host"} {
		if got := r.Admin.XDS().Of(kind); got.State != "synced" {
			t.Errorf("/xds of %s: %+v", kind, got)
		}
	}
}

// wrap makes a virtual host for a domain a resource: of the name of the domain, or of another with an alias.
func wrap(t *testing.T, domain, alias string) *discoverypb.Resource {
	h := fakexds.Host("routes", domain, "web")
	w := &discoverypb.Resource{Name: h.GetName(), Version: "1"}
	if alias != "" {
		h.Name = "routes/other"
		w.Name, w.Aliases = h.GetName(), []string{alias}
	}
	a, err := anypb.New(h)
	if err != nil {
		t.Fatal(err)
	}
	w.Resource = a
	return w
}
