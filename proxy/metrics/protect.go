// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of a cluster's limits, cluster.<name>.circuit_breakers.<priority>.*. All are gauges that upstream computes
// when they are read (SetFunc): 1 while the limit refuses, and what is left of it. The latter are there only for limits
// with track_remaining.
const (
	LimitCxOpen = iota
	LimitRqPendingOpen
	LimitRqOpen
	LimitRqRetryOpen
	LimitRemainingCx
	LimitRemainingPending
	LimitRemainingRq
	LimitRemainingRetries
)

func limitsSchema(priority string) *stats.Schema {
	return &stats.Schema{
		Name: "cluster.circuit_breakers." + priority,
		Defs: []stats.Def{
			LimitCxOpen:           {Name: "cx_open", Kind: stats.Gauge},
			LimitRqPendingOpen:    {Name: "rq_pending_open", Kind: stats.Gauge},
			LimitRqOpen:           {Name: "rq_open", Kind: stats.Gauge},
			LimitRqRetryOpen:      {Name: "rq_retry_open", Kind: stats.Gauge},
			LimitRemainingCx:      {Name: "remaining_cx", Kind: stats.Gauge, Lazy: true},
			LimitRemainingPending: {Name: "remaining_pending", Kind: stats.Gauge, Lazy: true},
			LimitRemainingRq:      {Name: "remaining_rq", Kind: stats.Gauge, Lazy: true},
			LimitRemainingRetries: {Name: "remaining_retries", Kind: stats.Gauge, Lazy: true},
		},
	}
}

var limitsSchemas = [...]*stats.Schema{
	mesh.PriorityDefault: limitsSchema("default"),
	mesh.PriorityHigh:    limitsSchema("high"),
}

// Limits is the numbers of a cluster's limits at one priority.
type Limits struct{ *stats.Group }

// NewLimits returns the numbers of the limits of a cluster, by its stat name. Release gives them back.
func NewLimits(reg *stats.Registry, cluster string, p mesh.Priority) *Limits {
	names := [...]string{mesh.PriorityDefault: "default", mesh.PriorityHigh: "high"}
	return &Limits{clusterPart(reg, limitsSchemas[p], cluster, "circuit_breakers."+names[p])}
}

// The numbers of outlier detection, cluster.<name>.outlier_detection.*.
const (
	// EjectionsActive is the hosts that are ejected. By upstream.
	EjectionsActive = iota
	// EjectionsOverflow: a host was not ejected because too many are. By upstream.
	EjectionsOverflow
	// EjectionsDetected... : a rule was broken; EjectionsEnforced... : that ejected the host. By Observe.
	EjectionsDetectedConsecutive5xx
	EjectionsEnforcedConsecutive5xx
	EjectionsDetectedConsecutiveGatewayFailure
	EjectionsEnforcedConsecutiveGatewayFailure
	EjectionsDetectedConsecutiveLocalOriginFailure
	EjectionsEnforcedConsecutiveLocalOriginFailure

	// EjectionsEnforcedTotal follows from others.
	EjectionsEnforcedTotal
)

var outlierSchema = &stats.Schema{
	Name: "cluster.outlier_detection",
	Defs: []stats.Def{
		EjectionsActive:                                {Name: "ejections_active", Kind: stats.Gauge},
		EjectionsOverflow:                              {Name: "ejections_overflow"},
		EjectionsDetectedConsecutive5xx:                {Name: "ejections_detected_consecutive_5xx"},
		EjectionsEnforcedConsecutive5xx:                {Name: "ejections_enforced_consecutive_5xx"},
		EjectionsDetectedConsecutiveGatewayFailure:     {Name: "ejections_detected_consecutive_gateway_failure"},
		EjectionsEnforcedConsecutiveGatewayFailure:     {Name: "ejections_enforced_consecutive_gateway_failure"},
		EjectionsDetectedConsecutiveLocalOriginFailure: {Name: "ejections_detected_consecutive_local_origin_failure"},
		EjectionsEnforcedConsecutiveLocalOriginFailure: {Name: "ejections_enforced_consecutive_local_origin_failure"},
		EjectionsEnforcedTotal: {Name: "ejections_enforced_total", Sum: []int{EjectionsEnforcedConsecutive5xx,
			EjectionsEnforcedConsecutiveGatewayFailure, EjectionsEnforcedConsecutiveLocalOriginFailure}},
	},
}

// Outlier is the numbers of a cluster's outlier detection.
type Outlier struct{ *stats.Group }

