// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterprovidedpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randompb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobinpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

// fields says which fields of the policies' messages are honoured.
var fields = func() *protofields.Table {
	slowStart := protofields.Refuse("slow start is not supported; leave it out", "slow_start_config")
	t := protofields.New()
	t.Add(&roundrobinpb.RoundRobin{}, protofields.Honour("locality_lb_config"), slowStart)
	t.Add(&randompb.Random{}, protofields.Honour("locality_lb_config"))
	t.Add(&leastrequestpb.LeastRequest{},
		protofields.Honour("choice_count", "active_request_bias", "locality_lb_config", "selection_method"),
		protofields.Ignore("selection_method replaced it, as in Envoy", "enable_full_scan"), slowStart)
	t.Add(&clusterprovidedpb.ClusterProvided{})
	t.Add(&commonpb.LocalityLbConfig{},
		protofields.Refuse("zone aware load balancing is not supported; leave it out to balance over all localities of a priority",
			"zone_aware_lb_config"),
		protofields.Refuse("locality weighted load balancing is not supported; leave it out to balance by the weights of endpoints",
			"locality_weighted_lb_config"))
	t.Add(&corepb.RuntimeDouble{}, protofields.Honour("default_value", "runtime_key"))
	return t
}()

// Fields returns the table of the fields that the policies honour, for documents and for tests.
func Fields() *protofields.Table { return fields }

// ParseRoundRobin reads the policy's message. Slow start and locality load balancing are refused by name.
func ParseRoundRobin(_ string, b []byte) (registry.Parsed, error) {
	return unmarshal(b, new(roundrobinpb.RoundRobin), DefaultRoundRobin())
}

// ParseRandom reads the policy's message. Locality load balancing is refused by name.
func ParseRandom(_ string, b []byte) (registry.Parsed, error) {
	return unmarshal(b, new(randompb.Random), DefaultRandom())
}

// ParseLeastRequest reads the policy's message. Slow start and locality load balancing are refused by name; the unused
// enable_full_scan is reported as without effect.
func ParseLeastRequest(_ string, b []byte) (registry.Parsed, error) {
	m := new(leastrequestpb.LeastRequest)
	p, err := unmarshal(b, m, nil)
	if err != nil {
		return p, err
	}
	c := DefaultLeastRequest()
	if v := m.GetChoiceCount(); v != nil {
		c.ChoiceCount = v.GetValue()
	}
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
	p.Config = c
	return p, c.Validate()
}

// ParseClusterProvided reads the policy's message, which has no fields.
func ParseClusterProvided(_ string, b []byte) (registry.Parsed, error) {
	return unmarshal(b, new(clusterprovidedpb.ClusterProvided), DefaultClusterProvided())
}

// unmarshal reads a policy's message. Unlike in other extensions, fields that this version of it does not have are reported,
// not refused.
func unmarshal(b []byte, m proto.Message, config any) (registry.Parsed, error) {
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Parsed{}, registry.Errorf("", "is not a valid %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	p := registry.Parsed{Config: config}
	var refused error
	unknown := fields.Walk(m, func(f protofields.Finding) {
		if f.Class == protofields.NoEffect {
			p.NoEffect = append(p.NoEffect, f.Path)
		} else if refused == nil {
			refused = registry.Errorf(f.Path, "%s", f.Why)
		}
	})
	if refused != nil {
		return registry.Parsed{}, refused
	}
	if unknown > 0 {
		p.NoEffect = append(p.NoEffect, "(unknown fields)")
	}
	slices.Sort(p.NoEffect)
	return p, nil
}
