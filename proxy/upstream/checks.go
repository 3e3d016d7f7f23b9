// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"slices"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
)

// startCheck begins the active check of a host, anew where there was one. c.mu is held.
func (c *Cluster) startCheck(h *Host) {
	c.stopCheck(h)
	e := h.Endpoint()
	if len(c.Config.HealthChecks) == 0 || e.NoActiveCheck {
		h.checked.Store(unchecked)
		return
	}
	if h.checked.Load() == unchecked {
		h.checked.Store(checkPending)
	}
	deps := health.Deps{
		Log: c.deps.Log, Stats: c.numbers.health, Random: rand.Uint64, Runtime: c.deps.Runtime, Source: c.Config.BindSource,
		Engine: c.deps.Engine, HTTP2: c.pools.H2,
	}
	c.secureCheck(&deps)
	h.check = health.Start(&c.Config.HealthChecks[0], health.Target{
		Address: h.Address, Hostname: e.Hostname, CheckPort: e.CheckPort, CheckHost: e.CheckHost, ClusterName: c.Config.Name,
		Healthy: passes(h.checked.Load()), Traffic: c.used.Load(),
	}, deps, func(r health.Result) { c.checked(h, r) })
}

// stopCheck marks the check of a host for joinChecks. c.mu is held.
func (c *Cluster) stopCheck(h *Host) {
	if h.check != nil {
		c.stopping = append(c.stopping, h.check)
		h.check = nil
	}
}

// joinChecks ends the checks that were marked. c.mu must not be held: a report of theirs may be waiting for it.
func (c *Cluster) joinChecks() {
	c.mu.Lock()
	stopping := c.stopping
	c.stopping = nil
	c.mu.Unlock()
	for _, k := range stopping {
		k.Stop()
	}
}

// traffic tells the checks that the cluster is in use, so that they no longer run at the pace for unused ones.
func (c *Cluster) traffic() {
	if c.used.Swap(true) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		if h.check != nil {
			h.check.SetTraffic(true)
		}
	}
}

// checked takes in the result of an active check. It is called on the checker's goroutine.
func (c *Cluster) checked(h *Host, r health.Result) {
	if r.Reason == "" && r.Healthy && c.outlier != nil {
		if n, back := c.outlier.CheckPassed(mono.Now(), h.outlier); back {
			c.notify(h.Address, &mesh.Notice{Kind: mesh.NoticeEjection, Ejection: &n})
			c.refresh()
		}
	}
	to := checkFailed
	switch {
	case r.Healthy && r.Degraded:
		to = checkDegraded
	case r.Healthy:
		to = checkPassed
	}
	was := h.checked.Swap(to)
	if was == to {
		return
	}
	notice := &mesh.HealthNotice{From: healthOf(was), To: healthOf(to), Source: "active_check", Reason: r.Reason}
	c.notify(h.Address, &mesh.Notice{Kind: mesh.NoticeHealth, Health: notice})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if to == checkFailed {
		if h.gone {
			// Discovery had removed it, and now its check agrees. The check cannot end itself: the next tick does.
			c.drop(h.Address, h)
		} else if c.Config.CloseOnHealthFailure {
			h.pools.closeIdle()
		}
	}
	c.rebuild()
}

// passes reports whether a host with this result of its check is in service.
func passes(checked uint32) bool { return checked == checkPassed || checked == checkDegraded }

func healthOf(checked uint32) mesh.HealthStatus {
	switch checked {
	case checkPassed:
		return mesh.HealthHealthy
	case checkDegraded:
		return mesh.HealthDegraded
	case checkFailed:
		return mesh.HealthUnhealthy
	}
	return mesh.HealthUnknown
}

// checkedAs returns the number of hosts with one of these results of their checks.
func (c *Cluster) checkedAs(results ...uint32) (n int64) {
	for _, h := range c.Hosts() {
		if slices.Contains(results, h.checked.Load()) {
			n++
		}
	}
	return n
}
