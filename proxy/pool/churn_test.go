// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"net"
	"testing"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestChurn: many clients, of which some give up at any time, over an upstream that closes connections when it likes. No
// answer is lost to a client that stays on a connection that works, the limit of connections holds all the time, and
// (rig.end) everything comes back.
func TestChurn(t *testing.T) {
	t.Parallel()
	const clients, rounds, connections = 16, 150, 4
	r := newRig(t, limits(connections, clients, clients))
	b := newBackend(t, func(_ int, c net.Conn) {
		if rand.IntN(20) == 0 {
			c.Close()
		}
	})
	c := config()
	c.MaxRequests = 7
	p := r.pool(c, b.address())
	tasks := make(chan *task, clients)
	for range clients {
		k := r.start(func(w *socket.Worker) {
			for range rounds {
				o, err := ask(w, p, r.res, rand.IntN(10) == 0)
				if err == errCancelled {
					return
				}
				if n := r.res.InUse(circuit.Connections); n > connections {
					t.Errorf("%d connections", n)
				}
				switch {
				case err != nil: // the upstream closed it
				case rand.IntN(8) == 0:
					o.stream.Abort()
				default:
					o.stream.Release()
				}
			}
		})
		tasks <- k
	}
	for i := range clients {
		k := <-tasks
		if i%2 == 0 {
			until(t, "there is traffic", func() bool { return r.stats.Value(metrics.UpstreamRqTotal) > int64(i*50) })
			k.cancel()
		}
		k.wait(t)
	}
	until(t, "nobody waits", func() bool { return r.res.InUse(circuit.Pending) == 0 })
}
