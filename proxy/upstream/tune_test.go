// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// values is a runtime. Its keys that are not there have no value.
type values struct {
	generation uint64
	numbers    map[string]float64
}

func (v *values) Generation() uint64 { return v.generation }

func (v *values) Integer(name string, otherwise uint64) uint64 {
	if n, ok := v.numbers[name]; ok && n == math.Trunc(n) {
		return uint64(n)
	}
	return otherwise
}

func (v *values) Double(name string, otherwise float64) float64 {
	if n, ok := v.numbers[name]; ok {
		return n
	}
	return otherwise
}

// set gives the runtime other values, and has the cluster look at them.
func (v *values) set(c *Cluster, numbers map[string]float64) {
	v.generation++
	v.numbers = numbers
	c.Tune()
}

// TestTuneLimits: thresholds follow the runtime, for the cluster that a key names, and come back when it says nothing any
// more; a cluster that replaces another begins with them.
func TestTuneLimits(t *testing.T) {
	t.Parallel()
	r, v := newRig(t), &values{}
	r.deps.Runtime = v
	limits := func(c *mesh.Cluster) {
		for p := range c.Limits {
			c.Limits[p] = mesh.Limits{Connections: 10, Pending: 11, Requests: 12, Retries: 3}
		}
	}
	c := r.cluster(config(limits), a)
	check := func(c *Cluster, when string, p mesh.Priority, want ...uint64) {
		t.Helper()
		for k, n := range want {
			if got := c.Resources(p).Max(circuit.Resource(k)); got != n {
				t.Errorf("%s: priority %d: at most %d of %s, want %d", when, p, got, circuit.Resource(k), n)
			}
		}
	}
	key := "circuit_breakers." + c.Config.Name
	check(c, "at first", 0, 10, 11, 12, 3)
	v.set(c, map[string]float64{
		key + ".default.max_connections": 1, key + ".default.max_pending_requests": 2, key + ".default.max_requests": 1e12,
		key + ".default.max_retries": 4, key + ".high.max_requests": 0, "circuit_breakers.other.default.max_connections": 99,
	})
	check(c, "changed", 0, 1, 2, circuit.NoLimit, 4)
	check(c, "changed", 1, 10, 11, 0, 3)
	c2 := New(config(limits), &r.deps, c)
	t.Cleanup(c2.Close)
	check(c2, "replaced", 0, 1, 2, circuit.NoLimit, 4)
	v.set(c2, map[string]float64{key + ".default.retry_budget.min_retry_concurrency": 7})
	check(c2, "a budget", 0, 10, 11, 12, 7)
	v.set(c2, nil)
	check(c2, "at the end", 0, 10, 11, 12, 3)
}

// TestTunePanic: the threshold of panics is in force at once, and no more than 100.
func TestTunePanic(t *testing.T) {
	t.Parallel()
	r, v := newRig(t), &values{}
	r.deps.Runtime = v
	c := r.cluster(config(func(c *mesh.Cluster) { c.PanicThreshold = 50 }), a, b+"/unhealthy", d+"/unhealthy")
	healthy, all := map[string]int{a: 30}, map[string]int{a: 10, b: 10, d: 10}
	for _, step := range []struct {
		numbers map[string]float64
		want    map[string]int
	}{
		{map[string]float64{"upstream.healthy_panic_threshold": 0}, healthy},
		{map[string]float64{"upstream.healthy_panic_threshold": 1000}, all},
		{map[string]float64{"upstream.healthy_panic_threshold": 30}, healthy},
		{nil, all},
	} {
		v.set(c, step.numbers)
		if got := spread(t, c, 30); !maps.Equal(got, step.want) {
			t.Errorf("with %v picked %v, want %v", step.numbers, got, step.want)
		}
	}
}

// TestTuneOutlier: all rules of outlier detection that there are follow the runtime, also for a cluster that takes the
// detector over.
func TestTuneOutlier(t *testing.T) {
	t.Parallel()
	r, v := newRig(t), &values{generation: 1, numbers: map[string]float64{
		"outlier_detection.consecutive_5xx": 2, "outlier_detection.enforcing_consecutive_5xx": 500,
		"outlier_detection.max_ejection_percent": 100, "outlier_detection.interval_ms": 0, "outlier_detection.base_ejection_time_ms": 1e18,
	}}
	r.deps.Runtime = v
	rules := circuit.DefaultOutlier()
	rules.Enforcing5xx = 0
	c := r.cluster(config(func(c *mesh.Cluster) { c.Outlier = &rules }), a, b)
	if c.interval != time.Millisecond {
		t.Errorf("interval %s, want the shortest", c.interval)
	}
	h := c.Hosts()[0]
	for range 2 {
		c.detected(h, c.outlier.Report(0, h.outlier, &circuit.Attempt{Status: 500}, 99))
	}
	if !h.outlier.Ejected() {
		t.Error("two failures did not eject the host")
	}
	v.set(c, nil)
	h = c.Hosts()[1]
	for range 5 {
		c.detected(h, c.outlier.Report(0, h.outlier, &circuit.Attempt{Status: 500}, 99))
	}
	if h.outlier.Ejected() {
		t.Error("the host is ejected, which the configuration does not enforce")
	}
	if c.interval != rules.Interval {
		t.Errorf("interval %s, want %s", c.interval, rules.Interval)
	}
}

// TestTuneMaintenance: the share of requests that are refused follows the runtime, for the cluster that a key names.
func TestTuneMaintenance(t *testing.T) {
	t.Parallel()
	r, v := newRig(t), &values{}
	r.deps.Runtime = v
	c := r.cluster(config(), a)
	for _, step := range []struct {
		key  string
		n    float64
		want int // of 200
	}{{c.Config.Name, 25, 50}, {c.Config.Name, 1000, 200}, {"other", 100, 0}, {c.Config.Name, 0, 0}} {
		v.set(c, map[string]float64{"upstream.maintenance_mode." + step.key: step.n})
		got := 0
		for rnd := range uint64(200) {
			if c.Maintenance(rnd) {
				got++
			}
		}
		if got != step.want {
			t.Errorf("with %v for %s: %d of 200 are refused, want %d", step.n, step.key, got, step.want)
		}
	}
}
