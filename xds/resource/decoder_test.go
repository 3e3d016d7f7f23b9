// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
	"github.com/meshtap/meshtap/xds/resource/resourcetest"
)

func newDecoder(change func(*resource.Options)) *resource.Decoder {
	opt := resource.Options{Parsers: resourcetest.Parsers()}
	if change != nil {
		change(&opt)
	}
	return resource.New(opt)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	_, err := newDecoder(nil).Decode("type.googleapis.com/acme.Thing", nil, "")
	if err == nil || !strings.Contains(err.Error(), `"type.googleapis.com/acme.Thing" is not supported`) ||
		!strings.Contains(err.Error(), resource.ClusterType) {
		t.Errorf("got %v", err)
	}
}

// TestBrokenWireHasAName proves that a resource that is no message still says which one it is.
func TestBrokenWireHasAName(t *testing.T) {
	t.Parallel()
	b := append(marshal(t, &clusterv3.Cluster{Name: "pay"}), 0x0b, 0xff)
	got, err := newDecoder(nil).Decode(resource.ClusterType, b, "1")
	var e *resource.Error
	if !errors.As(err, &e) || e.Name != "pay" || e.Kind != mesh.KindCluster || got.Name != "pay" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if want := `cluster "pay": not a valid envoy.config.cluster.v3.Cluster message`; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":         {nil, ""},
		"garbage":       {[]byte{0xff, 0xff}, ""},
		"cut short":     {[]byte{0x0a, 0x05, 'a'}, ""},
		"first field":   {[]byte{0x0a, 0x01, 'a'}, "a"},
		"last one wins": {[]byte{0x0a, 0x01, 'a', 0x0a, 0x01, 'b'}, "b"},
		"other fields":  {[]byte{0x10, 0x05, 0x0a, 0x01, 'a'}, "a"},
		"varint as 1":   {[]byte{0x08, 0x05}, ""},
	} {
		if got := resource.Name(c.b); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestUnknownFields(t *testing.T) {
	t.Parallel()
	b := marshal(t, &clusterv3.Cluster{Name: "pay"})
	b = protowire.AppendTag(b, 19999, protowire.VarintType)
	b = protowire.AppendVarint(b, 1)
	got, err := newDecoder(nil).Decode(resource.ClusterType, b, "1")
	if err != nil || got.Unknown != 1 {
		t.Errorf("counted %d, %v; want 1", got.Unknown, err)
	}
	reject := newDecoder(func(o *resource.Options) { o.RejectUnknown = true })
	_, err = reject.Decode(resource.ClusterType, b, "1")
	if err == nil || !strings.Contains(err.Error(), "unknown fields are rejected") {
		t.Errorf("got %v", err)
	}
}

func TestResourceSize(t *testing.T) {
	t.Parallel()
	b := marshal(t, &clusterv3.Cluster{Name: "pay", AltStatName: strings.Repeat("x", 5<<20)})
	_, err := newDecoder(nil).Decode(resource.ClusterType, b, "1")
	if err == nil || !strings.Contains(err.Error(), "more than the 4194304 allowed") {
		t.Errorf("got %v", err)
	}
	large := newDecoder(func(o *resource.Options) { o.Limits.ResourceBytes = 16 << 20 })
	if _, err := large.Decode(resource.ClusterType, b, "1"); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestNotesAreBounded proves that a field without effect in very many routes is one note.
func TestNotesAreBounded(t *testing.T) {
	t.Parallel()
	table := manyRoutes(500, func(r *routev3.Route) { r.StatPrefix = "s" })
	got, err := newDecoder(nil).Decode(resource.RouteType, marshal(t, table), "1")
	if err != nil {
		t.Fatal(err)
	}
	want := "virtual_hosts[0].routes[0].stat_prefix: no effect: statistics are kept by cluster and connection manager, " +
		"not by route (and 499 more like it)"
	if len(got.NoEffect) != 1 || got.NoEffect[0] != want {
		t.Errorf("got %q", got.NoEffect)
	}
}

// TestErrorsAreBounded proves that ten errors are shown of very many.
func TestErrorsAreBounded(t *testing.T) {
	t.Parallel()
	table := manyRoutes(500, func(r *routev3.Route) { r.Action = &routev3.Route_FilterAction{} })
	_, err := newDecoder(nil).Decode(resource.RouteType, marshal(t, table), "1")
	var list resource.Errors
	if !errors.As(err, &list) || len(list) != 100 {
		t.Fatalf("got %d errors: %v", len(list), err)
	}
	if n := strings.Count(err.Error(), "\n"); n != 10 || !strings.HasSuffix(err.Error(), "and 90 more") {
		t.Errorf("%d lines: %v", n+1, err)
	}
}

// TestLongResourceIsRefused proves that a long resource with nothing but mistakes is refused with a place, although not
// all of them are looked for.
func TestLongResourceIsRefused(t *testing.T) {
	t.Parallel()
	l := &endpointv3.LocalityLbEndpoints{}
	for range 40_000 {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{LoadBalancingWeight: wrapperspb.UInt32(0)})
	}
	m := &endpointv3.ClusterLoadAssignment{ClusterName: "pay", Endpoints: []*endpointv3.LocalityLbEndpoints{l}}
	_, err := newDecoder(nil).Decode(resource.EndpointsType, marshal(t, m), "1")
	if err == nil || !strings.Contains(err.Error(), "lb_endpoints[0].load_balancing_weight: must be at least 1") {
		t.Errorf("got %v", err)
	}
}

// TestChainKey proves that a chain's key changes with its content and with nothing else.
func TestChainKey(t *testing.T) {
	t.Parallel()
	script := func(port int, cluster string) string {
		return fmt.Sprintf(`
name: web
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:
  - name: tcp
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: %s}
`, port, cluster)
	}
	key := func(text string) string {
		got, err := newDecoder(nil).Decode(resource.ListenerType, serialize(t, &listenerv3.Listener{}, []byte(text)), "1")
		if err != nil {
			t.Fatal(err)
		}
		return got.Value.(*mesh.Listener).Chains[0].Key
	}
	a, b, c := key(script(1, "x")), key(script(2, "x")), key(script(1, "y"))
	if a == "" || a != b || a == c {
		t.Errorf("keys %q, %q, %q; want the first two equal, the third different", a, b, c)
	}
}

// TestDecodeKeepsNoBytes proves that the caller may use its buffer again.
func TestDecodeKeepsNoBytes(t *testing.T) {
	t.Parallel()
	b := marshal(t, manyRoutes(3, nil))
	got, err := newDecoder(nil).Decode(resource.RouteType, b, "1")
	if err != nil {
		t.Fatal(err)
	}
	before := resourcetest.Dump(got.Value)
	clear(b)
	if after := resourcetest.Dump(got.Value); after != before {
		t.Errorf("the value changed with the buffer:\n%s", after)
	}
}

func TestSplitNote(t *testing.T) {
	t.Parallel()
	for note, want := range map[string][2]string{
		`a.b[0]: why: not`: {"a.b[0]", "why: not"},
		`m["a: b"].c: why`: {`m["a: b"].c`, "why"},
		`m["\"a: "].c: x`:  {`m["\"a: "].c`, "x"},
		`nothing`:          {"", "nothing"},
	} {
		if path, why := resource.SplitNote(note); path != want[0] || why != want[1] {
			t.Errorf("%s: got %q, %q", note, path, why)
		}
	}
}

// TestDifferences proves that the table of differences and the defaults say the same.
func TestDifferences(t *testing.T) {
	t.Parallel()
	l := resource.DefaultLimits()
	want := map[string]string{
		"serialized size":         fmt.Sprintf("%d MiB", l.ResourceBytes>>20),
		"buffer_limit_bytes":      fmt.Sprintf("%d KiB", l.BufferBytes>>10),
		"connection_limit":        "10,000",
		"request_headers_timeout": fmt.Sprintf("%d s", int(l.RequestHeaders.Seconds())),
		"retries":                 "retry_budget of 20 %",
	}
	for key, value := range want {
		found := false
		for _, d := range resource.Differences() {
			found = found || strings.Contains(d.Where, key) && strings.HasPrefix(d.Meshtap, value)
			if d.Envoy == "" || d.Why == "" || d.Envoy == d.Meshtap {
				t.Errorf("incomplete: %+v", d)
			}
		}
		if !found {
			t.Errorf("no difference tells that %s is %s", key, value)
		}
	}
}

// manyRoutes returns a table of n routes in virtual hosts of a thousand.
func manyRoutes(n int, change func(*routev3.Route)) *routev3.RouteConfiguration {
	table := &routev3.RouteConfiguration{Name: "table"}
	for i := range n {
		if i%1000 == 0 {
			table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{
				Name: fmt.Sprint("host", i), Domains: []string{fmt.Sprintf("h%d.example.com", i)},
			})
		}
		r := &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/api/%d/", i)}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprint("c", i%100)},
			}},
		}
		if change != nil {
			change(r)
		}
		host := table.VirtualHosts[len(table.VirtualHosts)-1]
		host.Routes = append(host.Routes, r)
	}
	return table
}

func BenchmarkDecodeRoutes(b *testing.B) {
	for _, n := range []int{500, 5000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := newDecoder(nil)
			text := marshal(b, manyRoutes(n, nil))
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := d.Decode(resource.RouteType, text, "1"); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/route")
		})
	}
}
