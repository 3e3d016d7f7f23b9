// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/resource"
)

// ScopeSet is the scopes that a connection manager gets by SRDS. Version is the one accepted last of their source.
type ScopeSet struct {
	// Name is what the connection manager calls them, Source one of Input.Sources.
	Name, Source, Version string
	// Scopes are those that are in force, sorted by name.
	Scopes []Entry
}

// scopes shows the scopes that are written in listeners, and those that came by SRDS.
func (r *renderer) scopes() proto.Message {
	out := &adminpb.ScopedRoutesConfigDump{}
	r.managers(func(hcm *hcmpb.HttpConnectionManager, at time.Time) { r.inlineScopes(out, hcm.GetScopedRoutes(), at) })
	for _, s := range r.in.ScopeSets {
		d := &adminpb.ScopedRoutesConfigDump_DynamicScopedRouteConfigs{Name: clean(s.Name), VersionInfo: s.Version}
		var last time.Time
		for _, e := range s.Scopes {
			if e.Live == nil || !r.shown(e.Name) {
				continue
			}
			d.ScopedRouteConfigs = append(d.ScopedRouteConfigs, r.resource(resource.ScopeType, e.Live.Raw))
			if e.Live.At.After(last) {
				last = e.Live.At
			}
		}
		if d.LastUpdated = stamp(last); r.opt.Name == nil || len(d.ScopedRouteConfigs) > 0 {
			out.DynamicScopedRouteConfigs = append(out.DynamicScopedRouteConfigs, d)
		}
	}
	return out
}

func (r *renderer) inlineScopes(out *adminpb.ScopedRoutesConfigDump, m *hcmpb.ScopedRoutes, at time.Time) {
	list := m.GetScopedRouteConfigurationsList().GetScopedRouteConfigurations()
	d := &adminpb.ScopedRoutesConfigDump_InlineScopedRouteConfigs{Name: m.GetName(), LastUpdated: stamp(at)}
	for _, s := range list {
		if b, err := proto.Marshal(s); err == nil && r.shown(s.GetName()) {
			d.ScopedRouteConfigs = append(d.ScopedRouteConfigs, r.resource(resource.ScopeType, b))
		}
	}
	if len(d.ScopedRouteConfigs) > 0 {
		out.InlineScopedRouteConfigs = append(out.InlineScopedRouteConfigs, d)
	}
}

// managers calls f with the connection managers of listeners, and those that came by themselves, and when they came.
func (r *renderer) managers(f func(*hcmpb.HttpConnectionManager, time.Time)) {
	for _, e := range r.in.Listeners {
		if e.Live != nil {
			r.managersOf(e.Live, f)
		}
	}
	for _, e := range r.in.Filters {
		m := &corepb.TypedExtensionConfig{}
		if e.Live != nil && proto.Unmarshal(e.Live.Raw, m) == nil {
			manager(m.GetTypedConfig(), e.Live.At, f)
		}
	}
}

// manager calls f where a typed configuration is that of a connection manager.
func manager(a *anypb.Any, at time.Time, f func(*hcmpb.HttpConnectionManager, time.Time)) {
	hcm := &hcmpb.HttpConnectionManager{}
	if a.MessageIs(hcm) && a.UnmarshalTo(hcm) == nil {
		f(hcm, at)
	}
}

func (r *renderer) managersOf(res *Resource, f func(*hcmpb.HttpConnectionManager, time.Time)) {
	l := &listenerpb.Listener{}
	if proto.Unmarshal(res.Raw, l) != nil {
		return
	}
	at := res.At
	if at.IsZero() {
		at = r.in.Started
	}
	chains := l.GetFilterChains()
	if c := l.GetDefaultFilterChain(); c != nil {
		chains = append(chains[:len(chains):len(chains)], c)
	}
	for _, c := range chains {
		for _, filter := range c.GetFilters() {
			manager(filter.GetTypedConfig(), at, f)
		}
	}
}

// merged returns a route table with the virtual hosts that came to it, as Envoy shows it.
func (r *renderer) merged(table *Resource, hosts []Entry) *anypb.Any {
	if len(hosts) == 0 {
		return r.resource(resource.RouteType, table.Raw)
	}
	m := &routepb.RouteConfiguration{}
	if proto.Unmarshal(table.Raw, m) != nil {
		return r.resource(resource.RouteType, table.Raw)
	}
	for _, e := range hosts {
		h := &routepb.VirtualHost{}
		if e.Live != nil && proto.Unmarshal(e.Live.Raw, h) == nil {
			m.VirtualHosts = append(m.VirtualHosts, h)
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return r.resource(resource.RouteType, table.Raw)
	}
	return r.resource(resource.RouteType, b)
}
