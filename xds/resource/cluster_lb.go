// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	clusterprovidedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// policy reads the load balancing policy, in its new form or as the older enum.
func (s *scope) policy(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	switch {
	case m.GetLoadBalancingPolicy() != nil:
		s.policyList(p.field("load_balancing_policy"), c, m)
	case m.GetLbPolicy() == clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		s.errorf(p.field("load_balancing_policy"), "is required where lb_policy is LOAD_BALANCING_POLICY_CONFIG")
	default:
		s.policyEnum(p, c, m)
	}
	provided := strings.HasSuffix(c.Policy.TypeURL, ".ClusterProvided")
	switch {
	case c.Discovery == mesh.OriginalDestination && !provided && c.Policy.TypeURL != "":
		s.errorf(p.field("lb_policy"), "must be CLUSTER_PROVIDED for type ORIGINAL_DST")
	case c.Discovery != mesh.OriginalDestination && provided:
		s.errorf(p.field("lb_policy"), "CLUSTER_PROVIDED is for clusters of type ORIGINAL_DST")
	}
}

// policyList takes the first policy of the list that is known.
func (s *scope) policyList(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	if m.GetLbPolicy() != clusterv3.Cluster_ROUND_ROBIN && m.GetLbPolicy() != clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG {
		s.notef((*at)(nil).field("lb_policy"), "load_balancing_policy counts, as in Envoy")
	}
	s.unusedConfig(m, nil)
	var names []string
	for i, e := range m.GetLoadBalancingPolicy().GetPolicies() {
		x := e.GetTypedExtensionConfig()
		tp := p.item("policies", i).field("typed_extension_config").field("typed_config")
		t := unwrap(x.GetTypedConfig())
		names = append(names, t.name)
		if !slices.Contains(s.d.opt.Parsers.Known(registry.LBPolicy), t.name) {
			s.notef(tp, "type %s is not known; the first known policy of the list counts", t.name)
			continue
		}
		c.Policy, _ = s.extension(tp, registry.LBPolicy, x.GetName(), x.GetTypedConfig(), false)
		return
	}
	s.errorf(p.field("policies"), "none of %s is supported; supported: %s", strings.Join(names, ", "),
		strings.Join(s.d.opt.Parsers.Known(registry.LBPolicy), ", "))
}

// legacyPolicies are the values of the enum with the messages that took their place.
var legacyPolicies = []struct {
	value   clusterv3.Cluster_LbPolicy
	message func(*clusterv3.Cluster) proto.Message
	field   string
}{
	{clusterv3.Cluster_ROUND_ROBIN, roundRobin, "round_robin_lb_config"},
	{clusterv3.Cluster_LEAST_REQUEST, leastRequest, "least_request_lb_config"},
	{clusterv3.Cluster_RANDOM, func(*clusterv3.Cluster) proto.Message { return &randomv3.Random{} }, ""},
	{
		clusterv3.Cluster_CLUSTER_PROVIDED,
		func(*clusterv3.Cluster) proto.Message { return &clusterprovidedv3.ClusterProvided{} }, "original_dst_lb_config",
	},
}

// policyEnum turns the enum and the message beside it into the typed configuration that the policy itself reads.
func (s *scope) policyEnum(p *at, c *mesh.Cluster, m *clusterv3.Cluster) {
	var supported []string
	for _, l := range legacyPolicies {
		supported = append(supported, l.value.String())
		if l.value != m.GetLbPolicy() {
			continue
		}
		s.unusedConfig(m, &l.field)
		a, err := anypb.New(l.message(m))
		if err != nil {
			s.errorf(p.field(l.field), "%v", err)
			return
		}
		at := p.field("lb_policy")
		if l.field != "" {
			at = p.field(l.field)
		}
		c.Policy, _ = s.extension(at, registry.LBPolicy, l.value.String(), a, false)
		return
	}
	s.errorf(p.field("lb_policy"), "%s is not supported; supported: %s", m.GetLbPolicy(), strings.Join(supported, ", "))
}

// unusedConfig reports the configuration of a policy that is not in use.
func (s *scope) unusedConfig(m *clusterv3.Cluster, used *string) {
	for field, set := range map[string]bool{
		"round_robin_lb_config":   m.GetRoundRobinLbConfig() != nil,
		"least_request_lb_config": m.GetLeastRequestLbConfig() != nil,
	} {
		if set && (used == nil || *used != field) {
			s.notef((*at)(nil).field(field), "the cluster has another load balancing policy, as Envoy sees it, too")
		}
	}
}

func roundRobin(m *clusterv3.Cluster) proto.Message {
	return &roundrobinv3.RoundRobin{SlowStartConfig: slowStart(m.GetRoundRobinLbConfig().GetSlowStartConfig())}
}

func leastRequest(m *clusterv3.Cluster) proto.Message {
	c := m.GetLeastRequestLbConfig()
	return &leastrequestv3.LeastRequest{
		ChoiceCount:       c.GetChoiceCount(),
		ActiveRequestBias: c.GetActiveRequestBias(),
		SlowStartConfig:   slowStart(c.GetSlowStartConfig()),
	}
}

func slowStart(m *clusterv3.Cluster_SlowStartConfig) *commonv3.SlowStartConfig {
	if m == nil {
		return nil
	}
	return &commonv3.SlowStartConfig{
		SlowStartWindow:  m.GetSlowStartWindow(),
		Aggression:       m.GetAggression(),
		MinWeightPercent: m.GetMinWeightPercent(),
	}
}

func addPolicyFields(t *protofields.Table) {
	t.Add(&clusterv3.LoadBalancingPolicy{}, protofields.Honour("policies"))
	t.Add(&clusterv3.LoadBalancingPolicy_Policy{}, protofields.Honour("typed_extension_config"))
}
