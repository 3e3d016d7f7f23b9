// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// These keys are where Meshtap's own extensions stand in maps that Envoy has for such a purpose.
const (
	fallbackKey  = "io.meshtap.fallback"
	breakerKey   = "io.meshtap.breaker"
	endpointsKey = "io.meshtap.endpoints"
)

// perFilter reads a typed_per_filter_config. fallback takes Meshtap's own fallback; nil says that it may not stand
// here.
func (s *scope) perFilter(p *at, m map[string]*anypb.Any, fallback **mesh.Fallback) map[string]mesh.Extension {
	if len(m) == 0 {
		return nil
	}
	out := map[string]mesh.Extension{}
	for _, key := range sortedKeys(m) {
		ep := p.entry("typed_per_filter_config", key)
		config, wrapper, ok := s.filterConfig(ep, m[key])
		if !ok {
			continue
		}
		if wrapper != nil {
			ep = ep.field("config")
		}
		if key == fallbackKey {
			s.placeFallback(ep, fallback, config)
			continue
		}
		ext, category := mesh.Extension{Name: key}, registry.HTTPFilter
		if key == mesh.TapPolicyKey {
			category = registry.RoutePolicy
		}
		if config != nil {
			if !s.onRoute(ep, category, unwrap(config).name) {
				continue
			}
			if ext, ok = s.extension(ep, category, key, config, wrapper.GetIsOptional()); !ok {
				continue
			}
		}
		ext.Disabled = wrapper.GetDisabled()
		out[key] = ext
	}
	return out
}

// onRoute reports an extension whose configuration may not stand in a typed_per_filter_config.
func (s *scope) onRoute(p *at, c registry.Category, typeName string) bool {
	info, known := s.d.opt.Parsers.Lookup(c, typeName)
	switch {
	case !known || info.OnRoute(typeName):
		return true
	case info.ChainOnly:
		s.errorf(p, "%s takes no configuration here; it may be turned off with a FilterConfig whose disabled is true", info.Name)
	default:
		s.errorf(p, "%s is for http_filters; here it is %s", typeName, strings.Join(info.RouteTypes, ", "))
	}
	return false
}

// cors reads the older cors field of a route or a virtual host, as what the filter takes now, into per. It is not looked
// at where any place has a configuration for the filter by name, as in Envoy.
func (s *scope) cors(p *at, m *routev3.CorsPolicy, per *map[string]mesh.Extension) {
	if m == nil {
		return
	}
	a, err := anypb.New(&corsv3.CorsPolicy{
		AllowOriginStringMatch: m.GetAllowOriginStringMatch(), AllowMethods: m.GetAllowMethods(), AllowHeaders: m.GetAllowHeaders(),
		ExposeHeaders: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(), AllowCredentials: m.GetAllowCredentials(),
		FilterEnabled: m.GetFilterEnabled(), ShadowEnabled: m.GetShadowEnabled(),
		AllowPrivateNetworkAccess: m.GetAllowPrivateNetworkAccess(), ForwardNotMatchingPreflights: m.GetForwardNotMatchingPreflights(),
	})
	if err != nil {
		s.errorf(p.field("cors"), "%v", err)
		return
	}
	if ext, ok := s.extension(p.field("cors"), registry.HTTPFilter, mesh.CORSKey, a, false); ok {
		if *per == nil {
			*per = map[string]mesh.Extension{}
		}
		(*per)[mesh.CORSKey] = ext
	}
}

// filterConfig opens the wrapper that says whether a filter's configuration is optional or turns the filter off. The
// wrapper is nil where there is none.
func (s *scope) filterConfig(p *at, a *anypb.Any) (*anypb.Any, *routev3.FilterConfig, bool) {
	w := &routev3.FilterConfig{}
	t := unwrap(a)
	if !isType(t, w) {
		return a, nil, true
	}
	if !s.message(p, t, w) {
		return nil, nil, false
	}
	if w.GetConfig() == nil && !w.GetDisabled() {
		s.errorf(p.field("config"), "is required unless disabled is true")
		return nil, nil, false
	}
	return w.GetConfig(), w, true
}

func (s *scope) placeFallback(p *at, place **mesh.Fallback, config *anypb.Any) {
	switch {
	case place == nil:
		s.errorf(p, "may stand on a route or a virtual host only")
	case config == nil:
		s.errorf(p, "cannot be turned off; leave it out")
	default:
		*place = s.fallback(p, config)
	}
}

func sortedKeys[M ~map[K]V, K cmp.Ordered, V any](m M) []K { return slices.Sorted(maps.Keys(m)) }

func addPerFilterFields(t *protofields.Table) {
	t.Add(&routev3.FilterConfig{}, protofields.Honour("config", "is_optional", "disabled"))
	t.Add(&routev3.CorsPolicy{}, protofields.Opaque("allow_origin_string_match", "filter_enabled", "shadow_enabled"),
		protofields.Honour("allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credentials",
			"allow_private_network_access", "forward_not_matching_preflights"))
}
