// SPDX-License-Identifier: Apache-2.0

// Package endpointsv1 is the generated form of what a cluster says of its endpoints beyond Envoy's fields. Only xds reads it;
// what it says travels on in mesh.Cluster.
package endpointsv1
