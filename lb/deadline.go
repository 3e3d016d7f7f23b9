// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"sync"

	"github.com/meshtap/meshtap/mesh"
)

// deadlines is weighted round robin with weights that change with every request: earliest deadline first, as in Envoy's
// EdfScheduler. Each host has a deadline; the earliest is next, and is put back one weight's reciprocal later, with its
// weight of that moment: by how busy it is, of the weight that it had when the scheduler was built.
//
// Unlike the fixed schedule of weighted round robin this needs a lock, because each pick depends on the one before. It
// is held for one walk down a heap, well below a microsecond, and never across a wait.
type deadlines struct {
	hosts []*Host
	bias  float64
	// runtime, where it is not nil, replaces bias by the value that a key has, unless that is below 0.
	runtime mesh.RuntimeKey

	mu sync.Mutex
	// heap is guarded by mu. The parent of i is (i-1)/2 and not later than i.
	heap []deadline
}

type deadline struct {
	at           float64
	host, weight uint32
}

// newDeadlines returns the scheduler, in linear time. First deadlines lie anywhere within a host's first turn, so that
// neither many proxies nor many hosts start together.
func newDeadlines(hosts []*Host, bias float64, seed uint64) *deadlines {
	d := &deadlines{hosts: hosts, bias: bias, heap: make([]deadline, len(hosts))}
	r := Request{Rand: seed}
	for i, h := range hosts {
		phase := float64(r.next()>>11) / (1 << 53)
		d.heap[i] = deadline{at: phase / float64(h.weight()), host: uint32(i), weight: uint32(h.weight())}
	}
	for i := len(d.heap)/2 - 1; i >= 0; i-- {
		d.sink(i, d.heap[i])
	}
	return d
}

// Pick implements Picker.
func (d *deadlines) Pick(*Request) int {
	d.mu.Lock()
	next := d.heap[0]
	host := next.host
	next.at += d.busy(d.hosts[host]) / float64(next.weight)
	d.sink(0, next)
	d.mu.Unlock()
	return int(host)
}

// busy is how busy the host is at the moment, at least 1. Active may be below 0 for a moment where an owner counts
// down before it counts up; that counts as 0.
func (d *deadlines) busy(h *Host) float64 {
	busy := float64(max(h.Active.Load(), 0) + 1)
	bias := d.bias
	if d.runtime != nil {
		if v := d.runtime.Double(bias); v >= 0 {
			bias = v
		}
	}
	if bias != 1 {
		// The bound keeps deadlines finite, and so different, whatever the bias.
		busy = min(math.Pow(busy, bias), math.MaxUint32)
	}
	return busy
}

// sink puts x at position i, or below where something is earlier.
func (d *deadlines) sink(i int, x deadline) {
	h := d.heap
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[child].at >= x.at {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = x
}
