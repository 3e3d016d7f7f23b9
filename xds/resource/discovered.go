// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// terminals are the types of filters that end a chain, which the decoder reads itself.
var terminals = map[registry.Category][]string{
	registry.NetworkFilter: {managerType, tcpProxyType}, registry.HTTPFilter: {routerType},
}

// filterOf reads the configuration of a filter of any kind, or of the event tap, that comes by itself (ECDS). Which types it may
// have is said by those that name it.
func (s *scope) filterOf(m *corev3.TypedExtensionConfig) *mesh.Extension {
	if m.GetName() == "" {
		s.errorf((*at)(nil).field("name"), "must not be empty")
	}
	p := (*at)(nil).field("typed_config")
	t := unwrap(m.GetTypedConfig())
	if m.GetTypedConfig() != nil && !s.inChain(p, t.name) {
		return nil
	}
	category := registry.HTTPFilter
	for _, c := range []registry.Category{registry.ListenerFilter, registry.NetworkFilter, registry.Bootstrap} { // the last has the event tap
		_, known := s.d.opt.Parsers.Lookup(c, t.name)
		if known || slices.Contains(terminals[c], t.name) || strings.HasPrefix(t.name, typesOf(c)) {
			category = c
		}
	}
	s.clientCerts = true // those that name it may ask for certificates
	ext, ok := s.configuration(p, category, m.GetName(), m.GetTypedConfig())
	if !ok {
		return nil
	}
	return &ext
}

// typesOf is how Envoy's names of the types of a category begin.
func typesOf(c registry.Category) string {
	return strings.Replace(string(c), "envoy.", "envoy.extensions.", 1) + "."
}

// configuration reads the configuration of a filter that comes by itself, or that it begins with.
func (s *scope) configuration(p *at, c registry.Category, name string, a *anypb.Any) (mesh.Extension, bool) {
	t := unwrap(a)
	if !slices.Contains(terminals[c], t.name) {
		return s.extension(p, c, name, a, false, terminals[c]...)
	}
	config := s.terminal(p, t)
	return mesh.Extension{Name: name, TypeURL: t.name, Config: config}, config != nil
}

// terminal reads a filter that ends a chain: a *mesh.HTTPManager, a *mesh.TCPProxy or a mesh.Router, nil where it cannot be read.
func (s *scope) terminal(p *at, t typed) any {
	switch t.name {
	case managerType:
		if m := (&hcmv3.HttpConnectionManager{}); s.message(p, t, m) {
			return s.httpManager(p, m)
		}
	case tcpProxyType:
		if m := (&tcpproxyv3.TcpProxy{}); s.message(p, t, m) {
			return s.tcpProxy(p, m)
		}
	case routerType:
		if m := (&routerv3.Router{}); s.message(p, t, m) {
			return mesh.Router{SuppressEnvoyHeaders: m.GetSuppressEnvoyHeaders()}
		}
	}
	return nil
}

// inChain reports a type of filter that is for routes alone.
func (s *scope) inChain(p *at, typeName string) bool {
	info, known := s.d.opt.Parsers.Lookup(registry.HTTPFilter, typeName)
	if known && !info.InChain(typeName) {
		s.errorf(p, "%s is for typed_per_filter_config; here it is %s", typeName, info.TypeURLs[0])
		return false
	}
	return true
}

// discovered reads a filter whose configuration comes by itself.
func (s *scope) discovered(p *at, h *mesh.HTTPManager, f *hcmv3.HttpFilter) {
	if d := s.configDiscovery(p.field("config_discovery"), registry.HTTPFilter, inside, f.GetName(), f.GetConfigDiscovery()); d != nil {
		h.Filters = append(h.Filters, mesh.Extension{Name: f.GetName(), Disabled: f.GetDisabled(), Discovery: d})
	}
}

// discoveredRouter reads a router whose configuration comes by itself.
func (s *scope) discoveredRouter(p *at, h *mesh.HTTPManager, f *hcmv3.HttpFilter) {
	s.notDisabled(p, f)
	h.RouterDiscovery = s.configDiscovery(p.field("config_discovery"), registry.HTTPFilter, atEnd, f.GetName(), f.GetConfigDiscovery())
}

// discoveredNetworkFilter reads a network filter whose configuration comes by itself.
func (s *scope) discoveredNetworkFilter(p *at, c *mesh.FilterChain, f *listenerv3.Filter, where position) {
	d := s.configDiscovery(p.field("config_discovery"), registry.NetworkFilter, where, f.GetName(), f.GetConfigDiscovery())
	switch {
	case where == atEnd && d == nil:
		c.Discovery = &mesh.FilterDiscovery{} // one error is enough
	case where == atEnd:
		c.Discovery = d
	case d != nil:
		c.Filters = append(c.Filters, mesh.Extension{Name: f.GetName(), Discovery: d})
	}
}

