// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// filterOf reads the configuration of an HTTP filter, a listener filter or the event tap that comes by itself (ECDS). Which types it may have is said by those
// that name it.
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
	for _, c := range []registry.Category{registry.ListenerFilter, registry.Bootstrap} { // the latter has the event tap
		if _, known := s.d.opt.Parsers.Lookup(c, t.name); known {
			category = c
		}
	}
	ext, ok := s.extension(p, category, m.GetName(), m.GetTypedConfig(), false)
	if !ok {
		return nil
	}
	return &ext
}

// inChain reports a type of filter that cannot be discovered: the router, and what is for routes alone.
func (s *scope) inChain(p *at, typeName string) bool {
	if typeName == routerType {
		s.errorf(p, "the router filter cannot come over ECDS; it stands in http_filters")
		return false
	}
	info, known := s.d.opt.Parsers.Lookup(registry.HTTPFilter, typeName)
	if known && !info.InChain(typeName) {
		s.errorf(p, "%s is for typed_per_filter_config; here it is %s", typeName, info.TypeURLs[0])
		return false
	}
	return true
}

// discovered reads a filter whose configuration comes by itself.
func (s *scope) discovered(p *at, h *mesh.HTTPManager, f *hcmv3.HttpFilter) {
	if d := s.configDiscovery(p.field("config_discovery"), registry.HTTPFilter, f.GetName(), f.GetConfigDiscovery()); d != nil {
		h.Filters = append(h.Filters, mesh.Extension{Name: f.GetName(), Disabled: f.GetDisabled(), Discovery: d})
	}
}

// statsOf is what Envoy calls the numbers of configurations that come by themselves.
var statsOf = map[registry.Category]string{
	registry.HTTPFilter: "http_filter", registry.ListenerFilter: "tcp_listener_filter", registry.Bootstrap: "http_filter",
}

// configDiscovery reads where the configuration of an extension comes from; nil where it cannot be used.
func (s *scope) configDiscovery(p *at, c registry.Category, extension string, m *corev3.ExtensionConfigSource) *mesh.FilterDiscovery {
	var types []string
	for i, url := range m.GetTypeUrls() {
		name := typeName(url)
		tp := p.item("type_urls", i)
		info, known := s.d.opt.Parsers.Lookup(c, name)
		switch {
		case !known && name != routerType:
			s.errorf(tp, "%s", s.unknownType(c, extension, name))
			continue
		case info.WrittenOnly:
			s.errorf(tp, "%s does not come over ECDS; use typed_config", info.Name)
			continue
		}
		if s.inChain(tp, name) {
			types = append(types, name)
		}
	}
	slices.Sort(types)
	d := &mesh.FilterDiscovery{Types: strings.Join(slices.Compact(types), " ")}
	if a := m.GetDefaultConfig(); a != nil {
		dp := p.field("default_config")
		ext, ok := s.extension(dp, c, extension, a, false)
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
	d := s.configDiscovery(p, cat, name, m)
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
