// SPDX-License-Identifier: Apache-2.0

package mesh

// EndpointSet is all endpoints of one cluster, in force at once.
type EndpointSet struct {
	// Version is the version_info of the resource, "" for static sets, a counter for DNS.
	Version    string
	Localities []LocalityEndpoints
	// Overprovisioning multiplies health when priorities share load, in percent. The default is 140.
	Overprovisioning uint32
}

// LocalityGroup is the locality, priority and weight that endpoints share.
type LocalityGroup struct {
	Locality Locality
	// Priority 0 is used first.
	Priority uint32
	Weight   uint32
}

// LocalityEndpoints is the endpoints of one locality at one priority.
type LocalityEndpoints struct {
	LocalityGroup
	Endpoints []Endpoint
}

// Endpoint is the address of one instance. Its runtime state is a host, in proxy/upstream.
type Endpoint struct {
	Address Address
	// Hostname is the name for host rewriting and health checks; "" where there is none.
	Hostname string
	Health   HealthStatus
	// Weight is relative to the other endpoints of its priority. The default is 1.
	Weight uint32
	// CheckPort and CheckHost replace the address' port and the authority in active checks; 0 and "" do not.
	CheckPort uint16
	CheckHost string
	// NoActiveCheck leaves the endpoint out of active checks.
	NoActiveCheck bool
	// Metadata holds envoy.lb string values by key, for retry predicates and logs; nil where there are none.
	Metadata map[string]string
	Canary   bool
}

// HealthStatus is an endpoint's health as discovery knows it.
type HealthStatus uint8

// The health statuses.
const (
	HealthUnknown HealthStatus = iota
	HealthHealthy
	HealthUnhealthy
	HealthDraining
	HealthTimeout
	HealthDegraded
)
