// SPDX-License-Identifier: Apache-2.0

package bootstrap

import "github.com/meshtap/meshtap/internal/registry"

// InertRows returns the extensions that the bootstraps of sidecars carry and that change nothing here, for the table of
// extensions: using one is reported. Internal listeners make no difference until an address names one, which is refused;
// Istio's workload discovery gives names of peers to Istio's own telemetry filters, which are not there.
func InertRows() []registry.Row[struct{}] {
	row := func(name, typeURL string) registry.Row[struct{}] {
		return registry.Row[struct{}]{
			Info: registry.Info{
				Category: registry.Bootstrap, Name: name, TypeURLs: []string{typeURL}, Status: registry.Inert,
				Posture: "data-plane-agnostic", Example: "pilot-agent.yaml",
			},
			Parse: func(typeURL string, _ []byte) (registry.Parsed, error) { return registry.Parsed{Config: typeURL}, nil },
		}
	}
	return []registry.Row[struct{}]{
		row("envoy.bootstrap.internal_listener", "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"),
		row("workload_discovery", "istio.workload.BootstrapExtension"),
	}
}
