// SPDX-License-Identifier: Apache-2.0

package protofields_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/protofields"
)

// table has a rule of every class.
func table() *protofields.Table {
	t := protofields.New()
	t.Add(&clusterv3.Cluster{},
		protofields.Honour("name", "load_assignment", "typed_extension_protocol_options", "connect_timeout",
			"health_checks"),
		protofields.Opaque("metadata"),
		protofields.Ignore("no jitter", "dns_jitter", "wait_for_warm_on_init=true", "cleanup_interval=5s",
			"dns_lookup_family=V4_ONLY"),
		protofields.Observe("no reports", "lrs_server"),
		protofields.Refuse("no subsets", "lb_subset_config={}", "filters"))
	t.Add(&endpointv3.ClusterLoadAssignment{}, protofields.Honour("cluster_name", "endpoints", "named_endpoints"))
	t.Add(&endpointv3.LocalityLbEndpoints{}, protofields.Honour("lb_endpoints"))
	t.Add(&endpointv3.LbEndpoint{}, protofields.Honour("endpoint"))
	t.Add(&endpointv3.Endpoint{}, protofields.Refuse("no hostname", "hostname"))
	return t
}

func find(m proto.Message) (found []string, unknown int) {
	unknown = table().Walk(m, func(f protofields.Finding) {
		found = append(found, fmt.Sprintf("%s (%s): %s", f.Path, f.Class, f.Why))
	})
	slices.Sort(found)
	return found, unknown
}

func TestWalk(t *testing.T) {
	t.Parallel()
	packed, err := anypb.New(&clusterv3.Cluster{AltStatName: "x"})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := &endpointv3.Endpoint{Hostname: "h"}
	nested := &endpointv3.ClusterLoadAssignment{
		Endpoints: []*endpointv3.LocalityLbEndpoints{
			{}, {LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: endpoint}}}},
		},
		NamedEndpoints: map[string]*endpointv3.Endpoint{`a"b`: endpoint},
	}
	const unsupported = "not supported by this version of Meshtap"
	for name, c := range map[string]struct {
		m    proto.Message
		want []string
	}{
		"empty":    {&clusterv3.Cluster{}, nil},
		"honoured": {&clusterv3.Cluster{Name: "a", ConnectTimeout: durationpb.New(1)}, nil},
		"refused": {
			&clusterv3.Cluster{Filters: []*clusterv3.Filter{{}}}, []string{"filters (refused): no subsets"},
		},
		"not named": {
			&clusterv3.Cluster{AltStatName: "x"}, []string{"alt_stat_name (refused): " + unsupported},
		},
		"no effect": {
			//lint:ignore SA1019 a field that is deprecated is what this case needs
			&clusterv3.Cluster{DnsJitter: durationpb.New(time.Second)}, []string{"dns_jitter (no effect): no jitter"},
		},
		"observational": {
			&clusterv3.Cluster{LrsServer: &corev3.ConfigSource{}}, []string{"lrs_server (observational): no reports"},
		},
		"silent wrapper":  {&clusterv3.Cluster{WaitForWarmOnInit: wrapperspb.Bool(true)}, nil},
		"silent duration": {&clusterv3.Cluster{CleanupInterval: durationpb.New(5 * time.Second)}, nil},
		"silent enum":     {&clusterv3.Cluster{DnsLookupFamily: clusterv3.Cluster_V4_ONLY}, nil},
		"silent message":  {&clusterv3.Cluster{LbSubsetConfig: &clusterv3.Cluster_LbSubsetConfig{}}, nil},
		"other wrapper": {
			&clusterv3.Cluster{WaitForWarmOnInit: wrapperspb.Bool(false)},
			[]string{"wait_for_warm_on_init (no effect): no jitter"},
		},
		"other message": {
			&clusterv3.Cluster{LbSubsetConfig: &clusterv3.Cluster_LbSubsetConfig{PanicModeAny: true}},
			[]string{"lb_subset_config (refused): no subsets"},
		},
		"nested": {
			&clusterv3.Cluster{LoadAssignment: nested},
			[]string{
				`load_assignment.endpoints[1].lb_endpoints[0].endpoint.hostname (refused): no hostname`,
				`load_assignment.named_endpoints["a\"b"].hostname (refused): no hostname`,
			},
		},
		"opaque": {&clusterv3.Cluster{Metadata: &corev3.Metadata{FilterMetadata: nil}}, nil},
		"any":    {&clusterv3.Cluster{TypedExtensionProtocolOptions: map[string]*anypb.Any{"x": packed}}, nil},
		"no rule": {
			&clusterv3.Cluster{HealthChecks: []*corev3.HealthCheck{{Name: "a"}}},
			[]string{"health_checks[0].name (refused): " + unsupported},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, unknown := find(c.m); !slices.Equal(got, c.want) || unknown != 0 {
				t.Errorf("got %q and %d unknown fields, want %q", got, unknown, c.want)
			}
		})
	}
}

