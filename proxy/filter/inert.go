// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// InertRows returns the filters that configurations carry and that change nothing here, for the table of extensions: using one is
// reported. Istio's bootstraps have compressors in front of their statistics; an answer that is not compressed is right for every
// client (RFC 9110 section 12.5.3).
func InertRows() []registry.Row[Builder] {
	return []registry.Row[Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.compressor",
			TypeURLs: []string{"envoy.extensions.filters.http.compressor.v3.Compressor"},
			Status:   registry.Inert, Posture: "untrusted", Example: "pilot-agent.yaml", ChainOnly: true,
		},
		Parse: func(typeURL string, _ []byte) (registry.Parsed, error) { return registry.Parsed{Config: typeURL}, nil },
		Build: func(any, Deps) (Filter, error) { return inert{}, nil },
	}}
}

// inert is a filter that lets everything pass.
type inert struct{}

func (inert) OnRequest(*exchange.Exchange) (v Verdict, body []byte) { return Continue, nil }
func (inert) OnResponse(*exchange.Exchange)                         {}
