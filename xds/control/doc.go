// SPDX-License-Identifier: Apache-2.0

// Package control is the small reference control plane behind `meshtapd control`: it turns a readable mesh.yaml into
// listeners, routes, clusters and endpoints for sidecars and serves them over ADS, in both variants of the protocol.
//
//	mesh.yaml -> Parse (places, did-you-mean) -> Mesh -> Build(node) -> rollout -> one cache per type -> ADS
//
// What a proxy gets is decided by its node: node.cluster names its service and node.id its instance. The services, with
// their routes, clusters and endpoints, are the same for all; the addresses of its own listeners and the cluster of its own
// application are not. So each node that is connected has caches of its own, one per type, and they go with its last
// stream. That is simple and exact, and costs memory for each proxy and each service: it is meant for hundreds of
// proxies, not for tens of thousands.
//
// Caches keep no order between types, so a change is rolled out to each node in three steps, each of which waits until the
// proxy has confirmed it: clusters and endpoints that come or change; routes and listeners; clusters and endpoints that
// go. A proxy that rejects a step does not get the next one. One that stays silent gets it after a while.
//
// A goroutine per connected node rolls out; the gRPC server has those of its streams. All end with Serve.
package control
