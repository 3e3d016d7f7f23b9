// SPDX-License-Identifier: Apache-2.0

package protorules

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func violations(t *Table, m proto.Message) (all []string) {
	t.Check(m, func(v Violation) bool {
		on := ""
		if v.Oneof != nil {
			on = " (oneof " + string(v.Oneof.Name()) + ")"
		}
		all = append(all, v.Path+on+": "+v.Reason)
		return true
	})
	return all
}

// TestCheck shows what is said of each kind of rule. That the rules of all of Envoy's messages mean here what they mean to
// the generated code is shown in xds/resource, TestRulesAgree.
func TestCheck(t *testing.T) {
	t.Parallel()
	address := &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: "::1", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 80},
	}}}
	for _, c := range []struct {
		name string
		m    proto.Message
		want []string
	}{
		{"nothing wrong", address, nil},
		{"a number, in a message, in a oneof", &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: "::1", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 65536},
		}}}, []string{"socket_address.port_value: value must be less than or equal to 65535"}},
		{"no field of a oneof", &corepb.Address{}, []string{" (oneof address): value is required"}},
		{"text, and a oneof in a message", &corepb.SocketAddress{}, []string{
			"address: value length must be at least 1 runes", " (oneof port_specifier): value is required",
		}},
		{"a wrapped number", &endpointpb.LbEndpoint{LoadBalancingWeight: wrapperspb.UInt32(0)}, []string{
			"load_balancing_weight: value must be greater than or equal to 1",
		}},
		{"a wrapped number that is not set", &endpointpb.LbEndpoint{}, nil},
		{"an enum, in a list", &routepb.VirtualHost{Name: "v", Domains: []string{"*"}, ResponseHeadersToAdd: []*corepb.HeaderValueOption{
			{Header: &corepb.HeaderValue{Key: "a"}}, {Header: &corepb.HeaderValue{Key: "b"}, AppendAction: 99},
		}}, []string{"response_headers_to_add[1].append_action: value must be one of the defined enum values"}},
		{"a list's length, and its items", &routepb.VirtualHost{Name: "v", Domains: []string{}, RequestHeadersToRemove: []string{"a", "b\n"}}, []string{
			"domains: value must contain at least 1 item(s)", `request_headers_to_remove[1]: value does not match regex pattern "^[^\x00\n\r]*$"`,
		}},
		{"a map", &endpointpb.ClusterLoadAssignment{ClusterName: "c", NamedEndpoints: map[string]*endpointpb.Endpoint{
			"b": {Address: &corepb.Address{}}, "a": {Address: &corepb.Address{}},
		}}, []string{`named_endpoints["a"].address (oneof address): value is required`, `named_endpoints["b"].address (oneof address): value is required`}},
		{"durations", &corepb.HealthCheck{
			Timeout: durationpb.New(0), Interval: &durationpb.Duration{Nanos: -1, Seconds: 1},
			UnhealthyThreshold: wrapperspb.UInt32(1), HealthyThreshold: wrapperspb.UInt32(1), NoTrafficInterval: durationpb.New(time.Second),
			HealthChecker: &corepb.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corepb.HealthCheck_TcpHealthCheck{}},
		}, []string{"timeout: value must be greater than 0s", "interval: value is not a valid duration"}},
		{"required", &corepb.HeaderValueOption{}, []string{"header: value is required"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := violations(NewTable(), c.m); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestCheckEnds: who has heard enough is told no more.
func TestCheckEnds(t *testing.T) {
	t.Parallel()
	m := &endpointpb.ClusterLoadAssignment{}
	for i := range 1000 {
		m.Endpoints = append(m.Endpoints, &endpointpb.LocalityLbEndpoints{Priority: uint32(200 + i)})
	}
	n := 0
	NewTable().Check(m, func(Violation) bool { n++; return n < 3 })
	if n != 3 {
		t.Errorf("told %d times", n)
	}
}

// TestTogether: one table serves several goroutines.
func TestTogether(t *testing.T) {
	t.Parallel()
	table := NewTable()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want := fmt.Sprintf("endpoints[%d].priority: value must be less than or equal to 128", i)
			m := &endpointpb.ClusterLoadAssignment{ClusterName: "c"}
			for range i {
				m.Endpoints = append(m.Endpoints, &endpointpb.LocalityLbEndpoints{})
			}
			m.Endpoints = append(m.Endpoints, &endpointpb.LocalityLbEndpoints{Priority: 129})
			if got := violations(table, m); len(got) != 1 || got[0] != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	wg.Wait()
}
