// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"reflect"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

const plainAddress = `{address: {socket_address: {address: 127.0.0.1, port_value: 80}}}`

// TestPlainEndpoints: the endpoints of most services are read from the wire, and what asks for more is not.
func TestPlainEndpoints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, yaml string
		plain      bool
	}{
		{"none", `{cluster_name: a}`, true},
		{"no address in a locality", `{cluster_name: a, endpoints: [{locality: {zone: b}}, {}]}`, true},
		{"addresses", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: ` + plainAddress + `}, {endpoint: {address: {socket_address: {address: "::1", port_value: 65535}}}}]}]}`, true},
		{"all that is plain", `{cluster_name: a, endpoints: [{locality: {region: r, zone: z, sub_zone: s}, priority: 1, load_balancing_weight: 3,
			lb_endpoints: [{endpoint: ` + plainAddress + `, health_status: DEGRADED, load_balancing_weight: 7}]}]}`, true},
		{"no name", `{endpoints: []}`, false},
		{"a policy", `{cluster_name: a, policy: {overprovisioning_factor: 150}}`, false},
		{"metadata", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: ` + plainAddress + `, metadata: {filter_metadata: {envoy.lb: {k: v}}}}]}]}`, false},
		{"a hostname", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {hostname: h, address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]}`, false},
		{"no address", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {}}]}]}`, false},
		{"a name in place of an address", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 80}}}}]}]}`, false},
		{"no port", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1}}}}]}]}`, false},
		{"a large port", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 65536}}}}]}]}`, false},
		{"UDP", `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 80}}}}]}]}`, false},
		{"a weight of 0", `{cluster_name: a, endpoints: [{load_balancing_weight: 0}]}`, false},
		{"a priority of 129", `{cluster_name: a, endpoints: [{priority: 129}]}`, false},
		{"large weights", `{cluster_name: a, endpoints: [{load_balancing_weight: 4294967295}, {load_balancing_weight: 1}]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := serialize(t, &endpointv3.ClusterLoadAssignment{}, []byte(c.yaml))
			if plain := bothWays(t, b); plain != c.plain {
				t.Errorf("read from the wire: %v, want %v", plain, c.plain)
			}
		})
	}
}

// bothWays reads a load assignment in both ways, which must agree, and reports whether the short one served.
func bothWays(t *testing.T, b []byte) bool {
	t.Helper()
	d := resource.New(resource.Options{Parsers: resourcetest.Parsers()})
	plain, ok := d.PlainEndpoints(b)
	if !ok {
		return false
	}
	whole, notes, err := d.WholeEndpoints(b)
	switch {
	case err != nil || notes:
		t.Fatalf("read from the wire, and there is more to say of it: notes %v, %v", notes, err)
	case resourcetest.Dump(plain) != resourcetest.Dump(whole) || !reflect.DeepEqual(plain, whole):
		t.Fatalf("two values:\n%s\n%s", resourcetest.Dump(plain), resourcetest.Dump(whole))
	}
	return true
}

// FuzzPlainEndpoints: what is read from the wire is what is read of the message, and there is nothing else to say of it.
func FuzzPlainEndpoints(f *testing.F) {
	for _, b := range seeds(f, "endpoints.yaml") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { bothWays(t, b) })
}