// position is where in a chain a filter stands; it is anywhere where filters do not end chains.
type position uint8

const (
	anywhere position = iota
	inside
	atEnd
)

// ends reports a type of filter that cannot stand where it would: as in Envoy, a filter that ends chains is the last, and no
// other is.
func (s *scope) ends(p *at, c registry.Category, where position, typeName string) bool {
	terminal := slices.Contains(terminals[c], typeName)
	switch {
	case terminal && where == inside:
		s.errorf(p, "%s ends a chain of filters, and this is not the last one", typeName)
	case !terminal && where == atEnd:
		s.errorf(p, "%s does not end a chain of filters, and this is the last one; here it is %s", typeName, strings.Join(terminals[c], " or "))
	default:
		return true
	}
	return false
}

// statsOf is what Envoy calls the numbers of configurations that come by themselves.
var statsOf = map[registry.Category]string{
	registry.HTTPFilter: "http_filter", registry.ListenerFilter: "tcp_listener_filter", registry.Bootstrap: "http_filter",
	registry.NetworkFilter: "network_filter",
}

// configDiscovery reads where the configuration of an extension comes from; nil where it cannot be used.
func (s *scope) configDiscovery(p *at, c registry.Category, where position, extension string, m *corev3.ExtensionConfigSource) *mesh.FilterDiscovery {
	var types []string
	for i, url := range m.GetTypeUrls() {
		name := typeName(url)
		tp := p.item("type_urls", i)
		info, known := s.d.opt.Parsers.Lookup(c, name)
		switch {
		case !known && !slices.Contains(terminals[c], name):
			s.errorf(tp, "%s", s.unknownType(c, extension, name, terminals[c]...))
			continue
		case info.WrittenOnly:
			s.errorf(tp, "%s does not come over ECDS; use typed_config", info.Name)
			continue
		}
		if s.inChain(tp, name) && s.ends(tp, c, where, name) {
			types = append(types, name)
		}
	}
	slices.Sort(types)
	d := &mesh.FilterDiscovery{Types: strings.Join(slices.Compact(types), " ")}
	if a := m.GetDefaultConfig(); a != nil {
		dp := p.field("default_config")
		ext, ok := s.configuration(dp, c, extension, a)
		if ok && !slices.Contains(types, ext.TypeURL) {
			s.errorf(dp, "has type %s, which is none of type_urls", ext.TypeURL)
		}
		d.Default = &ext
	} else if m.GetApplyDefaultConfigWithoutWarming() {
		s.errorf(p.field("apply_default_config_without_warming"), "needs default_config")
	}
	if m.GetConfigSource() == nil {
		s.errorf(p.field("config_source"), isRequired)
		return nil
	}
	d.Key = s.from(p.field("config_source"), mesh.KindExtension, extension, "extension_config_discovery."+statsOf[c]+"."+extension, m.GetConfigSource())
	s.parts = append(s.parts, mesh.PartRef{
		Kind: mesh.KindExtension, Key: d.Key, Types: d.Types, Default: m.GetApplyDefaultConfigWithoutWarming(),
	})
	return d
}

// IsDiscovered says whether a typed configuration says where the configuration comes from, in place of it.
func IsDiscovered(a *anypb.Any) bool { return isType(unwrap(a), &corev3.ExtensionConfigSource{}) }

// Discovered reads where the configuration of an extension of the bootstrap comes from. There is a default, with which it
// begins; Refs has what is to be asked for.
func (c *Scope) Discovered(path string, cat registry.Category, name string, a *anypb.Any) (ext mesh.Extension, refs Refs, ok bool) {
	m, p := &corev3.ExtensionConfigSource{}, place(path)
	if !c.s.ownMessage(p, a, m) {
		return ext, refs, false
	}
	before := len(c.s.errs)
	if m.GetDefaultConfig() == nil {
		c.s.errorf(p.field("default_config"), "is required: it is in force until another comes")
	}
	s := scope{d: c.s.d, report: c.s.report}
	d := s.configDiscovery(p, cat, anywhere, name, m)
	c.s.report = s.report
	for i := range s.parts {
		s.parts[i].Default = true
	}
	return mesh.Extension{Name: name, Discovery: d}, Refs{Parts: s.parts, Sources: s.sources, Timeouts: s.timeouts}, len(c.s.errs) == before
}

func addDiscoveredFields(t *protofields.Table) {
	t.Add(&corev3.ExtensionConfigSource{},
		protofields.Honour("config_source", "default_config", "apply_default_config_without_warming", "type_urls"))
}
