// SPDX-License-Identifier: Apache-2.0

package resource

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// circuitBreakers reads the thresholds of both priorities. Of several for one priority the first counts, as in Envoy.
func (s *scope) circuitBreakers(p *at, c *mesh.Cluster, m *clusterv3.CircuitBreakers) {
	c.Limits = [2]mesh.Limits{thresholds(nil), thresholds(nil)}
	var set, perHost [2]bool
	for i, t := range m.GetThresholds() {
		tp := p.item("thresholds", i)
		if pr, ok := s.priority(tp, &set, t); ok {
			c.Limits[pr] = thresholds(t)
			if t.GetRetryBudget() != nil && t.GetMaxRetries() != nil {
				s.notef(tp.field("max_retries"), "retry_budget counts, as in Envoy")
			}
		}
	}
	for i, t := range m.GetPerHostThresholds() {
		tp := p.item("per_host_thresholds", i)
		pr, ok := s.priority(tp, &perHost, t)
		if !ok {
			continue
		}
		if t.GetMaxPendingRequests() != nil || t.GetMaxRequests() != nil || t.GetMaxRetries() != nil ||
			t.GetRetryBudget() != nil || t.GetMaxConnectionPools() != nil || t.GetTrackRemaining() {
			s.errorf(tp, "may hold priority and max_connections only")
		}
		if pr == mesh.PriorityHigh {
			s.errorf(tp.field("priority"), "HIGH is not supported: the limit by host is one for both priorities")
			continue
		}
		c.MaxConnectionsPerHost = int(t.GetMaxConnections().GetValue())
		if t.GetMaxConnections() != nil && c.MaxConnectionsPerHost == 0 {
			s.errorf(tp.field("max_connections"), "must be at least 1")
		}
	}
}

// priority returns the priority that a threshold is for, and false where an earlier one is for it.
func (s *scope) priority(p *at, set *[2]bool, t *clusterv3.CircuitBreakers_Thresholds) (mesh.Priority, bool) {
	pr := mesh.PriorityDefault
	if t.GetPriority() == corev3.RoutingPriority_HIGH {
		pr = mesh.PriorityHigh
	}
	if set[pr] {
		s.notef(p, "an earlier one is for the same priority; the first counts, as in Envoy")
		return pr, false
	}
	set[pr] = true
	return pr, true
}

func thresholds(t *clusterv3.CircuitBreakers_Thresholds) mesh.Limits {
	l := mesh.Limits{
		Connections:    uint32Or(t.GetMaxConnections(), defaultThreshold),
		Pending:        uint32Or(t.GetMaxPendingRequests(), defaultThreshold),
		Requests:       uint32Or(t.GetMaxRequests(), defaultThreshold),
		Retries:        uint32Or(t.GetMaxRetries(), defaultMaxRetries),
		TrackRemaining: t.GetTrackRemaining(),
	}
	if b := t.GetRetryBudget(); b != nil || t.GetMaxRetries() == nil {
		l.Budget = &mesh.RetryBudget{
			Percent:        defaultRetryBudgetPercent,
			MinConcurrency: uint32Or(b.GetMinRetryConcurrency(), defaultMaxRetries),
		}
		if b.GetBudgetPercent() != nil {
			l.Budget.Percent = b.GetBudgetPercent().GetValue()
		}
	}
	return l
}

