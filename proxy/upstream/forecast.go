// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"sync"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

// forecasts bounds the connections that one request has opened ahead, as in Envoy.
const forecasts = 3

// forecast is the hosts that were picked for requests to come, which get them in that order.
type forecast struct {
	mu    sync.Mutex
	picks []foreseen // guarded by mu: at most forecasts
}

type foreseen struct {
	host     int
	panicked bool
}

// newForecast returns what a cluster needs for Envoy's predictive_preconnect_ratio, nil where that has no effect: as in
// Envoy, policies that go by the request or by the load of the moment do not say who comes next.
func (c *Cluster) newForecast() *forecast {
	if p := c.Config.Policy.TypeURL; c.Config.Predict <= 1 || p != lb.RoundRobinType && p != lb.RandomType {
		return nil
	}
	return &forecast{picks: make([]foreseen, 0, forecasts)}
}

// pick is the set's Pick, behind those that were picked ahead.
func (st *state) pick(r *lb.Request) (host int, panicked bool) {
	f := st.next
	if f == nil {
		return st.set.Pick(r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.picks) == 0 {
		return st.set.Pick(r)
	}
	p := f.picks[0]
	f.picks = f.picks[:copy(f.picks, f.picks[1:])]
	return p.host, p.panicked
}

// peek returns the host that the i-th pick from now on is to return, nil where there is none.
func (st *state) peek(i int, r *lb.Request) *Host {
	f := st.next
	f.mu.Lock()
	defer f.mu.Unlock()
	if i == len(f.picks) {
		host, panicked := st.set.Pick(r)
		if host < 0 {
			return nil
		}
		f.picks = append(f.picks, foreseen{host, panicked})
	}
	if i >= len(f.picks) {
		return nil // other requests have taken some meanwhile
	}
	return st.hosts[f.picks[i].host]
}

// Expect is told of a request of protocol p that is about to ask its host for a stream. Where the cluster is to have
// connections for more streams than there are, it opens some to the hosts that come next.
func (c *Cluster) Expect(p mesh.Protocol, res *circuit.Resources, r *lb.Request) {
	st := c.now.Load()
	if st.next == nil {
		return
	}
	for i := range forecasts {
		if c.prepared(p) {
			return
		}
		if h := st.peek(i, r); h == nil || !h.HTTP(p).Predict(res, c.Config.Predict) {
			return
		}
	}
}

// prepared reports whether there are connections for as many streams as are to be expected with one more.
func (c *Cluster) prepared(p mesh.Protocol) bool {
	streams, conns := uint64(1), uint64(0)
	for _, r := range c.res {
		streams += r.InUse(circuit.Pending) + r.InUse(circuit.Requests)
		conns += r.InUse(circuit.Connections)
	}
	if k := c.Config.HTTP.Protocol; k == mesh.UpstreamHTTP2 || k == mesh.UpstreamAsDownstream && p == mesh.HTTP2 {
		conns *= uint64(c.pools.H2.Streams)
	}
	return float64(streams)*c.Config.Predict <= float64(conns)
}
