// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// maintained is a runtime in which a cluster is in maintenance for a share of the requests.
type maintained struct {
	cluster string
	share   uint64
}

func (maintained) Generation() uint64                         { return 1 }
func (maintained) Double(_ string, otherwise float64) float64 { return otherwise }

func (m maintained) Integer(name string, otherwise uint64) uint64 {
	if name == "upstream.maintenance_mode."+m.cluster {
		return m.share
	}
	return otherwise
}

// TestMaintenance: a cluster in maintenance gets no request, and is not asked again; others do. The answer is Envoy's.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	r.runtime = maintained{"c", 100}
	s := play(t, ok)
	c := r.add("c", nil, s.addr)
	r.add("d", nil, s.addr)
	rt := to("c", func(a *mesh.RouteAction) { a.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 3} })
	rt.Fallback = &mesh.Fallback{On: mesh.FallbackOnOverflow | mesh.FallbackOnNoHealthyHost, Cluster: "d"}
	p := r.do(get(rt))
	if p.Status != 503 || p.body != "maintenance mode" || p.field("x-envoy-overloaded") != "true" || p.Details != "maintenance_mode" ||
		p.Flags != mesh.FlagUO || p.Failure != mesh.Maintenance || p.Cluster != "c" || p.Attempts != 0 {
		t.Errorf("%d %q %s %s %+v", p.Status, p.body, p.Details, p.Failure, p.Outcome)
	}
	metrics.ObserveHTTP(r.numbers, c.Stats, &p.Outcome)
	for id, want := range map[int]int64{metrics.UpstreamRqMaintenanceMode: 1, metrics.UpstreamRqPendingOverflow: 0, metrics.UpstreamRqTotal: 0} {
		if n := c.Stats.Value(id); n != want {
			t.Errorf("number %d is %d, want %d", id, n, want)
		}
	}
	if p := r.do(get(to("d"))); p.Status != 200 {
		t.Errorf("another cluster answers %d", p.Status)
	}
	if heads, _ := s.got(); len(heads) != 1 {
		t.Errorf("%d requests reached the host, want 1", len(heads))
	}
}
