// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"io"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/xds/resource"
)

// The filter on_demand is a sign in the listener: over ECDS it would do nothing, and is refused.
func TestOnDemandIsNotDiscovered(t *testing.T) {
	t.Parallel()
	hcm, err := anypb.New(&hcmpb.HttpConnectionManager{StatPrefix: "x", HttpFilters: []*hcmpb.HttpFilter{{
		Name: "od", ConfigType: &hcmpb.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corepb.ExtensionConfigSource{
			TypeUrls: []string{"type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand"},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&listenerpb.Listener{Name: "l", FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{{
		Name: "hcm", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: hcm},
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = resource.New(resource.Options{Parsers: app.NewExtensions(io.Discard).Parsers()}).Decode(resource.ListenerType, b, "1")
	if err == nil || !strings.Contains(err.Error(), "type_urls[0]: envoy.filters.http.on_demand does not come over ECDS") {
		t.Errorf("error %v", err)
	}
}
