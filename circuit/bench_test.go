// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// watching is a breaker that looks at everything and opens on nothing that happens here.
func watching() mesh.Breaker {
	c := circuit.DefaultBreaker()
	c.ConsecutiveFailures = 1 << 30
	c.ErrorRate, c.SlowRate, c.SlowAfter = 0.99, 0.99, time.Second
	return c
}

// Not parallel: AllocsPerRun counts the allocations of all goroutines.
func TestRequestPathDoesNotAllocate(t *testing.T) {
	var now int64
	tick := func() int64 { now += ms; return now }

	t.Run("limiter", func(t *testing.T) {
		var l circuit.Limiter
		noAllocs(t, func() {
			if l.Acquire(10) {
				l.Release()
			}
		})
	})
	t.Run("resources", func(t *testing.T) {
		budget := circuit.DefaultRetryBudget()
		r := circuit.NewResources(&mesh.Limits{Requests: 10, Budget: &budget})
		noAllocs(t, func() {
			for _, k := range []circuit.Resource{circuit.Requests, circuit.Retries} {
				if r.Acquire(k) {
					r.Release(k)
				}
			}
		})
	})
	t.Run("closed breaker", func(t *testing.T) {
		b := circuit.NewBreaker(watching(), 0)
		noAllocs(t, func() {
			v := b.Admit(tick())
			v.Permit.Done(tick(), circuit.Result{Failure: now%4 == 0, Took: ms})
		})
	})
	t.Run("open breaker", func(t *testing.T) {
		b := circuit.NewBreaker(fast(), now)
		fail(t, b, now)
		fail(t, b, now)
		noAllocs(t, func() { b.Admit(now) })
	})
	t.Run("half open breaker", func(t *testing.T) {
		c := fast()
		c.ProbeSuccesses = 1 << 30
		b, _ := halfOpen(t, c)
		noAllocs(t, func() {
			v := b.Admit(200 * ms)
			b.Admit(200 * ms)
			v.Permit.Done(200*ms, circuit.Result{})
		})
	})
	t.Run("outlier", func(t *testing.T) {
		o, hosts := cluster(circuit.DefaultOutlier(), 1)
		n := 0
		noAllocs(t, func() {
			n++
			a := circuit.Attempt{Status: 200}
			if n%4 != 0 {
				a.Status = 503
			}
			o.Report(0, hosts[0], &a, 0)
		})
	})
	t.Run("retry plan", func(t *testing.T) {
		r := circuit.NewResources(&mesh.Limits{Retries: 10})
		policy := &mesh.RetryPolicy{
			On: mesh.RetryOnRetriableHeaders | mesh.RetryOnRetriableStatusCodes, Retries: 2,
			StatusCodes: []int{418}, Headers: []mesh.HeaderMatch{{Name: "a"}},
		}
		head := circuit.Answer(answer{"a"})
		none := circuit.RetryHeaders{}
		noAllocs(t, func() {
			p := circuit.NewPlan(none.Merge(policy), r)
			a := circuit.Attempt{Status: 500, Answer: head, Replayable: true}
			if !p.Next(&a, 1).Retry || p.Renew(&a) {
				t.Error("must be repeated by the policy")
			}
			p.Close()
		})
	})
}

func BenchmarkLimiter(b *testing.B) {
	var l circuit.Limiter
	b.ReportAllocs()
	for b.Loop() {
		l.Acquire(1024)
		l.Release()
	}
}

func BenchmarkLimiterTogether(b *testing.B) {
	var l circuit.Limiter
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Acquire(1024) {
				l.Release()
			}
		}
	})
}

func BenchmarkRetryBudget(b *testing.B) {
	budget := circuit.DefaultRetryBudget()
	r := circuit.NewResources(&mesh.Limits{Requests: 1024, Budget: &budget})
	b.ReportAllocs()
	for b.Loop() {
		r.Acquire(circuit.Retries)
		r.Release(circuit.Retries)
	}
}

func BenchmarkBreaker(b *testing.B) {
	open := circuit.NewBreaker(mesh.Breaker{ConsecutiveFailures: 1}, 0)
	open.Admit(0).Permit.Done(0, circuit.Result{Failure: true})
	for name, breaker := range map[string]*circuit.Breaker{"closed": circuit.NewBreaker(watching(), 0), "open": open} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := int64(0)
			for b.Loop() {
				now++
				v := breaker.Admit(now)
				v.Permit.Done(now, circuit.Result{Took: ms})
			}
		})
	}
}

func BenchmarkBreakerTogether(b *testing.B) {
	breaker := circuit.NewBreaker(watching(), 0)
	var clocks atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := clocks.Add(1)
		for pb.Next() {
			now += 1000
			v := breaker.Admit(now)
			v.Permit.Done(now, circuit.Result{Took: ms})
		}
	})
}

func BenchmarkOutlierReport(b *testing.B) {
	for name, status := range map[string]int{"success": 200, "failure": 503} {
		b.Run(name, func(b *testing.B) {
			c := circuit.DefaultOutlier()
			c.Consecutive5xx, c.ConsecutiveGateway = 0, 0
			o, hosts := cluster(c, 1)
			a := circuit.Attempt{Status: status}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					o.Report(0, hosts[0], &a, 0)
				}
			})
		})
	}
}

func BenchmarkOutlierTick(b *testing.B) {
	o, hosts := cluster(circuit.DefaultOutlier(), 1000)
	b.ReportAllocs()
	for b.Loop() {
		o.Tick(0, hosts)
	}
}

func BenchmarkPlan(b *testing.B) {
	r := circuit.NewResources(&mesh.Limits{Retries: 10})
	policy := &mesh.RetryPolicy{On: mesh.RetryOn5xx | mesh.RetryOnConnectFailure, Retries: 2}
	bad := answered(503)
	b.ReportAllocs()
	for b.Loop() {
		p := circuit.NewPlan(policy, r)
		p.Next(&bad, 1)
		p.Close()
	}
}
