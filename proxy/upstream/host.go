// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"sync/atomic"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/pool"
)

// Host is the runtime of one endpoint.
type Host struct {
	Address mesh.Address

	cluster *Cluster
	lbHost  *lb.Host
	outlier *circuit.HostState
	breaker *circuit.Breaker // nil unless each host has its own
	pools   pools

	info atomic.Pointer[info]
	// checked is what active checks say.
	checked atomic.Uint32
	numbers hostNumbers

	// The rest is guarded by the cluster's mu.
	check *health.Checker // nil where there is none
	// gone says that discovery has removed the host, and it stays only because its checks pass.
	gone bool
	// merge is the last Cluster.merges in which the host was there.
	merge uint64
	// used is when an original-destination host was picked last (mono).
	used atomic.Int64
}

// info is what discovery says of a host: parts of its EndpointSet, which is immutable.
type info struct {
	endpoint *mesh.Endpoint
	group    *mesh.LocalityGroup
}

// hostNumbers are what /clusters tells of a host.
type hostNumbers struct {
	total, success, errors atomic.Int64
}

// What active checks say of a host.
const (
	unchecked uint32 = iota // there are none
	checkPending
	checkPassed
	checkDegraded
	checkFailed
)

// Endpoint returns what discovery says of the host.
func (h *Host) Endpoint() *mesh.Endpoint { return h.info.Load().endpoint }

// Group returns the host's locality, priority and locality weight.
func (h *Host) Group() mesh.LocalityGroup { return *h.info.Load().group }

// stay marks a host that discovery has removed. Its info becomes a copy: one host must not hold a whole set that was replaced.
func (h *Host) stay() {
	if h.gone {
		return
	}
	h.gone = true
	e, g := *h.Endpoint(), h.Group()
	h.info.Store(&info{&e, &g})
}

// Cluster returns the host's cluster.
func (h *Host) Cluster() *Cluster { return h.cluster }

// HTTP returns where the streams of requests come from that were received with protocol p.
func (h *Host) HTTP(p mesh.Protocol) pool.Streams {
	if p == mesh.HTTP2 && h.pools.http2 != nil || h.pools.http1 == nil {
		return h.pools.http2
	}
	return h.pools.http1
}

// TCP returns the pool that connects for what is not HTTP.
func (h *Host) TCP() *pool.Pool { return h.pools.tcp }

// Active returns the number of requests in flight.
func (h *Host) Active() int64 { return h.lbHost.Active.Load() }

// Health returns the host's health for load balancing, all sources taken together.
func (h *Host) Health() lb.Health {
	if h.outlier.Ejected() {
		return lb.Unhealthy
	}
	switch h.checked.Load() {
	case checkPending, checkFailed:
		return lb.Unhealthy
	case checkDegraded:
		if h.Endpoint().Health <= mesh.HealthHealthy {
			return lb.Degraded
		}
	}
	switch h.Endpoint().Health {
	case mesh.HealthUnhealthy, mesh.HealthDraining, mesh.HealthTimeout:
		return lb.Unhealthy
	case mesh.HealthDegraded:
		return lb.Degraded
	}
	return lb.Healthy
}

// View is what a person can see of a host.
type View struct {
	Address  mesh.Address
	Endpoint *mesh.Endpoint
	Group    mesh.LocalityGroup
	Health   lb.Health
	// Ejected, FailedCheck and PendingCheck say why a host is not healthy, as Envoy's health flags do.
	Ejected, FailedCheck, PendingCheck bool
	Connections                        int
	Tried, Missed                      int64 // connections that were to be opened, and those that could not be
	Active, Total, Success, Errors     int64
	Circuit                            *circuit.View
}

// View returns what the host looks like at now (mono).
func (h *Host) View(now int64) View {
	v := View{
		Address: h.Address, Endpoint: h.Endpoint(), Group: h.Group(), Health: h.Health(),
		Ejected:      h.outlier.Ejected(),
		FailedCheck:  h.checked.Load() == checkFailed,
		PendingCheck: h.checked.Load() == checkPending,
		Active:       h.Active(),
		Total:        h.numbers.total.Load(), Success: h.numbers.success.Load(), Errors: h.numbers.errors.Load(),
	}
	for _, p := range h.pools.all() {
		all, failed := p.Tried()
		v.Connections, v.Tried, v.Missed = v.Connections+p.Open(), v.Tried+all, v.Missed+failed
	}
	if h.breaker != nil {
		b := h.breaker.View(now)
		v.Circuit = &b
	}
	return v
}
