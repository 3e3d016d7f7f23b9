// SPDX-License-Identifier: Apache-2.0

package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// vhds reads where more virtual hosts of a table come from, as Envoy: by the incremental variant alone.
func (s *scope) vhds(p *at, t *mesh.RouteTable, m *routev3.Vhds) {
	before := len(s.errs)
	key := s.from(p.field("config_source"), mesh.KindVirtualHost, t.Name, "vhds."+t.Name, m.GetConfigSource())
	if len(s.errs) > before {
		return
	}
	c := m.GetConfigSource()
	switch {
	case c.GetAds() != nil && !s.d.opt.DeltaADS:
		s.errorf(p.field("config_source").field("ads"), "virtual hosts come by the incremental variant alone, and "+
			"dynamic_resources.ads_config has another; make its api_type DELTA_GRPC")
	case c.GetAds() == nil && c.GetApiConfigSource().GetApiType() != corev3.ApiConfigSource_DELTA_GRPC:
		s.errorf(p.field("config_source"), "must be ads or an api_config_source with api_type DELTA_GRPC: virtual hosts come "+
			"by the incremental variant alone")
	}
	t.HostSet = key
	s.hostSet = key
}

// inlineTable reads a table that is no resource: nothing comes to it by name.
func (s *scope) inlineTable(p *at, m *routev3.RouteConfiguration) *mesh.RouteTable {
	t := s.routeTable(p, m)
	if m.GetVhds() != nil {
		s.errorf(p.field("vhds"), "needs a table that comes by name; use rds")
	}
	return t
}

// host reads a virtual host that is a resource.
func (s *scope) host(m *routev3.VirtualHost) *mesh.VirtualHost {
	s.domains(nil, m, domains{})
	return s.virtualHost(nil, &mesh.RouteTable{MaxDirectBody: defaultDirectBody}, m)
}

// addHostFields states what is honoured of VHDS.
func addHostFields(t *protofields.Table) {
	t.Add(&routev3.Vhds{}, protofields.Honour("config_source"))
}
