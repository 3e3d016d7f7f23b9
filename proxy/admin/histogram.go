// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/meshtap/meshtap/internal/stats"
)

// appendHistogram prints a histogram behind its name as /stats does.
func appendHistogram(buf []byte, m *stats.Metric, mode string) []byte {
	all := m.Snapshot(false)
	if all.Count == 0 {
		return append(buf, "No recorded values"...)
	}
	interval := m.Snapshot(true)
	switch mode {
	case "cumulative", "disjoint":
		a, i := buckets(all, mode, m.Bounds()), buckets(interval, mode, m.Bounds())
		for b, bound := range m.Bounds() {
			if b > 0 {
				buf = append(buf, ' ')
			}
			buf = strconv.AppendFloat(append(buf, 'B'), bound, 'g', 6, 64)
			buf = strconv.AppendInt(append(buf, '('), i[b], 10)
			buf = strconv.AppendInt(append(buf, ','), a[b], 10)
			buf = append(buf, ')')
		}
		return buf
	case "detailed":
		buf = append(buf[:len(buf)-1], "\n  totals="...)
		buf = appendSteps(buf, all)
		buf = append(buf, "\n  intervals="...)
		buf = appendSteps(buf, interval)
		buf = append(buf, "\n  summary="...)
	}
	for i, q := range stats.Quantiles {
		if i > 0 {
			buf = append(buf, ' ')
		}
		buf = strconv.AppendFloat(append(buf, 'P'), percent(q), 'g', -1, 64)
		buf = appendNumber(append(buf, '('), interval.Quantile(q))
		buf = appendNumber(append(buf, ','), all.Quantile(q))
		buf = append(buf, ')')
	}
	return buf
}

// percent is a quantile in percent, without the error that binary fractions bring.
func percent(q float64) float64 { return math.Round(q*1000) / 10 }

func appendNumber(buf []byte, v float64) []byte {
	if math.IsNaN(v) {
		return append(buf, "nan"...)
	}
	return strconv.AppendFloat(buf, v, 'g', -1, 64)
}

// appendSteps prints "low,width:count", separated by ", ".
func appendSteps(buf []byte, s *stats.Snapshot) []byte {
	first := true
	for st := range s.Steps {
		if !first {
			buf = append(buf, ", "...)
		}
		first = false
		buf = strconv.AppendFloat(buf, st.Low, 'g', -1, 64)
		buf = strconv.AppendFloat(append(buf, ','), st.Width, 'g', -1, 64)
		buf = strconv.AppendInt(append(buf, ':'), st.Count, 10)
	}
	return buf
}

// buckets returns the counts of buckets, each with those below it unless the mode is "disjoint".
func buckets(s *stats.Snapshot, mode string, bounds []float64) []int64 {
	c := s.Below(bounds)
	if mode == "disjoint" {
		for b := len(c) - 1; b > 0; b-- {
			c[b] -= c[b-1]
		}
	}
	return c
}

// histogramsFrame is what stands around the histograms in JSON.
func histogramsFrame(mode string) (head, foot string) {
	percents, _ := json.Marshal(percentiles()) // numbers
	switch mode {
	case "cumulative", "disjoint":
		return `{"histograms":[`, `]}`
	case "detailed":
		return `{"histograms":{"supported_percentiles":` + string(percents) + `,"details":[`, `]}}`
	}
	return `{"histograms":{"supported_quantiles":` + string(percents) + `,"computed_quantiles":[`, `]}}`
}

func percentiles() []float64 {
	var out []float64
	for _, q := range stats.Quantiles {
		out = append(out, percent(q))
	}
	return out
}

// number is a float64 that is null where it is not a number.
type numberJSON float64

// MarshalJSON prints the number.
func (n numberJSON) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

type quantileJSON struct {
	Cumulative numberJSON `json:"cumulative"`
	Interval   numberJSON `json:"interval"`
}

type bucketJSON struct {
	Bound      float64 `json:"upper_bound"`
	Interval   int64   `json:"interval"`
	Cumulative int64   `json:"cumulative"`
}

type stepJSON struct {
	Low   float64 `json:"lower_bound"`
	Width float64 `json:"width"`
	Count int64   `json:"count"`
}

// histogramJSON is one histogram in the form of its mode.
func histogramJSON(name string, m *stats.Metric, mode string) any {
	all, interval := m.Snapshot(false), m.Snapshot(true)
	var quantiles []quantileJSON
	for _, q := range stats.Quantiles {
		quantiles = append(quantiles, quantileJSON{numberJSON(all.Quantile(q)), numberJSON(interval.Quantile(q))})
	}
	switch mode {
	case "cumulative", "disjoint":
		a, i := buckets(all, mode, m.Bounds()), buckets(interval, mode, m.Bounds())
		var list []bucketJSON
		for b, bound := range m.Bounds() {
			list = append(list, bucketJSON{bound, i[b], a[b]})
		}
		return struct {
			Name    string       `json:"name"`
			Buckets []bucketJSON `json:"buckets"`
		}{name, list}
	case "detailed":
		return struct {
			Name        string         `json:"name"`
			Totals      []stepJSON     `json:"totals"`
			Intervals   []stepJSON     `json:"intervals"`
			Percentiles []quantileJSON `json:"percentiles"`
		}{name, stepsJSON(all), stepsJSON(interval), quantiles}
	}
	return struct {
		Name   string         `json:"name"`
		Values []quantileJSON `json:"values"`
	}{name, quantiles}
}

func stepsJSON(s *stats.Snapshot) []stepJSON {
	out := []stepJSON{}
	for st := range s.Steps {
		out = append(out, stepJSON(st))
	}
	return out
}
