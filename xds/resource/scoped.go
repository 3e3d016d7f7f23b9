// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// The shapes under which the message nests the parts of a key builder.
type (
	fragmentBuilder = hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder
	headerExtractor = hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor
	elementOfKey    = hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_KvElement
)

// scopedRoutes reads how a connection manager picks a table for each request. prefix is its stat_prefix.
func (s *scope) scopedRoutes(p *at, m *hcmv3.ScopedRoutes, prefix string) *mesh.ScopedRoutes {
	out := &mesh.ScopedRoutes{Name: m.GetName()}
	bp := p.field("scope_key_builder")
	if len(m.GetScopeKeyBuilder().GetFragments()) == 0 {
		s.errorf(bp.field("fragments"), "must have at least 1 item: without one, no request has a scope")
	}
	for i, f := range m.GetScopeKeyBuilder().GetFragments() {
		out.Fragments = append(out.Fragments, s.scopeFragment(bp.item("fragments", i).field("header_value_extractor"), f))
	}
	switch x := m.GetConfigSpecifier().(type) {
	case *hcmv3.ScopedRoutes_ScopedRouteConfigurationsList:
		out.Scopes = s.inlineScopes(p, m, x.ScopedRouteConfigurationsList.GetScopedRouteConfigurations(), prefix)
	case *hcmv3.ScopedRoutes_ScopedRds:
		const tables = "rds_config_source"
		from := s.from(p.field(tables), mesh.KindRouteTable, "", "http."+prefix+".rds", m.GetRdsConfigSource())
		out.Set = s.from(p.field("scoped_rds").field("scoped_rds_config_source"), mesh.KindScope, sourcekey.Source(from),
			"http."+prefix+".scoped_rds."+m.GetName(), x.ScopedRds.GetScopedRdsConfigSource())
		s.scopes = append(s.scopes, out.Set)
	}
	return out
}

// scopeFragment reads one part of a key builder, with Envoy's own rules.
func (s *scope) scopeFragment(p *at, m *fragmentBuilder) mesh.ScopeFragment {
	x := m.GetHeaderValueExtractor()
	out := mesh.ScopeFragment{Header: strings.ToLower(x.GetName()), Separator: x.GetElementSeparator()}
	switch e := x.GetExtractType().(type) {
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index:
		out.Index = int(e.Index)
		if out.Index > 0 && out.Separator == "" {
			s.errorf(p.field("index"), "must be 0 without an element_separator: the value is one element")
		}
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Element:
		out.ByKey, out.ElementKey, out.KeySeparator = true, e.Element.GetKey(), e.Element.GetSeparator()
	case nil:
		s.errorf(p, "needs index or element; write index: 0 for the whole value")
	}
	return out
}

// inlineScopes reads the scopes that are written in a connection manager.
func (s *scope) inlineScopes(p *at, m *hcmv3.ScopedRoutes, list []*routev3.ScopedRouteConfiguration, prefix string) *mesh.ScopeSet {
	out := &mesh.ScopeSet{}
	lp := p.field("scoped_route_configurations_list")
	names, keys := map[string]bool{}, map[string]string{}
	for i, c := range list {
		ip := lp.item("scoped_route_configurations", i)
		sc := s.scopedRoute(ip, c)
		if sc.Routes == nil && sc.RouteTable != "" {
			sc.RouteTable = s.from(p.field("rds_config_source"), mesh.KindRouteTable, sc.RouteTable,
				"http."+prefix+".rds."+sc.RouteTable, m.GetRdsConfigSource())
			s.tables = append(s.tables, sc.RouteTable)
		}
		if names[sc.Name] {
			s.errorf(ip.field("name"), "%q is there already; a name may be given once", sc.Name)
		}
		key := sc.Key()
		if first, taken := keys[key]; taken {
			s.errorf(ip.field("key"), "is also that of scope %q; two scopes may not have the same key", first)
		}
		names[sc.Name], keys[key] = true, sc.Name
		out.Scopes = append(out.Scopes, sc)
	}
	return out
}

// scopedRoute reads a scope, whether it is a resource or stands in a connection manager.
func (s *scope) scopedRoute(p *at, m *routev3.ScopedRouteConfiguration) *mesh.Scope {
	out := &mesh.Scope{Name: m.GetName(), RouteTable: m.GetRouteConfigurationName()}
	for _, f := range m.GetKey().GetFragments() {
		out.Fragments = append(out.Fragments, f.GetStringKey())
	}
	if inline := m.GetRouteConfiguration(); inline != nil {
		if out.RouteTable != "" {
			s.errorf(p.field("route_configuration"), "excludes route_configuration_name; keep one of them")
		}
		out.Routes = s.inlineTable(p.field("route_configuration"), inline)
	} else if out.RouteTable == "" {
		s.errorf(p.field("route_configuration_name"), "must not be empty, unless there is a route_configuration")
	}
	return out
}

// addScopeFields states what is honoured of scoped routes.
func addScopeFields(t *protofields.Table) {
	t.Add(&hcmv3.ScopedRoutes{}, protofields.Honour("name", "scope_key_builder", "rds_config_source",
		"scoped_route_configurations_list", "scoped_rds"))
	t.Add(&hcmv3.ScopedRoutes_ScopeKeyBuilder{}, protofields.Honour("fragments"))
	t.Add(&fragmentBuilder{}, protofields.Honour("header_value_extractor"))
	t.Add(&headerExtractor{}, protofields.Honour("name", "element_separator", "index", "element"))
	t.Add(&elementOfKey{}, protofields.Honour("separator", "key"))
	t.Add(&hcmv3.ScopedRouteConfigurationsList{}, protofields.Honour("scoped_route_configurations"))
	t.Add(&hcmv3.ScopedRds{}, protofields.Honour("scoped_rds_config_source"),
		protofields.Refuse("xdstp:// collections are not supported; leave it out to get all scopes of the source", "srds_resources_locator"))
	t.Add(&routev3.ScopedRouteConfiguration{},
		protofields.Honour("name", "route_configuration_name", "route_configuration", "key"),
		protofields.Refuse("the tables of scopes are fetched when the scopes come; leave it out", "on_demand"))
	t.Add(&routev3.ScopedRouteConfiguration_Key{}, protofields.Honour("fragments"))
	t.Add(&routev3.ScopedRouteConfiguration_Key_Fragment{}, protofields.Honour("string_key"))
}
