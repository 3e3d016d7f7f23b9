// SPDX-License-Identifier: Apache-2.0

package cors

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/protomatch"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
)

const (
	typeURL    = "envoy.extensions.filters.http.cors.v3.Cors"
	policyType = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
)

// Rows returns the filter for the table of extensions. Shares of requests may have runtime keys.
func Rows(keys mesh.Runtime) []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.cors", TypeURLs: []string{typeURL, policyType},
			Status: registry.Alpha, Posture: "untrusted", Example: "cors.yaml", RouteTypes: []string{policyType},
		},
		Parse: func(of string, b []byte) (registry.Parsed, error) { return parse(keys, of, b) },
		Build: New,
	}}
}

// fields says which fields of the messages are honoured.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&corspb.Cors{})
	t.Add(&corspb.CorsPolicy{},
		protofields.Honour("allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age",
			"allow_credentials", "filter_enabled", "shadow_enabled", "allow_private_network_access", "forward_not_matching_preflights"))
	t.Add(&corepb.RuntimeFractionalPercent{}, protofields.Honour("default_value", "runtime_key"))
	protomatch.AddFields(t)
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(keys mesh.Runtime, of string, b []byte) (registry.Parsed, error) {
	if of == typeURL {
		return fields.Decode(b, &corspb.Cors{})
	}
	m := &corspb.CorsPolicy{}
	p, err := fields.Decode(b, m)
	if err != nil {
		return p, err
	}
	origins, err := protomatch.Strings("allow_origin_string_match", m.GetAllowOriginStringMatch(), protomatch.MaxProgram)
	if err != nil {
		return registry.Parsed{}, err
	}
	p.Config = &Policy{
		Origins:      origins,
		AllowMethods: m.GetAllowMethods(), AllowHeaders: m.GetAllowHeaders(), ExposeHeaders: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(),
		Credentials: flag(m.GetAllowCredentials()), PrivateNetwork: flag(m.GetAllowPrivateNetworkAccess()),
		ForwardPreflights: flag(m.GetForwardNotMatchingPreflights()),
		Enabled:           share(keys, m.GetFilterEnabled()), Shadow: share(keys, m.GetShadowEnabled()),
	}
	return p, nil
}

func flag(w *wrapperspb.BoolValue) *bool {
	if w == nil {
		return nil
	}
	v := w.GetValue()
	return &v
}

func share(keys mesh.Runtime, m *corepb.RuntimeFractionalPercent) *mesh.Fraction {
	if m == nil {
		return nil
	}
	f := protomatch.Fraction(m.GetDefaultValue())
	if key := m.GetRuntimeKey(); key != "" {
		f.Runtime = keys.Key(key)
	}
	return f
}
