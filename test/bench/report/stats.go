// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/plan"
)

// Spread is a figure over the rounds.
type Spread struct {
	Median, Min, Max float64
	// N is the number of rounds; 0 says that there is no figure.
	N int
}

// Of returns the spread of figures.
func Of(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	s := Spread{Min: v[0], Max: v[len(v)-1], N: len(v)}
	if s.Median = v[len(v)/2]; len(v)%2 == 0 {
		s.Median = (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return s
}

// Relative is the distance between the ends as a share of the median.
func (s Spread) Relative() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / s.Median
}

// metrics are the figures of a cell by the names in package plan, and in its units.
var metrics = map[string]func(*Cell) float64{
	plan.CPU:     func(c *Cell) float64 { return c.CPU },
	plan.P99:     func(c *Cell) float64 { return c.P99 },
	plan.RSS:     func(c *Cell) float64 { return c.RSS / (1 << 20) },
	plan.PerConn: func(c *Cell) float64 { return c.PerConn / (1 << 10) },
	"rate":       func(c *Cell) float64 { return c.Rate },
	"p50":        func(c *Cell) float64 { return c.P50 },
	"p999":       func(c *Cell) float64 { return c.P999 },
	"user":       func(c *Cell) float64 { return c.User },
	"system":     func(c *Cell) float64 { return c.System },
}

// Metric returns a figure over the rounds that have it.
func (s *Series) Metric(name string) Spread {
	var v []float64
	if s != nil {
		for i := range s.Cells {
			if c := &s.Cells[i]; c.Failed == "" {
				v = append(v, metrics[name](c))
			}
		}
	}
	return Of(v)
}

// Ratio returns the spread of a figure's quotients, each of two measurements in one round, which stand close together in
// time: what slows the machine for a while slows both.
func (r *Report) Ratio(row, metric, peer, against string) Spread {
	a, b := r.Find(row, peer), r.Find(row, against)
	if a == nil || b == nil {
		return Spread{}
	}
	var v []float64
	for i := range a.Cells {
		for j := range b.Cells {
			ca, cb := &a.Cells[i], &b.Cells[j]
			if ca.Round != cb.Round || ca.Failed != "" || cb.Failed != "" {
				continue
			}
			if d := metrics[metric](cb); d > 0 {
				v = append(v, metrics[metric](ca)/d)
			}
		}
	}
	return Of(v)
}

// Verdict is how a goal stands.
type Verdict string

// The verdicts.
const (
	Reached   Verdict = "goal"        // at or under the goal
	Shippable Verdict = "floor"       // between floor and goal
	Above     Verdict = "ABOVE"       // the row is open
	Unknown   Verdict = "not known"   // not measured
	Broken    Verdict = "NOT COUNTED" // measured with errors
)

// Standing is a goal beside its figure.
type Standing struct {
	Row string
	plan.Goal
	Figure  Spread
	Verdict Verdict
}

// Standings judges the goals of the rows that were asked for.
func (r *Report) Standings(rows []plan.Row) (all []Standing) {
	for _, row := range rows {
		if !slices.Contains(r.Flags.Rows, row.Name) {
			continue
		}
		for _, g := range row.Goals {
			s := Standing{Row: row.Name, Goal: g}
			subject := r.Find(row.Name, g.Subject)
			if g.Against == "" {
				s.Figure = subject.Metric(g.Metric)
			} else {
				s.Figure = r.Ratio(row.Name, g.Metric, g.Subject, g.Against)
			}
			s.Verdict = judge(g, s.Figure, subject.faulty() || g.Against != "" && r.Find(row.Name, g.Against).faulty())
			all = append(all, s)
		}
	}
	return all
}

func judge(g plan.Goal, figure Spread, faulty bool) Verdict {
	switch {
	case figure.N == 0:
		return Unknown
	case faulty:
		return Broken
	case g.Goal > 0 && figure.Median <= g.Goal:
		return Reached
	case figure.Median <= g.Floor:
		return Shippable
	default:
		return Above
	}
}

// faulty reports whether any round of a series had errors.
func (s *Series) faulty() bool {
	return s != nil && slices.ContainsFunc(s.Cells, func(c Cell) bool { return c.Faulty() })
}

// noisy reports whether others used the cores in half of the rounds.
func (s *Series) noisy() bool {
	n := 0
	for _, c := range s.Cells {
		if c.Disturbance() > quiet {
			n++
		}
	}
	return 2*n >= len(s.Cells) && n > 0
}

// Merge adds a histogram to another, both in the compressed encoding; into may be empty.
func Merge(into, more []byte) ([]byte, error) {
	if len(into) == 0 {
		return more, nil
	}
	a, err1 := hdrhistogram.Decode(into)
	b, err2 := hdrhistogram.Decode(more)
	if err := errors.Join(err1, err2); err != nil {
		return into, fmt.Errorf("report: histogram: %w", err)
	}
	if dropped := a.Merge(b); dropped > 0 {
		return into, fmt.Errorf("report: %d latencies do not fit", dropped)
	}
	return a.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
}

// finite is a figure for a table; there is none for what was not measured.
func finite(f float64) bool { return f != 0 && !math.IsNaN(f) && !math.IsInf(f, 0) }
