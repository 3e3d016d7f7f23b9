// SPDX-License-Identifier: Apache-2.0

// Package runtimekeys names the keys of the runtime that are read without a configuration that names them: those of
// Envoy's own that have a meaning here (Envoy, "Cluster manager: Runtime", "Circuit breaking: Runtime", "Router: Runtime",
// "Health checking: Runtime"). Packages proxy/upstream and proxy/health read them, package xds/layered tells which values
// are read by nobody.
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

	HealthMinInterval   = "health_check.min_interval"
	HealthMaxInterval   = "health_check.max_interval"
	HealthVerifyCluster = "health_check.verify_cluster"
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

const (
	limits      = "circuit_breakers."
	maintenance = "upstream.maintenance_mode."
)

// priorities are the names of the routing priorities, by mesh.Priority.
var priorities = [...]string{"default", "high"}

// Limit returns the key of a setting of a cluster's circuit breaker at a priority (a mesh.Priority).
func Limit(cluster string, priority int, setting string) string {
	return limits + cluster + "." + priorities[priority] + "." + setting
}

// Maintenance returns the key of the share of a cluster's requests that are refused.
func Maintenance(cluster string) string { return maintenance + cluster }

// Of reports whether a key is one of these, and of which cluster: "" is said of those of all clusters.
func Of(key string) (cluster string, ok bool) {
	switch key {
	case PanicThreshold, RetryBackOff, UseRetry, Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal, Enforcing5xx,
		EnforcingGateway, EnforcingLocal, OutlierInterval, BaseEjection, MaxEjection, EjectionJitter, MaxEjectionPercent,
		HealthMinInterval, HealthMaxInterval, HealthVerifyCluster:
		return "", true
	}
	if cluster, ok = strings.CutPrefix(key, maintenance); ok {
		return cluster, cluster != ""
	}
	rest, ok := strings.CutPrefix(key, limits)
	if !ok {
		return "", false
	}
	for _, setting := range [...]string{MaxConnections, MaxPending, MaxRequests, MaxRetries, BudgetPercent, BudgetMin} {
		for _, priority := range priorities {
			if cluster, ok := strings.CutSuffix(rest, "."+priority+"."+setting); ok && cluster != "" {
				return cluster, true
			}
		}
	}
	return "", false
}
