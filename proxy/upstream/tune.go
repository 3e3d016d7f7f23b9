// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math"
	"time"

	"github.com/meshtap/meshtap/internal/runtimekeys"
	"github.com/meshtap/meshtap/mesh"
)

// Tune puts into force what the runtime says of the cluster now: its thresholds, outlier detection, panics and retries, where
// Envoy has keys for them. It does nothing where the runtime has not changed since, and no request reads a key.
func (c *Cluster) Tune() {
	if c.tune() {
		c.refresh()
	}
}

// tune returns true where the next state of the hosts is to be made.
func (c *Cluster) tune() bool {
	values := c.deps.Runtime
	if values == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	generation := values.Generation()
	if c.tuned == generation || c.closed || c.heir != nil {
		return false
	}
	c.tuned = generation
	backOff := milliseconds(values, runtimekeys.RetryBackOff, 0)
	retries := percent(values, runtimekeys.UseRetry, 100)
	for p := range c.res {
		c.res[p].SetLimits(c.limits(p))
		c.res[p].SetRetries(backOff, retries)
	}
	c.maintenance.Store(percent(values, runtimekeys.Maintenance(c.Config.Name), 0))
	if c.outlier != nil {
		o := outlierRules(values, *c.Config.Outlier)
		c.outlier.SetConfig(o)
		c.interval = o.Interval
	}
	was := c.panicThreshold
	c.panicThreshold = c.Config.PanicThreshold
	if v := values.Integer(runtimekeys.PanicThreshold, math.MaxUint64); v != math.MaxUint64 {
		c.panicThreshold = float64(min(v, 100))
	}
	return c.panicThreshold != was
}

// Maintenance reports whether a request is to be refused because the cluster is in maintenance, as the runtime says for all
// requests or for a share. rnd is random.
func (c *Cluster) Maintenance(rnd uint64) bool {
	share := c.maintenance.Load()
	return share != 0 && uint32(rnd%100) < share
}

// limits returns the thresholds of a priority as they are now.
func (c *Cluster) limits(p int) *mesh.Limits {
	l, values := c.Config.Limits[p], c.deps.Runtime
	if values == nil {
		return &l
	}
	key := func(setting string) string { return runtimekeys.Limit(c.Config.Name, p, setting) }
	for setting, n := range map[string]*uint32{
		runtimekeys.MaxConnections: &l.Connections, runtimekeys.MaxPending: &l.Pending,
		runtimekeys.MaxRequests: &l.Requests, runtimekeys.MaxRetries: &l.Retries,
	} {
		*n = number(values, key(setting), *n)
	}
	// As in Envoy, either of the two makes a budget where there is none.
	b := mesh.RetryBudget{Percent: 20, MinConcurrency: 3}
	if l.Budget != nil {
		b = *l.Budget
	}
	share, least := values.Double(key(runtimekeys.BudgetPercent), -1), values.Integer(key(runtimekeys.BudgetMin), math.MaxUint64)
	if share >= 0 {
		b.Percent = min(share, 100)
	}
	if least != math.MaxUint64 {
		b.MinConcurrency = uint32(min(least, math.MaxUint32))
	}
	if share >= 0 || least != math.MaxUint64 {
		l.Budget = &b
	}
	return &l
}

// outlierRules returns outlier detection with what the runtime says of it.
func outlierRules(values mesh.RuntimeValues, o mesh.Outlier) mesh.Outlier {
	for key, n := range map[string]*uint32{
		runtimekeys.Consecutive5xx: &o.Consecutive5xx, runtimekeys.ConsecutiveGateway: &o.ConsecutiveGateway,
		runtimekeys.ConsecutiveLocal: &o.ConsecutiveLocal,
	} {
		*n = number(values, key, *n)
	}
	for key, n := range map[string]*uint32{
		runtimekeys.Enforcing5xx: &o.Enforcing5xx, runtimekeys.EnforcingGateway: &o.EnforcingGateway,
		runtimekeys.EnforcingLocal: &o.EnforcingLocal, runtimekeys.MaxEjectionPercent: &o.MaxEjectionPercent,
	} {
		*n = percent(values, key, *n)
	}
	for key, d := range map[string]*time.Duration{
		runtimekeys.OutlierInterval: &o.Interval, runtimekeys.BaseEjection: &o.BaseEjection,
		runtimekeys.MaxEjection: &o.MaxEjection, runtimekeys.EjectionJitter: &o.Jitter,
	} {
		*d = milliseconds(values, key, *d)
	}
	o.Interval = max(o.Interval, time.Millisecond)
	return o
}

func number(values mesh.RuntimeValues, key string, otherwise uint32) uint32 {
	return uint32(min(values.Integer(key, uint64(otherwise)), math.MaxUint32))
}

func percent(values mesh.RuntimeValues, key string, otherwise uint32) uint32 {
	return min(number(values, key, otherwise), 100)
}

// milliseconds reads a time of at most ten years.
func milliseconds(values mesh.RuntimeValues, key string, otherwise time.Duration) time.Duration {
	const most = 10 * 365 * 24 * time.Hour
	if ms := values.Integer(key, math.MaxUint64); ms != math.MaxUint64 {
		return time.Duration(min(ms, uint64(most/time.Millisecond))) * time.Millisecond
	}
	return otherwise
}