// NewOutlier returns the numbers of the outlier detection of a cluster, by its stat name. Release gives them back.
func NewOutlier(reg *stats.Registry, cluster string) *Outlier {
	return &Outlier{clusterPart(reg, outlierSchema, cluster, "outlier_detection")}
}

// Observe counts an ejection, enforced or not. The return of a host moves nothing here.
func (x *Outlier) Observe(n *mesh.EjectionNotice) {
	var i int
	switch n.Reason {
	case "consecutive_5xx":
		i = EjectionsDetectedConsecutive5xx
	case "consecutive_gateway_failure":
		i = EjectionsDetectedConsecutiveGatewayFailure
	case "consecutive_local_origin_failure":
		i = EjectionsDetectedConsecutiveLocalOriginFailure
	default:
		return
	}
	x.Inc(0, i)
	if n.Enforced {
		x.Inc(0, i+1)
	}
}

// The numbers of active health checks, cluster.<name>.health_check.*. They are moved by health, the gauges by upstream.
const (
	// HealthCheckAttempt: a check began.
	HealthCheckAttempt = iota
	// HealthCheckSuccess and HealthCheckFailure: it succeeded, or failed in any way.
	HealthCheckSuccess
	HealthCheckFailure
	// HealthCheckNetworkFailure: it failed without an answer; HealthCheckFailure moves as well.
	HealthCheckNetworkFailure
	// HealthCheckVerifyCluster: an answer's x-envoy-upstream-healthchecked-cluster was compared with the configuration.
	HealthCheckVerifyCluster
	// HealthCheckHealthy is the hosts that are healthy by their checks, HealthCheckDegraded those of them that are degraded.
	HealthCheckHealthy
	HealthCheckDegraded
)

var healthCheckSchema = &stats.Schema{
	Name: "cluster.health_check",
	Defs: []stats.Def{
		HealthCheckAttempt:        {Name: "attempt"},
		HealthCheckSuccess:        {Name: "success"},
		HealthCheckFailure:        {Name: "failure"},
		HealthCheckNetworkFailure: {Name: "network_failure"},
		HealthCheckVerifyCluster:  {Name: "verify_cluster"},
		HealthCheckHealthy:        {Name: "healthy", Kind: stats.Gauge},
		HealthCheckDegraded:       {Name: "degraded", Kind: stats.Gauge},
	},
}

// HealthCheck is the numbers of a cluster's active health checks.
type HealthCheck struct{ *stats.Group }

// NewHealthCheck returns the numbers of the health checks of a cluster, by its stat name. Release gives them back.
func NewHealthCheck(reg *stats.Registry, cluster string) *HealthCheck {
	return &HealthCheck{clusterPart(reg, healthCheckSchema, cluster, "health_check")}
}

// The numbers of Meshtap's own circuit breaker, cluster.<name>.meshtap_circuit_*.
const (
	// CircuitState is the state of the cluster's circuit, a mesh.CircuitState. By Observe.
	CircuitState = iota
	// CircuitOpened: the circuit opened. By Observe.
	CircuitOpened
	// CircuitRefused: it refused a request. By upstream.
	CircuitRefused
)

var circuitSchema = &stats.Schema{
	Own: true,
	Defs: []stats.Def{
		CircuitState:   {Name: "meshtap_circuit_state", Kind: stats.Gauge},
		CircuitOpened:  {Name: "meshtap_circuit_opened_total"},
		CircuitRefused: {Name: "meshtap_circuit_refused_total"},
	},
}

// Circuit is the numbers of a cluster's circuit breaker. With one circuit per host, CircuitState is left alone.
type Circuit struct{ *stats.Group }

// NewCircuit returns the numbers of the circuit breaker of a cluster, by its stat name. Release gives them back.
func NewCircuit(reg *stats.Registry, cluster string) *Circuit {
	return &Circuit{clusterPart(reg, circuitSchema, cluster, "")}
}

// Observe counts a transition; perHost says that it is that of one host's circuit.
func (c *Circuit) Observe(n *mesh.CircuitNotice, perHost bool) {
	if n.To == mesh.CircuitIsOpen {
		c.Inc(0, CircuitOpened)
	}
	if !perHost {
		c.Set(CircuitState, int64(n.To))
	}
}

// clusterPart returns the group of a schema below cluster.<name>.
func clusterPart(reg *stats.Registry, s *stats.Schema, cluster, part string) *stats.Group {
	cluster = StatName(cluster)
	prefix := "cluster." + cluster
	if part != "" {
		prefix += "." + part
	}
	return reg.Group(s, prefix, stats.Tag{Name: tagCluster, Value: cluster})
}
