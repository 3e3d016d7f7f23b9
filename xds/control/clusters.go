// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	breakerv1 "github.com/meshtap/meshtap/api/meshtap/breaker/v1"
	"github.com/meshtap/meshtap/xds/resource"
)

// breakerKey is where Meshtap's circuit breaker stands in a cluster's metadata.
const breakerKey = "io.meshtap.breaker"

// Defaults of mesh.yaml where Envoy has none.
const (
	checkInterval  = Duration(5 * time.Second)
	checkTimeout   = Duration(time.Second)
	unhealthyAfter = 3
	healthyAfter   = 2
	// appTimeout bounds a connection to the proxy's own application, which is on the same machine.
	appTimeout = Duration(time.Second)
)

// clusters makes the clusters of a service, and their endpoints: one of all of its endpoints, and one for each version
// that a split names.
func (b *builder) clusters(name string) {
	s := b.mesh.Services[name]
	if !s.hosted() {
		return
	}
	if s.DNS != nil {
		c := b.cluster(name, s)
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		c.DnsRefreshRate = durationOr(s.DNS.Refresh, 0)
		c.RespectDnsTtl = s.DNS.Refresh == 0
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: group([]*endpointv3.LbEndpoint{
			lbEndpoint(socketAddress(s.DNS.Host, s.DNS.Port), nil),
		})}
		b.out.add(resource.ClusterType, name, c)
		return
	}
	b.eds(name, s, "")
	for _, v := range b.versions(name) {
		b.eds(versionCluster(name, v), s, v)
	}
}

// eds makes a cluster whose endpoints are a resource of their own. An empty version takes all endpoints.
func (b *builder) eds(cluster string, s *Service, version string) {
	c := b.cluster(cluster, s)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS()}
	b.out.add(resource.ClusterType, cluster, c)
	var list []*endpointv3.LbEndpoint
	for _, e := range s.Endpoints {
		if version == "" || e.Version == version {
			list = append(list, lbEndpoint(address(e.Address), e.Weight))
		}
	}
	b.out.add(resource.EndpointsType, cluster, &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: group(list)})
}

func group(list []*endpointv3.LbEndpoint) []*endpointv3.LocalityLbEndpoints {
	if len(list) == 0 {
		return nil
	}
	return []*endpointv3.LocalityLbEndpoints{{LbEndpoints: list}}
}

func lbEndpoint(a *corev3.Address, weight *uint32) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
		LoadBalancingWeight: number(weight),
	}
}

// cluster makes a cluster with the policy of its service, without its endpoints.
func (b *builder) cluster(name string, s *Service) *clusterv3.Cluster {
	p := s.Policy
	c := &clusterv3.Cluster{
		Name:             name,
		ConnectTimeout:   durationOr(p.ConnectTimeout, 0),
		LbPolicy:         clusterv3.Cluster_LbPolicy(enum(clusterv3.Cluster_LbPolicy_value, p.LB)),
		CircuitBreakers:  thresholds(p.Limits),
		OutlierDetection: outlier(p.Outlier),
	}
	if p.PanicThreshold != nil {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: float64(*p.PanicThreshold)}}
	}
	if s.HealthCheck != nil {
		c.HealthChecks = []*corev3.HealthCheck{healthCheck(name, s.HealthCheck)}
	}
	if p.Breaker != nil {
		c.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{breakerKey: pack(breaker(p.Breaker))}}
	}
	return c
}

func thresholds(l *Limits) *clusterv3.CircuitBreakers {
	if l == nil {
		return nil
	}
	t := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: number(l.Connections), MaxPendingRequests: number(l.Pending),
		MaxRequests: number(l.Requests), MaxRetries: number(l.Retries),
	}
	if l.RetryBudget != nil {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: float64(*l.RetryBudget)}}
	}
	out := &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
	if l.ConnectionsPerEndpoint != nil {
		out.PerHostThresholds = []*clusterv3.CircuitBreakers_Thresholds{{MaxConnections: number(l.ConnectionsPerEndpoint)}}
	}
	return out
}

// outlier turns ejection by success rate off: mesh.yaml does not have it, and Envoy would do it by itself. What is set
// is enforced.
func outlier(o *Outlier) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{
		Interval: durationOr(o.Interval, 0), BaseEjectionTime: durationOr(o.Ejection, 0),
		EnforcingSuccessRate:      wrapperspb.UInt32(0),
		AlwaysEjectOneHost:        wrapperspb.Bool(true),
		Consecutive_5Xx:           numberOr(o.Consecutive5xx, 0),
		ConsecutiveGatewayFailure: numberOr(o.ConsecutiveGateway, 0),
	}
	out.EnforcingConsecutive_5Xx = enforce(o.Consecutive5xx)
	out.EnforcingConsecutiveGatewayFailure = enforce(o.ConsecutiveGateway)
	if o.MaxEjected != nil {
		out.MaxEjectionPercent = wrapperspb.UInt32(uint32(math.Round(float64(*o.MaxEjected))))
		out.AlwaysEjectOneHost = wrapperspb.Bool(*o.MaxEjected > 0)
	}
	return out
}

func enforce(limit *uint32) *wrapperspb.UInt32Value {
	if limit == nil || *limit == 0 {
		return wrapperspb.UInt32(0)
	}
	return wrapperspb.UInt32(100)
}

func healthCheck(cluster string, h *HealthCheck) *corev3.HealthCheck {
	out := &corev3.HealthCheck{
		Interval: durationOr(h.Interval, checkInterval), Timeout: durationOr(h.Timeout, checkTimeout),
		// Envoy asks hosts without traffic once a minute only; a mesh.yaml says one interval and means it.
		NoTrafficInterval:  durationOr(h.Interval, checkInterval),
		UnhealthyThreshold: numberOr(h.UnhealthyAfter, unhealthyAfter), HealthyThreshold: numberOr(h.HealthyAfter, healthyAfter),
	}
	if h.Path == "" {
		out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
		return out
	}
	out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
		Host: cluster, Path: h.Path,
	}}
	return out
}

func breaker(b *Breaker) *breakerv1.Breaker {
	return &breakerv1.Breaker{
		Window: durationOr(b.Window, 0), MinVolume: number(b.MinVolume), ConsecutiveFailures: b.ConsecutiveFailures,
		ErrorRate: float64(b.ErrorRate) / 100, SlowRate: float64(b.SlowRate) / 100, SlowAfter: durationOr(b.SlowAfter, 0),
		OpenFor: durationOr(b.OpenFor, 0), Probes: number(b.Probes), ProbeSuccesses: number(b.ProbeSuccesses),
		PerHost: b.PerEndpoint,
	}
}
