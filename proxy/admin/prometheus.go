// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
)

// prometheus prints the stats family by family, each through a prometheus.Registry of its own: so what is held at a time is
// one family and not the 100 of 10,000 clusters.
func (s *Server) prometheus(r *request) (*answer, error) {
	mode := r.query.get("histogram_buckets")
	if mode == "none" { // Envoy's other word for it
		mode = "summary"
	}
	if mode != "" && mode != "cumulative" && mode != "summary" {
		return nil, badRequest("unsupported prometheus histogram bucket mode")
	}
	sel, err := newSelection(r.query)
	if err != nil {
		return nil, err
	}
	texts, goMetrics := r.query.has("text_readouts"), r.query.has("go")
	return writeText(func(w *bufio.Writer) error {
		for _, f := range s.deps.Stats.Families() {
			if f.Kind == stats.Text && !texts {
				continue
			}
			if err := s.gather(w, &collector{family: f, sel: sel, summary: mode == "summary"}); err != nil {
				return err
			}
		}
		if goMetrics {
			return s.gather(w, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		}
		return nil
	}), nil
}

// gather writes what the collectors give. Series that contradict each other are left out and logged, as client_golang's own
// handler can be told to do.
func (s *Server) gather(w *bufio.Writer, cs ...prometheus.Collector) error {
	reg := prometheus.NewRegistry()
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("admin: register a collector: %w", err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		s.deps.Log.Warn("some metrics could not be exported", zap.Error(err))
	}
	var buf bytes.Buffer
	for _, f := range families {
		if f.GetHelp() == "" {
			f.Help = nil // Envoy has no HELP lines
		}
		buf.Reset()
		if _, err := expfmt.MetricFamilyToText(&buf, f); err != nil {
			return fmt.Errorf("admin: write %s: %w", f.GetName(), err)
		}
		if _, err := w.Write(plainBounds(buf.Bytes())); err != nil {
			return err
		}
	}
	return nil
}

var exponent = regexp.MustCompile(`le="[0-9.]+e\+[0-9]+"`)

// plainBounds writes bucket bounds as Envoy does, without an exponent: "le" is a string to those who add series up.
func plainBounds(text []byte) []byte {
	return exponent.ReplaceAllFunc(text, func(le []byte) []byte {
		bound, err := strconv.ParseFloat(string(le[len(`le="`):len(le)-1]), 64)
		if err != nil {
			return le
		}
		return append(strconv.AppendFloat([]byte(`le="`), bound, 'f', -1, 64), '"')
	})
}

// collector is one family of the stats.
type collector struct {
	family  stats.Family
	sel     *selection
	summary bool

	desc   *prometheus.Desc // for labels
	labels []string
}

// Describe says nothing: which labels there are shows only when the family is read.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the series that are asked for.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for m := range c.family.Each {
		if c.sel.takes(m) {
			out <- c.series(m)
		}
	}
}

func (c *collector) series(m *stats.Metric) prometheus.Metric {
	var names, values []string
	for t := range m.Tags {
		names = append(names, stats.PromSanitize(t.Name))
		values = append(values, clean(t.Value))
	}
	if m.Kind == stats.Text {
		names, values = append(names, "text_value"), append(values, clean(m.Text))
	}
	if c.desc == nil || !slices.Equal(names, c.labels) {
		c.desc, c.labels = prometheus.NewDesc(c.family.Name, "", names, nil), names
	}
	switch m.Kind {
	case stats.Counter:
		return prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(m.Value), values...)
	case stats.Histogram:
		return c.histogram(m, values)
	}
	return prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(m.Value), values...)
}

// histogram gives all that was observed as buckets, or the last interval as quantiles, as Envoy does.
func (c *collector) histogram(m *stats.Metric, values []string) prometheus.Metric {
	if c.summary {
		s := m.Snapshot(true)
		quantiles := map[float64]float64{}
		for _, q := range stats.Quantiles {
			quantiles[q] = s.Quantile(q)
		}
		return prometheus.MustNewConstSummary(c.desc, uint64(s.Count), s.Sum, quantiles, values...)
	}
	s := m.Snapshot(false)
	buckets := map[float64]uint64{}
	bounds := m.Bounds()
	for i, n := range s.Below(bounds) {
		buckets[bounds[i]] = uint64(n)
	}
	return prometheus.MustNewConstHistogram(c.desc, uint64(s.Count), s.Sum, buckets, values...)
}
