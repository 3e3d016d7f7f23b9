// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
)

// TestLazyHistogram: a distribution that is lazy is listed once it has observed something.
func TestLazyHistogram(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(&stats.Schema{Name: "x", Histograms: []stats.HistDef{{Name: "time", Lazy: true}, {Name: "other"}}}, "x.a")
	listed := func() (names string) {
		r.Each(func(k stats.Kind) bool { return k == stats.Histogram }, func(m *stats.Metric) bool {
			names += string(m.AppendName(nil)) + " "
			return true
		})
		return names
	}
	if got := listed(); got != "x.a.other " {
		t.Errorf("before it was used: %s", got)
	}
	g.Observe(0, 0, 5)
	if got := listed(); got != "x.a.other x.a.time " {
		t.Errorf("after it was used: %s", got)
	}
}
