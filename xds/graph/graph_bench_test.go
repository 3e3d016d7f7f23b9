// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// manyClusters returns a machine that serves n EDS clusters with endpoints.
func manyClusters(tb testing.TB, n int) (*Machine, Response) {
	tb.Helper()
	m := New(Options{FetchTimeout: 15 * time.Second})
	run := func(ev Event) {
		for _, a := range m.Step(ev) {
			if _, ok := a.(Apply); ok {
				m.Step(Applied{})
			}
		}
	}
	run(Start{Clusters: true})
	run(Connected{})
	cds := Response{Kind: mesh.KindCluster, Version: "1", Full: true}
	eds := Response{Kind: mesh.KindEndpoints, Version: "1"}
	for i := range n {
		name := fmt.Sprint("cluster-", i)
		cds.Resources = append(cds.Resources, parseResource("cds", "1", name+":eds"))
		eds.Resources = append(eds.Resources, parseResource("eds", "1", name+":1.1.1.1"))
	}
	run(cds)
	run(eds)
	if got := len(m.current.Clusters); got != n {
		tb.Fatalf("%d clusters in force, want %d", got, n)
	}
	return m, cds
}

// BenchmarkOneEDS changes the endpoints of one cluster. The time must not depend on the number of clusters.
func BenchmarkOneEDS(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n, "_clusters"), func(b *testing.B) {
			m, _ := manyClusters(b, n)
			changes := edsChanges()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.Step(changes[i%2])
			}
		})
	}
}

// BenchmarkOneCDS changes one cluster of many in a full response.
func BenchmarkOneCDS(b *testing.B) {
	m, cds := manyClusters(b, 10_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		cds.Resources[7] = parseResource("cds", "2", fmt.Sprintf("cluster-7:eds#%d", i))
		m.Step(cds)
		m.Step(Applied{})
	}
}

// edsChanges are two responses that each change the endpoints of cluster-7.
func edsChanges() [2]Response {
	var out [2]Response
	for i, address := range []string{"1.1.1.2", "1.1.1.3"} {
		out[i] = Response{Kind: mesh.KindEndpoints, Version: "2", Resources: []*Resource{
			parseResource("eds", "2", "cluster-7:"+address),
		}}
	}
	return out
}

// TestEndpointChurnTouchesOneCluster counts what a change of endpoints costs: the same number of allocations and actions
// with ten clusters and with ten thousand, and no snapshot.
func TestEndpointChurnTouchesOneCluster(t *testing.T) {
	if invariant.On {
		t.Skip("the checks allocate")
	}
	counts := map[int]float64{}
	for _, n := range []int{10, 10_000} {
		m, _ := manyClusters(t, n)
		changes := edsChanges()
		i := 0
		counts[n] = testing.AllocsPerRun(100, func() {
			actions := m.Step(changes[i%2])
			i++
			if len(actions) != 2 {
				t.Fatalf("actions %v, want endpoints and an ack", actions)
			}
		})
	}
	if counts[10] != counts[10_000] {
		t.Errorf("allocations: %v with 10 clusters, %v with 10,000", counts[10], counts[10_000])
	}
}
