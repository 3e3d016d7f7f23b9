// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/meshtap/meshtap/test/bench/load"
	"github.com/meshtap/meshtap/test/bench/plan"
)

// colours are those of the peers, in their order; they can be told apart by colour-blind people too.
var colours = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff}, {0x56, 0xb4, 0xe9, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff},
	{0xe6, 0x9f, 0x00, 0xff}, {0xcc, 0x79, 0xa7, 0xff}, {0x66, 0x66, 0x66, 0xff},
}

const (
	chartWidth  = 9 * vg.Inch
	chartHeight = 4.5 * vg.Inch
)

// Draw writes the charts as base-NAME.FORMAT and returns their names.
func (r *Report) Draw(rows []plan.Row, base string, formats ...string) (files []string, err error) {
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	for _, c := range r.charts(rows) {
		for _, format := range formats {
			file := base + "-" + c.name + "." + format
			if err := c.Save(chartWidth, chartHeight, file); err != nil {
				return files, fmt.Errorf("report: chart: %w", err)
			}
			files = append(files, file)
		}
	}
	return files, nil
}

type chart struct {
	*plot.Plot
	name string
}

func (r *Report) charts(rows []plan.Row) (all []chart) {
	var loaded, http1, http2, idle []plan.Row
	for _, row := range rows {
		switch {
		case !slices.Contains(r.Flags.Rows, row.Name):
		case row.Job.Idle:
			idle = append(idle, row)
		case row.Job.Down == load.HTTP2 || row.Job.Up == load.HTTP2:
			loaded, http2 = append(loaded, row), append(http2, row)
		default:
			loaded, http1 = append(loaded, row), append(http1, row)
		}
	}
	for _, g := range []struct {
		rows []plan.Row
		name string
	}{{http1, ""}, {http2, "-h2"}} {
		if len(g.rows) > 0 {
			all = append(all, chart{r.bars("Processor time of the proxy per request", "microseconds", g.rows, plan.CPU), "cpu" + g.name})
			all = append(all, chart{r.bars("Requests per second on one core", "requests/s", g.rows, "rate"), "rate" + g.name})
		}
	}
	for _, row := range loaded {
		if row.Job.Rate > 0 {
			all = append(all, chart{r.latency(row), "latency-" + row.Name})
		}
	}
	if len(idle) > 0 {
		all = append(all, chart{r.bars("Memory per idle connection, or stream", "KiB", idle, plan.PerConn), "idle"})
	}
	return all
}

// bars draws a group for each row with a bar for each peer.
func (r *Report) bars(title, unit string, rows []plan.Row, metric string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.Legend.Top, p.Y.Min = title+r.mark(), unit, true, 0
	shown := r.shown(rows)
	width := vg.Points(440 / float64(len(rows)*(len(shown)+1)))
	for i, name := range shown {
		var values plotter.Values
		for _, row := range rows {
			values = append(values, r.Find(row.Name, name).Metric(metric).Median)
		}
		b, err := plotter.NewBarChart(values, width)
		if err != nil {
			continue // no figures
		}
		b.Color, b.LineStyle.Width, b.Offset = r.colour(name), 0, width*vg.Length(float64(i)-float64(len(shown)-1)/2)
		p.Add(b)
		p.Legend.Add(name, b)
	}
	// Room for the legend above the bars, and beside them.
	p.Y.Max *= 1.35
	p.X.Min, p.X.Max = -0.6, float64(len(rows))-0.4
	p.Legend.Padding = vg.Points(2)
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
	}
	p.NominalX(names...)
	return p
}

// latency draws latency over the share of requests that were slower, both logarithmic.
func (r *Report) latency(row plan.Row) *plot.Plot {
	p := plot.New()
	p.Title.Text = "Latency: " + row.Title + r.mark()
	p.X.Label.Text, p.Y.Label.Text = "percentile", "microseconds"
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 1, Label: "90"}, {Value: 2, Label: "99"}, {Value: 3, Label: "99.9"}, {Value: 4, Label: "99.99"}}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left, p.X.Max = true, true, 4.2
	p.Y.Max = 1
	for _, name := range r.shown([]plan.Row{row}) {
		h, err := hdrhistogram.Decode(r.Find(row.Name, name).Latency)
		if err != nil {
			continue // no figures
		}
		var line plotter.XYs
		for nines := 0.0; nines <= 4; nines += 0.05 {
			q := 100 * (1 - math.Pow(10, -nines))
			y := max(1, float64(h.ValueAtQuantile(q))/1e3)
			line = append(line, plotter.XY{X: nines, Y: y})
			p.Y.Max = max(p.Y.Max, 30*y) // room for the legend
		}
		l, err := plotter.NewLine(line)
		if err != nil {
			continue
		}
		l.Color, l.Width = r.colour(name), vg.Points(1.5)
		p.Add(l)
		p.Legend.Add(name, l)
	}
	return p
}

// shown are the peers that have figures in any of the rows.
func (r *Report) shown(rows []plan.Row) (names []string) {
	for _, p := range r.Peers {
		if slices.ContainsFunc(rows, func(row plan.Row) bool { return r.Find(row.Name, p.Name).Metric("rate").N > 0 }) {
			names = append(names, p.Name)
		}
	}
	return names
}

func (r *Report) colour(name string) color.RGBA {
	i := slices.IndexFunc(r.Peers, func(p Peer) bool { return p.Name == name })
	return colours[i%len(colours)]
}

// mark warns beside the title of a chart.
func (r *Report) mark() string {
	if len(r.noise()) > 0 {
		return " (NOT QUIET)"
	}
	return ""
}
