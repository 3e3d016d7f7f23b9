// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
)

func BenchmarkAdd(b *testing.B) {
	g := stats.NewRegistry(stats.Options{}).Group(schema(), "cluster.a")
	for b.Loop() {
		g.Add(1, total, 1)
	}
}

func BenchmarkGauge(b *testing.B) {
	g := stats.NewRegistry(stats.Options{}).Group(schema(), "cluster.a")
	for b.Loop() {
		g.Inc(1, active)
		g.Dec(1, active)
	}
}

func BenchmarkCode(b *testing.B) {
	g := stats.NewRegistry(stats.Options{}).Group(schema(), "cluster.a")
	for b.Loop() {
		g.Code(1, external, 200)
	}
}

func BenchmarkObserve(b *testing.B) {
	g := stats.NewRegistry(stats.Options{}).Group(schema(), "cluster.a")
	v := int64(0)
	for b.Loop() {
		v += 1000
		g.Observe(1, 0, v&0xffffff)
	}
}

// BenchmarkAddParallel has each goroutine count on a shard of its own, and all on one.
func BenchmarkAddParallel(b *testing.B) {
	for _, shared := range []bool{false, true} {
		b.Run(fmt.Sprintf("shared=%v", shared), func(b *testing.B) {
			g := stats.NewRegistry(stats.Options{Shards: 64}).Group(schema(), "cluster.a")
			var next atomic.Uint32
			b.RunParallel(func(pb *testing.PB) {
				shard := next.Add(1)
				if shared {
					shard = 0
				}
				for pb.Next() {
					g.Add(shard, total, 1)
				}
			})
		})
	}
}

// BenchmarkEach lists 10,000 clusters, of which 100 are in use.
func BenchmarkEach(b *testing.B) {
	r := stats.NewRegistry(stats.Options{})
	s := schema()
	for i := range 10_000 {
		g := r.Group(s, fmt.Sprintf("cluster.c%d", i))
		for j := 0; i%100 == 0 && j < 1000; j++ {
			g.Inc(uint32(j), total)
			g.Code(uint32(j), external, 200)
			g.Observe(uint32(j), 0, int64(j)*1000)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Each(func(stats.Kind) bool { return true }, func(*stats.Metric) bool { return true })
	}
}
