// SPDX-License-Identifier: Apache-2.0

package mesh

// Snapshot is one complete, consistent configuration. It is swapped whole: a request that pinned it sees it to its end.
//
// Endpoints are not part of it. They change far more often than structure and travel as EndpointSet, each with a
// version of its own.
type Snapshot struct {
	// ID counts the snapshots of this process, from 1.
	ID uint64
	// Versions are the version_info strings in force, by resource type.
	Versions Versions
	// Listeners and Clusters are keyed by resource name, RouteTables by name and, where they do not come over the aggregated
	// stream, source. RouteTables holds those that came by name (RDS);
	// a table written inside an HTTP connection manager is found there.
	Listeners   map[string]*Listener
	RouteTables map[string]*RouteTable
	Clusters    map[string]*Cluster
	// ScopeSets and HostSets hold what came by SRDS and VHDS; their keys stand in connection managers and route tables.
	ScopeSets map[string]*ScopeSet
	HostSets  map[string]*HostSet
}

// Versions names the configuration in force, as the control plane named it. Static configuration has the version "".
type Versions struct {
	Listeners, Routes, Clusters string
}

// Rejection says why one resource of a snapshot could not be put into service. The one that was in force before stays.
type Rejection struct {
	// Kind is the resource's type.
	Kind ResourceKind
	// Name is the resource's name.
	Name string
	// Reason tells a person what is wrong and what is allowed.
	Reason string
}

// ResourceKind is a type of resource that a control plane can send.
type ResourceKind uint8

// The resource kinds, in the order in which a make-before-break update brings them.
const (
	KindCluster ResourceKind = iota
	KindEndpoints
	KindListener
	KindRouteTable
	KindExtension
	KindBootstrap
	KindSecret
	KindScope
	KindVirtualHost
	KindRuntime
	// NumResourceKinds is the number of kinds. It stays the last.
	NumResourceKinds
)

var kindNames = [...]string{"cluster", "endpoints", "listener", "route_configuration", "extension", "bootstrap", "secret",
	"scoped_route_configuration", "virtual_host", "runtime"}

// String returns the resource kind as messages spell it.
func (k ResourceKind) String() string { return kindNames[k] }
