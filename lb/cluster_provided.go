// SPDX-License-Identifier: Apache-2.0

package lb

// ClusterProvidedType is the type of the policy of clusters that choose their host themselves.
const ClusterProvidedType = "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided"

// ClusterProvided leaves the choice to the cluster, as an original destination cluster makes it: its host is where the
// connection was going, so there is nothing to pick here.
type ClusterProvided struct{}

// DefaultClusterProvided returns the policy as it is where nothing is configured.
func DefaultClusterProvided() ClusterProvided { return ClusterProvided{} }

// BuildClusterProvided is the policy's Builder. Its picker picks nothing, whatever the hosts.
func BuildClusterProvided(any, []*Host, uint64, Picker) Picker { return none{} }
