// SPDX-License-Identifier: Apache-2.0

package lb

import (
	clusterprovidedpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randompb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobinpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/registry"
)

// ParseRoundRobin reads the policy's message. Slow start and locality load balancing are refused by name.
func ParseRoundRobin(_ string, b []byte) (registry.Parsed, error) {
	m := new(roundrobinpb.RoundRobin)
	if err := unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	if err := refuse(m.GetSlowStartConfig(), m.GetLocalityLbConfig()); err != nil {
		return registry.Parsed{}, err
	}
	return registry.Parsed{Config: DefaultRoundRobin(), NoEffect: unknown(m)}, nil
}

// ParseRandom reads the policy's message. Locality load balancing is refused by name.
func ParseRandom(_ string, b []byte) (registry.Parsed, error) {
	m := new(randompb.Random)
	if err := unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	if err := refuse(nil, m.GetLocalityLbConfig()); err != nil {
		return registry.Parsed{}, err
	}
	return registry.Parsed{Config: DefaultRandom(), NoEffect: unknown(m)}, nil
}

// ParseLeastRequest reads the policy's message. Slow start and locality load balancing are refused by name; the unused enable_full_scan is reported as without effect.
func ParseLeastRequest(_ string, b []byte) (registry.Parsed, error) {
	m := new(leastrequestpb.LeastRequest)
	if err := unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	if err := refuse(m.GetSlowStartConfig(), m.GetLocalityLbConfig()); err != nil {
		return registry.Parsed{}, err
	}
	c := DefaultLeastRequest()
	if v := m.GetChoiceCount(); v != nil {
		c.ChoiceCount = v.GetValue()
	}
	noEffect := unknown(m)
	if v := m.GetActiveRequestBias(); v != nil {
		c.ActiveRequestBias = v.GetDefaultValue()
		c.BiasKey = v.GetRuntimeKey()
	}
	switch v := m.GetSelectionMethod(); v {
	case leastrequestpb.LeastRequest_N_CHOICES:
	case leastrequestpb.LeastRequest_FULL_SCAN:
		c.FullScan = true
	default:
		return registry.Parsed{}, registry.Errorf("selection_method", "is %d; allowed are N_CHOICES and FULL_SCAN", v)
	}
	//lint:ignore SA1019 Envoy ignores this field since selection_method replaced it; it is read in order to say so.
	if m.EnableFullScan != nil {
		noEffect = append(noEffect, "enable_full_scan")
	}
	return registry.Parsed{Config: c, NoEffect: noEffect}, c.Validate()
}

// ParseClusterProvided reads the policy's message, which has no fields.
func ParseClusterProvided(_ string, b []byte) (registry.Parsed, error) {
	m := new(clusterprovidedpb.ClusterProvided)
	if err := unmarshal(b, m); err != nil {
		return registry.Parsed{}, err
	}
	return registry.Parsed{Config: DefaultClusterProvided(), NoEffect: unknown(m)}, nil
}

// unmarshal reads a policy's message.
func unmarshal(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Errorf("", "is not a valid %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return nil
}

// refuse returns an error for the parts that policies share and that change where traffic goes, but not here.
func refuse(slowStart *commonpb.SlowStartConfig, locality *commonpb.LocalityLbConfig) error {
	switch {
	case slowStart != nil:
		return registry.Errorf("slow_start_config", "slow start is not supported; leave it out")
	case locality.GetZoneAwareLbConfig() != nil:
		return registry.Errorf("locality_lb_config.zone_aware_lb_config",
			"zone aware load balancing is not supported; leave it out to balance over all localities of a priority")
	case locality.GetLocalityWeightedLbConfig() != nil:
		return registry.Errorf("locality_lb_config.locality_weighted_lb_config",
			"locality weighted load balancing is not supported; leave it out to balance by the weights of endpoints")
	}
	return nil
}

// unknown reports fields that this version of the message does not have.
func unknown(m proto.Message) []string {
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return []string{"(unknown fields)"}
	}
	return nil
}
