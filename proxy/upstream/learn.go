// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// transition tells of a change of a circuit's state; h is nil for the cluster's circuit.
func (c *Cluster) transition(n *mesh.CircuitNotice, h *Host) {
	if n == nil {
		return
	}
	c.numbers.circuit.Observe(n, h != nil)
	notice := &mesh.Notice{Kind: mesh.NoticeCircuit, Circuit: n}
	var addr mesh.Address
	if h != nil {
		addr = h.Address
	}
	c.notify(addr, notice)
}

// detected acts on what outlier detection found.
func (c *Cluster) detected(h *Host, found []circuit.Detection) {
	for i := range found {
		d := &found[i]
		if d.Overflow {
			c.numbers.outlier.Inc(0, metrics.EjectionsOverflow)
			continue
		}
		c.numbers.outlier.Observe(&d.Notice)
		c.notify(h.Address, &mesh.Notice{Kind: mesh.NoticeEjection, Ejection: &d.Notice})
		if d.Notice.Enforced {
			c.refresh()
		}
	}
}

// Ticks reports whether the cluster has anything to do by the clock.
func (c *Cluster) Ticks() bool {
	return c.outlier != nil || c.Config.Discovery == mesh.OriginalDestination || len(c.Config.HealthChecks) > 0
}

// Tick does what is due at now (mono): it lets ejected hosts back, forgets idle original destinations, and ends the checks
// of hosts that have left. It returns when it wants to be called again at the latest.
func (c *Cluster) Tick(now int64) (next int64) {
	next = now + int64(maxTick)
	c.joinChecks()
	if c.outlier != nil {
		next = min(next, c.tickOutlier(now))
	}
	if c.Config.Discovery == mesh.OriginalDestination {
		next = min(next, c.tickOriginal(now))
	}
	return next
}

func (c *Cluster) tickOutlier(now int64) int64 {
	c.mu.Lock()
	if now < c.tickAt || c.closed {
		defer c.mu.Unlock()
		return c.tickAt
	}
	c.tickAt = now + int64(c.interval)
	next := c.tickAt
	c.mu.Unlock()
	hosts := c.Hosts()
	states := make([]*circuit.HostState, len(hosts))
	for i, h := range hosts {
		states[i] = h.outlier
	}
	back := c.outlier.Tick(now, states)
	for i := range back {
		c.notify(hosts[back[i].Host].Address, &mesh.Notice{Kind: mesh.NoticeEjection, Ejection: &back[i].Notice})
	}
	if len(back) > 0 {
		c.refresh()
	}
	return next
}

// notify tells of something that happened to the cluster, or to one of its hosts.
func (c *Cluster) notify(host mesh.Address, n *mesh.Notice) {
	n.Time, n.Cluster, n.Host = mono.Wall(mono.Now()), c.Config.Name, host
	c.deps.Notifier.Notify(n)
}

// limitNumbers are the numbers of each limit.
var limitNumbers = [...]struct{ open, remaining int }{
	circuit.Connections: {metrics.LimitCxOpen, metrics.LimitRemainingCx},
	circuit.Pending:     {metrics.LimitRqPendingOpen, metrics.LimitRemainingPending},
	circuit.Requests:    {metrics.LimitRqOpen, metrics.LimitRemainingRq},
	circuit.Retries:     {metrics.LimitRqRetryOpen, metrics.LimitRemainingRetries},
}

// count makes the numbers that this cluster has beside those of every cluster.
func (c *Cluster) count(name string) {
	for p := range c.res {
		res := c.res[p]
		l := metrics.NewLimits(c.deps.Stats, name, mesh.Priority(p))
		c.numbers.limits[p] = l
		for k, n := range limitNumbers {
			k := circuit.Resource(k)
			l.SetFunc(n.open, func() int64 {
				if res.Open(k) {
					return 1
				}
				return 0
			})
			if c.Config.Limits[p].TrackRemaining {
				l.SetFunc(n.remaining, func() int64 { return int64(res.Remaining(k)) })
			}
		}
	}
	if c.outlier != nil {
		c.numbers.outlier = metrics.NewOutlier(c.deps.Stats, name)
		c.numbers.outlier.SetFunc(metrics.EjectionsActive, func() int64 { return int64(c.outlier.Active()) })
	}
	if len(c.Config.HealthChecks) > 0 {
		c.numbers.health = metrics.NewHealthCheck(c.deps.Stats, name)
		c.numbers.health.SetFunc(metrics.HealthCheckHealthy, func() int64 { return c.checkedAs(checkPassed, checkDegraded) })
		c.numbers.health.SetFunc(metrics.HealthCheckDegraded, func() int64 { return c.checkedAs(checkDegraded) })
	}
	if c.Config.Breaker != nil {
		c.numbers.circuit = metrics.NewCircuit(c.deps.Stats, name)
		if c.breaker != nil {
			c.numbers.circuit.Set(metrics.CircuitState, int64(c.breaker.State()))
		}
	}
}

// release gives the numbers back.
func (c *Cluster) release() {
	c.Stats.Release()
	for _, l := range c.numbers.limits {
		l.Release()
	}
	if n := c.numbers.outlier; n != nil {
		n.Release()
	}
	if n := c.numbers.health; n != nil {
		n.Release()
	}
	if n := c.numbers.circuit; n != nil {
		n.Release()
	}
	if n := c.numbers.http2; n != nil {
		n.Release()
	}
	if n := c.numbers.tls; n != nil {
		n.Release()
	}
}
