// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// runtimeValue is a key of the runtime; one below 0 has no value.
type runtimeValue int

func (v *runtimeValue) Fraction(num, den uint32) (uint32, uint32) {
	if *v < 0 {
		return num, den
	}
	return uint32(*v), 100
}
func (v *runtimeValue) Integer(otherwise uint64) uint64 {
	if *v < 0 {
		return otherwise
	}
	return uint64(*v)
}
func (v *runtimeValue) Double(otherwise float64) float64 { return otherwise }
func (v *runtimeValue) Bool(otherwise bool) bool         { return otherwise }

// TestRuntime: shares and weights are those that the runtime has at the moment of the match, and one request has one cluster.
func TestRuntime(t *testing.T) {
	share, a, b := runtimeValue(-1), runtimeValue(-1), runtimeValue(-1)
	split := &mesh.Route{
		Match: mesh.RouteMatch{Path: "/", Fraction: &mesh.Fraction{Numerator: 50, Denominator: 100, Runtime: &share}},
		Forward: &mesh.RouteAction{TotalWeight: 4, Clusters: []mesh.WeightedCluster{
			{Name: "a", Weight: 1, Runtime: &a}, {Name: "b", Weight: 3, Runtime: &b},
		}},
	}
	table, err := Compile(&mesh.RouteTable{Hosts: []*mesh.VirtualHost{{Domains: []string{"*"}, Routes: []*mesh.Route{split}}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &codec.Request{Authority: []byte("x"), Path: []byte("/")}
	for _, c := range []struct {
		share, a, b   runtimeValue
		routed, first int // of the random numbers 0 ... 99
	}{
		{-1, -1, -1, 50, 13},
		{100, -1, -1, 100, 25},
		{0, 5, 5, 0, 0},
		{100, 0, 1, 100, 0},
		{100, 1, 0, 100, 100},
		{100, 9, 1, 100, 90},
		{100, 0, 0, 100, 25}, // no weight at all: those of the route
	} {
		share, a, b = c.share, c.a, c.b
		routed, first := 0, 0
		for random := range uint64(100) {
			m := table.Match(r, random)
			if m.Route == nil {
				continue
			}
			routed++
			target := m.WeightedCluster(random)
			if target.Name == "a" {
				first++
			}
			old := a
			a = 1000
			if again := m.WeightedCluster(random); c.a >= 0 && c.a+c.b > 0 && again != target {
				t.Errorf("one request goes to %s and to %s", target.Name, again.Name)
			}
			a = old
		}
		if routed != c.routed || first != c.first {
			t.Errorf("%+v: %d routed, %d to the first cluster", c, routed, first)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { m := table.Match(r, 7); m.WeightedCluster(7) }); n != 0 && !invariant.On {
		t.Errorf("%v allocations, want 0", n)
	}
}
