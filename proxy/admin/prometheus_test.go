// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// TestPrometheusParses reads the output as Prometheus does and compares what it holds with the stats.
func TestPrometheusParses(t *testing.T) {
	t.Parallel()
	reg := registry()
	odd := metrics.NewCluster(reg, "a \"quoted\" \\ name")
	odd.Inc(0, metrics.UpstreamCxTotal)
	h := odd.Group
	for i := range int64(1000) {
		h.Observe(0, metrics.UpstreamRqTime, i*i*10_000)
	}
	_, c := start(t, admin.Config{}, admin.Views{}, reg)
	for _, query := range []string{"", "?usedonly", "?text_readouts", "?go", "?histogram_buckets=summary", "?histogram_buckets=none", "?usedonly&text_readouts&go"} {
		_, body := c.do(t, "GET", "/stats/prometheus"+query)
		p := expfmt.NewTextParser(model.LegacyValidation)
		families, err := p.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if strings.Contains(query, "go") != (families["go_goroutines"] != nil) {
			t.Errorf("%s: Go's own metrics are there: %v", query, families["go_goroutines"] != nil)
		}
		if strings.Contains(query, "text_readouts") != (families["envoy_control_plane_identifier"] != nil) {
			t.Errorf("%s: texts are there: %v", query, families["envoy_control_plane_identifier"] != nil)
		}
		// As many series as the registry lists.
		want := 0
		for _, f := range reg.Families() {
			for m := range f.Each {
				if (m.Used || !strings.Contains(query, "usedonly")) && (m.Kind != stats.Text || strings.Contains(query, "text_readouts")) {
					want++
				}
			}
		}
		got := 0
		for name, f := range families {
			if strings.HasPrefix(name, "envoy_") || strings.HasPrefix(name, "meshtap_") {
				got += len(f.GetMetric())
			}
		}
		if got != want {
			t.Errorf("%s: %d series, want %d", query, got, want)
		}
	}

	_, body := c.do(t, "GET", "/stats/prometheus?filter=quoted.*(cx_total|rq_time$)")
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	total := families["envoy_cluster_upstream_cx_total"].GetMetric()[0]
	if v := total.GetLabel()[0].GetValue(); v != `a "quoted" \ name` || total.GetCounter().GetValue() != 1 {
		t.Errorf("label %q, value %v", v, total.GetCounter().GetValue())
	}
	hist := families["envoy_cluster_upstream_rq_time"].GetMetric()[0].GetHistogram()
	if hist.GetSampleCount() != 1000 || math.Abs(hist.GetSampleSum()-3328335) > 1 || len(hist.GetBucket()) != len(stats.Buckets)+1 {
		t.Errorf("histogram: %d samples, sum %v, %d buckets", hist.GetSampleCount(), hist.GetSampleSum(), len(hist.GetBucket()))
	}
}

// TestBoundsAsEnvoy: "le" has no exponents.
func TestBoundsAsEnvoy(t *testing.T) {
	t.Parallel()
	_, c := start(t, admin.Config{}, admin.Views{}, registry())
	_, body := c.do(t, "GET", "/stats/prometheus?filter=downstream_rq_time")
	for _, b := range []string{"0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
		"300000", "600000", "1800000", "3600000", "+Inf"} {
		if !strings.Contains(body, `le="`+b+`"`) {
			t.Errorf("no bucket %s", b)
		}
	}
}

// BenchmarkPrometheus scrapes 10,000 clusters, of which 100 are in use.
func BenchmarkPrometheus(b *testing.B) {
	for _, query := range []string{"?usedonly", ""} {
		b.Run(query, func(b *testing.B) {
			reg := stats.NewRegistry(stats.Options{})
			h := metrics.NewHTTP(reg, "in", "l")
			for i := range 10_000 {
				c := metrics.NewCluster(reg, fmt.Sprintf("outbound|80||svc-%d.ns.svc.cluster.local", i))
				if i%100 == 0 {
					h.Begin(0, mesh.HTTP11)
					metrics.ObserveHTTP(h, c, &mesh.Outcome{Status: 200, UpstreamTook: 1e6})
				}
			}
			scrape := admin.Scrape(reg, query)
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(scrape())
			}
		})
	}
}