func (s *scope) outlier(p *at, m *clusterv3.OutlierDetection) *mesh.Outlier {
	if m == nil {
		return nil
	}
	o := &mesh.Outlier{
		Consecutive5xx:     uint32Or(m.GetConsecutive_5Xx(), 5),
		ConsecutiveGateway: uint32Or(m.GetConsecutiveGatewayFailure(), 5),
		ConsecutiveLocal:   uint32Or(m.GetConsecutiveLocalOriginFailure(), 5),
		Enforcing5xx:       uint32Or(m.GetEnforcingConsecutive_5Xx(), 100),
		EnforcingGateway:   uint32Or(m.GetEnforcingConsecutiveGatewayFailure(), 0),
		EnforcingLocal:     uint32Or(m.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		Interval:           s.durationOr(p, "interval", m.GetInterval(), defaultOutlierInterval),
		BaseEjection:       s.durationOr(p, "base_ejection_time", m.GetBaseEjectionTime(), defaultBaseEjection),
		Jitter:             s.duration(p, "max_ejection_time_jitter", m.GetMaxEjectionTimeJitter()),
		MaxEjectionPercent: uint32Or(m.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:     m.GetAlwaysEjectOneHost().GetValue(),
		SplitLocal:         m.GetSplitExternalLocalOriginErrors(),
		HealthyUnejects:    boolOr(m.GetSuccessfulActiveHealthCheckUnejectHost(), true),
	}
	o.MaxEjection = s.durationOr(p, "max_ejection_time", m.GetMaxEjectionTime(), max(defaultMaxEjection, o.BaseEjection))
	if o.MaxEjection < o.BaseEjection {
		s.errorf(p.field("max_ejection_time"), "must not be less than base_ejection_time (%v)", o.BaseEjection)
	}
	s.rateEjection(p, m)
	return o
}

// rateEjection refuses numbers for ejection by success rate, unless that is switched off: then they mean nothing in Envoy
// either.
func (s *scope) rateEjection(p *at, m *clusterv3.OutlierDetection) {
	if m.GetEnforcingSuccessRate() != nil {
		return
	}
	s.notef(p, "Envoy also ejects by success rate unless enforcing_success_rate is 0; that is not supported here")
	for field, v := range map[string]*wrapperspb.UInt32Value{
		"success_rate_minimum_hosts":  m.GetSuccessRateMinimumHosts(),
		"success_rate_request_volume": m.GetSuccessRateRequestVolume(),
		"success_rate_stdev_factor":   m.GetSuccessRateStdevFactor(),
	} {
		if v != nil {
			s.errorf(p.field(field), "ejection by success rate is not supported; set enforcing_success_rate: 0")
		}
	}
}

func addProtectionFields(t *protofields.Table) {
	t.Add(&clusterv3.CircuitBreakers{}, protofields.Honour("thresholds", "per_host_thresholds"))
	t.Add(&clusterv3.CircuitBreakers_Thresholds{},
		protofields.Honour("priority", "max_connections", "max_pending_requests", "max_requests", "max_retries",
			"retry_budget", "track_remaining"),
		protofields.Ignore("there is one pool for a host and protocol", "max_connection_pools"))
	t.Add(&clusterv3.CircuitBreakers_Thresholds_RetryBudget{},
		protofields.Honour("budget_percent", "min_retry_concurrency"),
		protofields.Ignore("the budget counts requests in flight at the moment", "budget_interval=0s"))
	const unused = "there is no ejection by failure percentage"
	t.Add(&clusterv3.OutlierDetection{},
		protofields.Honour("consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent",
			"enforcing_consecutive_5xx", "consecutive_gateway_failure", "enforcing_consecutive_gateway_failure",
			"split_external_local_origin_errors", "consecutive_local_origin_failure",
			"enforcing_consecutive_local_origin_failure", "max_ejection_time", "max_ejection_time_jitter",
			"successful_active_health_check_uneject_host", "always_eject_one_host"),
		protofields.Refuse("ejection by success rate or failure percentage is not supported; supported: 0",
			"enforcing_success_rate=0", "enforcing_local_origin_success_rate=0", "enforcing_failure_percentage=0",
			"enforcing_failure_percentage_local_origin=0"),
		// These are refused unless their switch is off.
		protofields.Opaque("success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor"),
		protofields.Ignore(unused, "failure_percentage_threshold", "failure_percentage_minimum_hosts",
			"failure_percentage_request_volume"),
		protofields.Refuse("outlier monitor plug-ins are not supported", "monitors"),
		protofields.Refuse("hosts are healthy or ejected", "detect_degraded_hosts=false"))
}
