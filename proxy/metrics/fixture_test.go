// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// The files in testdata are what Envoy 1.40 lists for the configuration that everything builds: the names of /stats, and
// the series of /stats/prometheus with their types, labels sorted, values left out.

func lines(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		out[s.Text()] = true
	}
	return out
}

// everything returns a registry with one of each group, where all that appears with its first use was used.
func everything() *stats.Registry {
	reg := stats.NewRegistry(stats.Options{})
	h := metrics.NewHTTP(reg, "ingress", "127.0.0.1:29080")
	c := metrics.NewCluster(reg, "echo")
	metrics.NewListener(reg, "127.0.0.1:29080")
	metrics.NewTCP(reg, "raw")
	for _, p := range []mesh.Priority{mesh.PriorityDefault, mesh.PriorityHigh} {
		l := metrics.NewLimits(reg, "echo", p)
		for i := range metrics.LimitRemainingRetries + 1 {
			l.SetFunc(i, func() int64 { return 0 })
		}
	}
	metrics.NewOutlier(reg, "echo")
	metrics.NewHealthCheck(reg, "echo")
	metrics.NewCircuit(reg, "echo")
	metrics.NewServer(reg, func() time.Duration { return 0 })
	metrics.NewConfig(reg)
	metrics.NewListenerManager(reg)
	metrics.NewListenerOwn(reg)
	metrics.NewFilesystem(reg)
	metrics.NewAccessLog(reg)
	metrics.NewClusterManager(reg)
	for _, code := range []int{200, 302, 404, 502, 503} {
		h.Begin(0, mesh.HTTP11)
		metrics.ObserveHTTP(h, c, &mesh.Outcome{Status: code})
	}
	h.Begin(0, mesh.HTTP11)
	metrics.ObserveHTTP(h, c, &mesh.Outcome{Status: 503, Attempts: 2, Tries: []mesh.Try{{Status: 503}}})
	return reg
}

func TestNamesAreEnvoys(t *testing.T) {
	t.Parallel()
	envoy := lines(t, "testdata/envoy_stats.txt")
	n := 0
	everything().Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		name := string(m.AppendName(nil))
		if n++; !envoy[name] && !strings.Contains(name, "meshtap_") {
			t.Errorf("Envoy has no %q", name)
		}
		return true
	})
	if n < 160 {
		t.Errorf("only %d metrics were compared", n)
	}
}

func TestPrometheusNamesAreEnvoys(t *testing.T) {
	t.Parallel()
	envoy := lines(t, "testdata/envoy_prometheus.txt")
	types := map[stats.Kind]string{stats.Counter: "counter", stats.Gauge: "gauge", stats.Text: "gauge", stats.Histogram: "histogram"}
	for _, f := range everything().Families() {
		for m := range f.Each {
			var labels []string
			for tag := range m.Tags {
				labels = append(labels, stats.PromSanitize(tag.Name)+`="`+tag.Value+`"`)
			}
			if m.Kind == stats.Text {
				labels = append(labels, `text_value=""`)
			}
			slices.Sort(labels)
			series := types[m.Kind] + " " + f.Name + "{" + strings.Join(labels, ",") + "}"
			if m.Kind != f.Kind {
				t.Errorf("%s is of two kinds", f.Name)
			}
			if !envoy[series] && !strings.HasPrefix(f.Name, "meshtap_") {
				t.Errorf("Envoy has no %s", series)
			}
		}
	}
}