// TestWalkWithoutRules: a message that is read and that nobody made rules for is found by the tests of its reader.
func TestWalkWithoutRules(t *testing.T) {
	t.Parallel()
	defer func() {
		if broken := recover() != nil; broken != invariant.On {
			t.Errorf("panicked: %v; invariants are checked: %v", broken, invariant.On)
		}
	}()
	if _, unknown := find(&corev3.Locality{}); unknown != 0 {
		t.Errorf("%d unknown fields", unknown)
	}
}

// TestWalkCountsUnknown counts fields that the message types do not have, at every depth.
func TestWalkCountsUnknown(t *testing.T) {
	t.Parallel()
	extra := protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 7)
	inner := &endpointv3.ClusterLoadAssignment{}
	inner.ProtoReflect().SetUnknown(append(slices.Clone(extra), extra...))
	outer := &clusterv3.Cluster{LoadAssignment: inner}
	outer.ProtoReflect().SetUnknown(extra)
	if _, unknown := find(outer); unknown != 3 {
		t.Errorf("counted %d, want 3", unknown)
	}
}

func TestUncovered(t *testing.T) {
	t.Parallel()
	got := table().Uncovered(&clusterv3.Cluster{})
	if want := []string{"envoy.config.core.v3.HealthCheck"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRowsAndClass(t *testing.T) {
	t.Parallel()
	tab := table()
	if got := tab.Messages(); len(got) != 5 || got[1].Name() != "ClusterLoadAssignment" {
		t.Errorf("the messages are %v", got)
	}
	rows := map[string]protofields.Row{}
	for _, r := range tab.Rows() {
		rows[r.Message+"."+r.Field] = r
	}
	got := rows["envoy.config.cluster.v3.Cluster.cleanup_interval"]
	if got.Class != protofields.NoEffect || got.Why != "no jitter" || got.Silent != "5s" {
		t.Errorf("got %+v", got)
	}
	if got := rows["envoy.config.cluster.v3.Cluster.alt_stat_name"]; got.Class != protofields.Refused {
		t.Errorf("a field that no rule names is %v", got.Class)
	}
	if got := rows["envoy.config.cluster.v3.Cluster.metadata"]; got.Class != protofields.Honoured || !got.Opaque {
		t.Errorf("an opaque field is %+v", got)
	}
	fields := (&clusterv3.Cluster{}).ProtoReflect().Descriptor().Fields()
	if c := tab.Class(fields.ByName("name")); c != protofields.Honoured {
		t.Errorf("name is %v", c)
	}
	if c := tab.Class((&corev3.HealthCheck{}).ProtoReflect().Descriptor().Fields().Get(0)); c != protofields.Refused {
		t.Errorf("a field of a message without rules is %v", c)
	}
}

// TestAddPanics proves that a table with a mistake cannot be used.
func TestAddPanics(t *testing.T) {
	t.Parallel()
	for name, add := range map[string]func(*protofields.Table){
		"no such field": func(t *protofields.Table) { t.Add(&corev3.Locality{}, protofields.Honour("planet")) },
		"field twice":   func(t *protofields.Table) { t.Add(&corev3.Locality{}, protofields.Honour("zone", "zone")) },
		"message twice": func(t *protofields.Table) {
			t.Add(&corev3.Locality{})
			t.Add(&corev3.Locality{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tab := protofields.New()
			add(tab)
			tab.Rows()
		})
	}
}

// TestWalkAllocates proves that a message without findings costs next to nothing.
func TestWalkAllocates(t *testing.T) {
	tab := protofields.New()
	tab.Add(&descriptorpb.FileDescriptorProto{}, protofields.Honour("name", "package", "dependency"))
	m := &descriptorpb.FileDescriptorProto{
		Name: proto.String("a"), Package: proto.String("b"), Dependency: []string{"c", "d"},
	}
	if n := testing.AllocsPerRun(100, func() { tab.Walk(m, func(protofields.Finding) {}) }); n > 8 {
		t.Errorf("%v allocations, want at most 8", n)
	}
}
