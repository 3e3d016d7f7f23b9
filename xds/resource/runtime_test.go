// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// runtimeKeys is a runtime without values, whose keys show their names.
type runtimeKeys struct{}

func (runtimeKeys) Key(name string) mesh.RuntimeKey { return runtimeKey(name) }

type runtimeKey string

func (k runtimeKey) Fraction(numerator, denominator uint32) (uint32, uint32) {
	return numerator, denominator
}
func (k runtimeKey) Integer(otherwise uint64) uint64  { return otherwise }
func (k runtimeKey) Double(otherwise float64) float64 { return otherwise }
func (k runtimeKey) Bool(otherwise bool) bool         { return otherwise }

// TestRuntimeReachesWhatIsDecoded: a key that a resource names is read when it is used, and the size of regular expressions
// when a resource is decoded.
func TestRuntimeReachesWhatIsDecoded(t *testing.T) {
	t.Parallel()
	rt := layered.New()
	if err := rt.Configure([]layered.Layer{{Name: "admin", Kind: layered.Admin}}); err != nil {
		t.Fatal(err)
	}
	d := newDecoder(func(o *resource.Options) { o.Runtime = rt })
	table := &routev3.RouteConfiguration{Name: "r", VirtualHosts: []*routev3.VirtualHost{{
		Name: "v", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
				Regex: strings.Repeat("[a-z]{9}", 20)}}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
		}},
	}}}
	if _, err := d.Decode(resource.RouteType, marshal(t, table), "1"); err == nil {
		t.Fatal("an expression of 180 instructions was taken")
	}
	if err := rt.Modify(map[string]string{"re2.max_program_size.error_level": "1000"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Decode(resource.RouteType, marshal(t, table), "1"); err != nil {
		t.Errorf("after the change: %v", err)
	}
}

func TestDecodeRuntime(t *testing.T) {
	t.Parallel()
	layer := func(v *structpb.Value) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{"a": v}}
	}
	for name, c := range map[string]struct {
		m    *runtimev3.Runtime
		want string
	}{
		"good":    {&runtimev3.Runtime{Name: "r", Layer: layer(structpb.NewNumberValue(3))}, ""},
		"no name": {&runtimev3.Runtime{Layer: layer(structpb.NewNumberValue(3))}, "name: must not be empty"},
		"a list":  {&runtimev3.Runtime{Name: "r", Layer: layer(structpb.NewListValue(&structpb.ListValue{}))}, `layer: the key "a" has a value of a type`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newDecoder(nil).Decode(resource.RuntimeType, marshal(t, c.m), "1")
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("got %v, want %q", err, c.want)
			case c.want == "" && got.Value.(map[string]layered.Value)["a"].Text != "3":
				t.Errorf("got %+v", got.Value)
			}
		})
	}
}
