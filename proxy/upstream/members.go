// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"slices"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// SetEndpoints puts what discovery says into force. Hosts that stay keep their connections, whatever else of them
// changed; those that leave are not picked again, and close their connections as requests end.
func (c *Cluster) SetEndpoints(set *mesh.EndpointSet) {
	c.mu.Lock()
	if c.closed || c.Config.Discovery == mesh.OriginalDestination {
		c.mu.Unlock()
		return
	}
	c.set = set
	changes := c.merge(set)
	c.rebuild()
	c.mu.Unlock()
	c.joinChecks()
	c.Stats.Inc(0, metrics.UpdateSuccess)
	switch {
	case len(set.Localities) == 0:
		c.Stats.Inc(0, metrics.UpdateEmpty)
	case changes == 0:
		c.Stats.Inc(0, metrics.UpdateNoRebuild)
	}
	if changes > 0 {
		c.Stats.Inc(0, metrics.MembershipChange)
	}
}

// merge brings the hosts in line with set, and returns the number of hosts that came or left.
func (c *Cluster) merge(set *mesh.EndpointSet) (changes int) {
	c.merges++
	for i := range set.Localities {
		l := &set.Localities[i]
		for j := range l.Endpoints {
			e := &l.Endpoints[j]
			h := c.hosts[e.Address]
			if h != nil && h.merge == c.merges {
				continue // an address is one host, the first mention decides
			}
			if h == nil || h.pools.tcp == nil || h.info.Load() == nil {
				changes++
				h = c.host(e.Address, h)
			}
			h.gone, h.merge = false, c.merges
			c.update(h, &info{e, &l.LocalityGroup})
		}
	}
	for addr, h := range c.hosts {
		if h.merge == c.merges {
			continue
		}
		if h.info.Load() != nil && c.stays(h) {
			h.stay()
			continue
		}
		changes++
		c.drop(addr, h)
	}
	return changes
}

// stays reports whether a host that discovery removed is kept because its active checks pass, as in Envoy: discovery is
// only eventually right.
func (c *Cluster) stays(h *Host) bool {
	return len(c.Config.HealthChecks) > 0 && !c.Config.IgnoreHealthOnRemoval && passes(h.checked.Load())
}

// host returns a complete host; h is what was inherited of it, nil for a new one.
func (c *Cluster) host(addr mesh.Address, h *Host) *Host {
	if h == nil {
		h = &Host{Address: addr, cluster: c, lbHost: &lb.Host{}, outlier: &circuit.HostState{}}
		c.hosts[addr] = h
	}
	return c.complete(h)
}

// complete gives a host what it has not inherited.
func (c *Cluster) complete(h *Host) *Host {
	if h.pools.tcp == nil {
		h.pools = c.newPools(h.Address)
	}
	if b := c.Config.Breaker; b != nil && b.PerHost && h.breaker == nil {
		h.breaker = circuit.NewBreaker(*b, mono.Now())
	}
	if c.outlier != nil {
		c.outlier.Add(h.outlier)
	}
	return h
}

// update takes in what discovery says of a host.
func (c *Cluster) update(h *Host, in *info) {
	old, e := h.info.Load(), in.endpoint
	h.info.Store(in)
	if old == nil || checkedBy(old.endpoint) != checkedBy(e) {
		c.startCheck(h)
	}
	if old != nil && old.endpoint.Health != e.Health {
		c.notify(h.Address, &mesh.Notice{Kind: mesh.NoticeHealth, Health: &mesh.HealthNotice{
			From: old.endpoint.Health, To: e.Health, Source: "discovery",
		}})
	}
}

// checkTarget is what of an endpoint its active check goes by.
type checkTarget struct {
	hostname, host string
	port           uint16
	off            bool
}

func checkedBy(e *mesh.Endpoint) checkTarget {
	return checkTarget{e.Hostname, e.CheckHost, e.CheckPort, e.NoActiveCheck}
}

// drop takes a host out.
func (c *Cluster) drop(addr mesh.Address, h *Host) {
	delete(c.hosts, addr)
	c.stopCheck(h)
	if c.outlier != nil {
		c.outlier.Remove(h.outlier)
	}
	if h.pools.tcp != nil {
		h.pools.drain()
	}
}

// rebuild makes the next state of the hosts as they are. c.mu is held.
func (c *Cluster) rebuild() {
	hosts := make([]*Host, 0, len(c.hosts))
	for _, h := range c.hosts {
		if h.info.Load() != nil {
			hosts = append(hosts, h)
		}
	}
	// A stable order makes a policy go on where it was, and the picks of a seeded test the same.
	slices.SortFunc(hosts, func(a, b *Host) int {
		return cmp.Or(cmp.Compare(a.Group().Priority, b.Group().Priority), a.Address.IP.Compare(b.Address.IP), cmp.Compare(a.Address.Pipe, b.Address.Pipe))
	})
	lbHosts := make([]*lb.Host, len(hosts))
	var healthy, degraded int64
	for i, h := range hosts {
		in := h.info.Load()
		h.lbHost.Weight, h.lbHost.Priority, h.lbHost.Health = in.endpoint.Weight, in.group.Priority, h.Health()
		switch h.lbHost.Health {
		case lb.Healthy:
			healthy++
		case lb.Degraded:
			degraded++
		}
		h.pools.setHealthy(h.lbHost.Health == lb.Healthy)
		lbHosts[i] = h.lbHost
	}
	old := c.now.Load()
	next := &state{hosts: hosts, version: c.set.Version, next: c.newForecast()}
	next.set = lb.NewSet(lbHosts, lb.Options{
		Build: c.policy, Config: c.Config.Policy.Config,
		Overprovisioning: c.set.Overprovisioning, PanicThreshold: c.panicThreshold, Seed: seed(),
	}, old.set)
	c.now.Store(next)
	c.Stats.Set(metrics.MembershipTotal, int64(len(hosts)))
	c.Stats.Set(metrics.MembershipHealthy, healthy)
	c.Stats.Set(metrics.MembershipDegraded, degraded)
}

// refresh rebuilds after the health of a host changed. Where a request that is still on a replaced cluster found that
// out, it is the successor, which has the same outlier detection, that goes by it.
func (c *Cluster) refresh() {
	c.mu.Lock()
	heir := c.heir
	if !c.closed {
		c.rebuild()
	}
	c.mu.Unlock()
	if heir != nil {
		heir.refresh()
	}
}
