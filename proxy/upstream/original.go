// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// maxTick is the longest time between two ticks of a cluster.
const maxTick = 30 * time.Second

// maxOriginal bounds the hosts of an original-destination cluster: a scan of ports must not fill the memory. Beyond it
// the host that was idle longest makes room, and if none is idle the new destination is refused.
const maxOriginal = 16 << 10

// original returns the host for a destination, nil where it must not be connected to. Hosts come with the first
// connection and go when they were idle for a while (Envoy's ORIGINAL_DST).
func (c *Cluster) original(to netip.AddrPort) *Host {
	if p := c.Config.OriginalDst.Port; p != 0 && to.IsValid() {
		to = netip.AddrPortFrom(to.Addr(), p)
	}
	if !to.IsValid() || to.Port() == 0 || to.Addr().IsUnspecified() || c.deps.Own != nil && c.deps.Own(to) {
		return nil
	}
	if h, ok := c.originals.Load(to); ok {
		h := h.(*Host)
		h.used.Store(mono.Now())
		return h
	}
	addr := mesh.Address{IP: to}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[addr]
	if h == nil || h.info.Load() == nil {
		if len(c.hosts) >= maxOriginal && !c.evict() {
			return nil
		}
		h = c.host(addr, h)
		h.info.Store(&info{endpoint: &mesh.Endpoint{Address: addr, Weight: 1}, group: &mesh.LocalityGroup{}})
		if c.closed || c.heir != nil {
			h.pools.drain() // nobody closes what this cluster keeps any more
		} else {
			c.members()
		}
	}
	h.used.Store(mono.Now())
	c.originals.Store(to, h)
	return h
}

// members counts the hosts. c.mu is held.
func (c *Cluster) members() {
	c.Stats.Set(metrics.MembershipTotal, int64(len(c.hosts)))
	c.Stats.Set(metrics.MembershipHealthy, int64(len(c.hosts)))
}

// forget takes a host out. A request that has just picked it is served all the same. c.mu is held.
func (c *Cluster) forget(h *Host) {
	c.originals.Delete(h.Address.IP)
	c.drop(h.Address, h)
}

// evict drops the host that was idle longest. c.mu is held.
func (c *Cluster) evict() bool {
	var oldest *Host
	for _, h := range c.hosts {
		if h.Active() == 0 && (oldest == nil || h.used.Load() < oldest.used.Load()) {
			oldest = h
		}
	}
	if oldest == nil {
		return false
	}
	c.forget(oldest)
	return true
}

// tickOriginal drops the hosts that were idle for long.
func (c *Cluster) tickOriginal(now int64) (next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := int64(c.Config.OriginalDst.IdleHosts)
	for _, h := range c.hosts {
		if h.Active() == 0 && now-h.used.Load() >= idle {
			c.forget(h)
		}
	}
	c.members()
	return now + max(idle, int64(time.Second))
}
