// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	"net/netip"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// ScopedListener returns a listener that picks its routes by the header "x-scope", among scopes from one source whose tables
// come from another.
func ScopedListener(name string, at netip.AddrPort, scopes, tables *corepb.ConfigSource) *listenerpb.Listener {
	l := Listener(name, at, "unused")
	hcm := &hcmpb.HttpConnectionManager{}
	f := l.GetFilterChains()[0].GetFilters()[0]
	if err := f.GetTypedConfig().UnmarshalTo(hcm); err != nil {
		panic(err) // it was made by Listener
	}
	type (
		builder   = hcmpb.ScopedRoutes_ScopeKeyBuilder
		fragment  = hcmpb.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder
		extractor = hcmpb.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_
		value     = hcmpb.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor
		index     = hcmpb.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index
	)
	hcm.RouteSpecifier = &hcmpb.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmpb.ScopedRoutes{
		Name: "scopes",
		ScopeKeyBuilder: &builder{Fragments: []*fragment{{
			Type: &extractor{HeaderValueExtractor: &value{Name: "x-scope", ExtractType: &index{}}},
		}}},
		RdsConfigSource: tables,
		ConfigSpecifier: &hcmpb.ScopedRoutes_ScopedRds{ScopedRds: &hcmpb.ScopedRds{ScopedRdsConfigSource: scopes}},
	}}
	f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: mustAny(hcm)}
	return l
}

// Scope returns a scope that leads requests with a key to a table.
func Scope(name, key, table string) *routepb.ScopedRouteConfiguration {
	return &routepb.ScopedRouteConfiguration{
		Name: name, RouteConfigurationName: table,
		Key: &routepb.ScopedRouteConfiguration_Key{Fragments: []*routepb.ScopedRouteConfiguration_Key_Fragment{{
			Type: &routepb.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: key},
		}}},
	}
}

// Host returns a virtual host for one domain, which is named after its table and sends everything to a cluster.
func Host(table, domain, cluster string) *routepb.VirtualHost {
	v := Routes("", cluster).GetVirtualHosts()[0]
	v.Name, v.Domains = table+"/"+domain, []string{domain}
	return v
}

// WithHosts makes more virtual hosts of a table come from a source.
func WithHosts(t *routepb.RouteConfiguration, source *corepb.ConfigSource) *routepb.RouteConfiguration {
	t.Vhds = &routepb.Vhds{ConfigSource: source}
	return t
}
