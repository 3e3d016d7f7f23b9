// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/meshtap/meshtap/internal/registry"

// Rows returns the policies' rows of the extension table, in the order of their names.
func Rows() []registry.Row[Builder] {
	row := func(name, typ string, p registry.Parse, b Builder) registry.Row[Builder] {
		return registry.Row[Builder]{
			Info: registry.Info{
				Category: registry.LBPolicy,
				Name:     "envoy.load_balancing_policies." + name,
				TypeURLs: []string{typ},
				Status:   registry.Stable,
				Posture:  "data-plane-agnostic",
				Example:  "lb.yaml",
			},
			Parse: p,
			Build: b,
		}
	}
	return []registry.Row[Builder]{
		row("cluster_provided", ClusterProvidedType, ParseClusterProvided, BuildClusterProvided),
		row("least_request", LeastRequestType, ParseLeastRequest, BuildLeastRequest),
		row("random", RandomType, ParseRandom, BuildRandom),
		row("round_robin", RoundRobinType, ParseRoundRobin, BuildRoundRobin),
	}
}
