// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/meshtap/meshtap/internal/stats"

// The numbers of the set of clusters, cluster_manager.*. All are moved by the server when it applies a snapshot or new
// endpoints. Those of the subscriptions (cds.*, lds.*) and of the control plane are counted by xds, which may not import
// this package.
const (
	// ClusterAdded, ClusterModified and ClusterRemoved: a snapshot brought, changed or took a cluster.
	ClusterAdded = iota
	ClusterModified
	ClusterRemoved
	// ClusterUpdated: the endpoints of a cluster changed.
	ClusterUpdated
	// ActiveClusters and WarmingClusters are the clusters in service, and those that wait for their endpoints.
	ActiveClusters
	WarmingClusters
)

var clusterManagerSchema = &stats.Schema{
	Name: "cluster_manager",
	Defs: []stats.Def{
		ClusterAdded:    {Name: "cluster_added"},
		ClusterModified: {Name: "cluster_modified"},
		ClusterRemoved:  {Name: "cluster_removed"},
		ClusterUpdated:  {Name: "cluster_updated"},
		ActiveClusters:  {Name: "active_clusters", Kind: stats.Gauge},
		WarmingClusters: {Name: "warming_clusters", Kind: stats.Gauge},
	},
}

// ClusterManager is the numbers of the set of clusters.
type ClusterManager struct{ *stats.Group }

// NewClusterManager returns the numbers of the set of clusters.
func NewClusterManager(reg *stats.Registry) *ClusterManager {
	return &ClusterManager{reg.Group(clusterManagerSchema, "cluster_manager")}
}
