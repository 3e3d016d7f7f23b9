// SPDX-License-Identifier: Apache-2.0

// Package runtimekeys names the keys of the runtime that are read without a configuration that names them: those of
// Envoy's own that have a meaning here (Envoy, "Cluster manager: Runtime", "Circuit breaking: Runtime", "Router: Runtime").
// Package proxy/upstream reads them, package xds/layered tells which values are read by nobody.
package runtimekeys

import "strings"

// The keys of all clusters. Times are in milliseconds, shares in percent.
const (
	PanicThreshold = "upstream.healthy_panic_threshold"
	RetryBackOff   = "upstream.base_retry_backoff_ms"
	UseRetry       = "upstream.use_retry"

	Consecutive5xx     = "outlier_detection.consecutive_5xx"
	ConsecutiveGateway = "outlier_detection.consecutive_gateway_failure"
	ConsecutiveLocal   = "outlier_detection.consecutive_local_origin_failure"
	Enforcing5xx       = "outlier_detection.enforcing_consecutive_5xx"
	EnforcingGateway   = "outlier_detection.enforcing_consecutive_gateway_failure"
	EnforcingLocal     = "outlier_detection.enforcing_consecutive_local_origin_failure"
	OutlierInterval    = "outlier_detection.interval_ms"
	BaseEjection       = "outlier_detection.base_ejection_time_ms"
	MaxEjection        = "outlier_detection.max_ejection_time_ms"
	EjectionJitter     = "outlier_detection.max_ejection_time_jitter_ms"
	MaxEjectionPercent = "outlier_detection.max_ejection_percent"
)

// The settings of a circuit breaker, for Limit.
const (
	MaxConnections = "max_connections"
	MaxPending     = "max_pending_requests"
	MaxRequests    = "max_requests"
	MaxRetries     = "max_retries"
	BudgetPercent  = "retry_budget.budget_percent"
	BudgetMin      = "retry_budget.min_retry_concurrency"
)

const limits = "circuit_breakers."

// priorities are the names of the routing priorities, by mesh.Priority.
var priorities = [...]string{"default", "high"}

// Limit returns the key of a setting of a cluster's circuit breaker at a priority (a mesh.Priority).
func Limit(cluster string, priority int, setting string) string {
	return limits + cluster + "." + priorities[priority] + "." + setting
}

// Read reports whether a key is one of these, whatever its cluster.
func Read(key string) bool {
	switch key {
	case PanicThreshold, RetryBackOff, UseRetry, Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal, Enforcing5xx,
		EnforcingGateway, EnforcingLocal, OutlierInterval, BaseEjection, MaxEjection, EjectionJitter, MaxEjectionPercent:
		return true
	}
	rest, ok := strings.CutPrefix(key, limits)
	if !ok {
		return false
	}
	for _, setting := range [...]string{MaxConnections, MaxPending, MaxRequests, MaxRetries, BudgetPercent, BudgetMin} {
		for _, priority := range priorities {
			if cluster, ok := strings.CutSuffix(rest, "."+priority+"."+setting); ok && cluster != "" {
				return true
			}
		}
	}
	return false
}
