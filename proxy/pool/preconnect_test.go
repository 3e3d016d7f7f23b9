// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"testing"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// ahead holds so many streams at a time and returns how many connections there are once no more are being made.
func ahead(t *testing.T, r *rig, p Streams, b *base, streams int) (conns int) {
	t.Helper()
	r.on(func(w *socket.Worker) {
		var all []open
		for range streams {
			o, err := ask(w, p, r.res, false)
			if err != nil {
				t.Error(err)
				return
			}
			all = append(all, o)
			until(t, "no connection is being made", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.dialing == 0
			})
		}
		conns = p.Open()
		for _, o := range all {
			o.stream.Release()
		}
	})
	return conns
}

// TestPreconnect: connections are there for as many times the streams in use as is asked for, as in Envoy, within the
// limits.
func TestPreconnect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ratio   float64
		limit   uint32
		streams int
		want    int
	}{
		{0, 100, 4, 4}, {1, 100, 4, 4},
		{1.5, 100, 1, 2}, {1.5, 100, 2, 3}, {1.5, 100, 4, 6}, {2, 100, 4, 8}, {3, 100, 4, 12},
		{3, 5, 4, 5},
	} {
		t.Run(fmt.Sprintf("%v of %d streams, limit %d", c.ratio, c.streams, c.limit), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, limits(c.limit, 100, 100))
			cfg := config()
			cfg.Preconnect = c.ratio
			p := r.pool(cfg, newBackend(t, nil).address())
			if n := ahead(t, r, p, &p.base, c.streams); n != c.want {
				t.Errorf("%d connections, want %d", n, c.want)
			}
			if over := r.stats.Value(metrics.UpstreamCxOverflow); (over > 0) != (c.limit < 100) {
				t.Errorf("%d refused by the limit", over)
			}
			p.Drain()
			if n := r.res.InUse(circuit.Connections); n != 0 {
				t.Errorf("%d connections after the drain", n)
			}
		})
	}
}

// TestMuxPreconnect: what counts on HTTP/2 are the streams that connections can take.
func TestMuxPreconnect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ratio   float64
		streams int
		want    int
	}{{1, 10, 1}, {2, 4, 1}, {2, 6, 2}, {2, 10, 2}, {2, 11, 3}, {3, 8, 3}} {
		t.Run(fmt.Sprintf("%v of %d streams", c.ratio, c.streams), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Limits{Connections: 100, Pending: 100, Requests: 100})
			m := r.mux(newMuxBackend(t, 10, nil), func(cfg *Config) { cfg.Preconnect, cfg.H2.Streams = c.ratio, 10 })
			if n := ahead(t, r, m, &m.base, c.streams); n != c.want {
				t.Errorf("%d connections, want %d", n, c.want)
			}
		})
	}
}

// TestPreconnectUnhealthy: nothing is opened ahead to a host that is not healthy, as in Envoy.
func TestPreconnectUnhealthy(t *testing.T) {
	t.Parallel()
	r := newRig(t, limits(100, 100, 100))
	cfg := config()
	cfg.Preconnect = 3
	p := r.pool(cfg, newBackend(t, nil).address())
	p.SetHealthy(false)
	if n := ahead(t, r, p, &p.base, 4); n != 4 {
		t.Errorf("%d connections for 4 streams", n)
	}
	m := r.mux(newMuxBackend(t, 10, nil), func(cfg *Config) { cfg.Preconnect, cfg.H2.Streams = 3, 10 })
	m.SetHealthy(false)
	if n := ahead(t, r, m, &m.base, 8); n != 1 || m.Predict(r.res, 11) {
		t.Errorf("%d connections of HTTP/2 for 8 streams", n)
	}
	m.SetHealthy(true)
	if !m.Predict(r.res, 11) || m.Predict(r.res, 11) {
		t.Error("not one more connection for the stream that is expected")
	}
	if m.Drain(); m.Predict(r.res, 100) {
		t.Error("a connection is opened ahead to a host that has left")
	}
}
