// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"math"
	"math/bits"
)

// A histogram is log-linear: 16 steps per power of two, so that a step is at most 6.25 % wide. Its unit is 1/1024 of a
// millisecond, because then most of Envoy's buckets up to 100 ms begin where a step does. Values below 16 units share
// the first 16 steps. Durations from 2^40 units (12 days) on fall into the last step.
//
// A value that lies on a boundary belongs to the step below it, as "le" wants.

// perUnit is the nanoseconds of a millisecond, in which histograms are printed.
const perUnit = 1_000_000

// maxValue is the greatest value that has a step of its own, in nanoseconds.
const maxValue = perUnit << 30

// steps is the number of steps.
const steps = tablePages * pageSize

// stepOf returns the step of v nanoseconds, v >= 0.
func stepOf(v int64) int {
	if v == 0 {
		return 0
	}
	u := (uint64(min(v, maxValue))<<10 - 1) / perUnit
	if u < pageSize {
		return int(u)
	}
	e := bits.Len64(u) - 5
	return (e+1)*pageSize + int(u>>e)%pageSize
}

// lower returns the lower bound of a step in milliseconds; the upper bound is that of the next one.
func lower(step int) float64 {
	if step < pageSize {
		return float64(step) / 1024
	}
	e := step/pageSize - 1
	return math.Ldexp(float64(pageSize+step%pageSize), e-10)
}

// Buckets are the upper bounds of the buckets that Envoy prints, in milliseconds.
var Buckets = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000,
	1800000, 3600000}

// Quantiles are the quantiles that Envoy prints, 0 ... 1.
var Quantiles = [...]float64{0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1}

// Snapshot is a distribution at one moment. Values are in milliseconds, or plain numbers where ObserveCount made them.
type Snapshot struct {
	Count int64
	// Sum is exact.
	Sum   float64
	pages [tablePages]*[pageSize]int64
}

// Step is a step of a distribution that holds values: Low < value <= Low + Width.
type Step struct {
	Low, Width float64
	Count      int64
}

// Steps calls yield for each step that holds values, from the lowest on.
func (s *Snapshot) Steps(yield func(Step) bool) {
	for p, pg := range s.pages {
		if pg == nil {
			continue
		}
		for j, n := range pg {
			i := p*pageSize + j
			if n > 0 && !yield(Step{Low: lower(i), Width: lower(i+1) - lower(i), Count: n}) {
				return
			}
		}
	}
}

// Quantile returns the value below which the share q of all lies, NaN where there is none. The values of a step are taken
// as spread evenly over it.
func (s *Snapshot) Quantile(q float64) float64 {
	rank := max(int64(math.Ceil(q*float64(s.Count))), 1)
	for st := range s.Steps {
		if rank <= st.Count {
			return st.Low + st.Width*float64(rank)/float64(st.Count+1)
		}
		rank -= st.Count
	}
	return math.NaN()
}

// Below returns, for each of the bounds, which ascend, how many values are not above it. A step that a bound cuts through
// counts as below if its middle is: the error is at most half a step, 3 %, and 0 for those of Buckets from 0.5 to 100 ms.
func (s *Snapshot) Below(bounds []float64) []int64 {
	counts := make([]int64, len(bounds))
	b, n := 0, int64(0)
	for st := range s.Steps {
		for b < len(bounds) && st.Low+st.Width/2 > bounds[b] {
			counts[b] = n
			b++
		}
		n += st.Count
	}
	for ; b < len(bounds); b++ {
		counts[b] = n
	}
	return counts
}

// page returns page p, making it where there is none.
func (s *Snapshot) page(p int) *[pageSize]int64 {
	if s.pages[p] == nil {
		s.pages[p] = new([pageSize]int64)
	}
	return s.pages[p]
}

// reset empties the snapshot and keeps its pages.
func (s *Snapshot) reset() {
	s.Count, s.Sum = 0, 0
	for _, pg := range s.pages {
		if pg != nil {
			*pg = [pageSize]int64{}
		}
	}
}

// add adds what is in s, times sign, to d.
func (s *Snapshot) add(d *Snapshot, sign int64) {
	for p, pg := range s.pages {
		if pg == nil {
			continue
		}
		to := d.page(p)
		for j, n := range pg {
			to[j] += sign * n
		}
	}
	d.Count += sign * s.Count
	d.Sum += float64(sign) * s.Sum
}

// Snapshot adds up the shards of histogram h.
func (g *Group) Snapshot(h int) *Snapshot {
	s := new(Snapshot)
	g.merge(s, h)
	return s
}

// merge adds the shards of histogram h to s.
func (g *Group) merge(s *Snapshot, h int) {
	var sum int64
	for i := range g.blocks {
		t := g.blocks[i].Load().peek(len(g.schema.Codes) + h)
		if t == nil {
			continue
		}
		sum += t.sum.Load()
		for p := range t.pages {
			pg := t.pages[p].Load()
			if pg == nil {
				continue
			}
			to := s.page(p)
			for j := range pg {
				n := pg[j].Load()
				to[j] += n
				s.Count += n
			}
		}
	}
	s.Sum += float64(sum) / perUnit
}

// cut is a histogram as it was at the end of the last interval, and that interval alone.
type cut struct {
	at, interval Snapshot
}

// cutHist ends an interval of histogram h. scratch is overwritten.
func (g *Group) cutHist(h int, scratch *Snapshot) {
	scratch.reset()
	g.merge(scratch, h)
	if scratch.Count == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.cuts[h]
	if c == nil {
		c = new(cut)
		g.cuts[h] = c
	}
	c.interval.reset()
	scratch.add(&c.interval, 1)
	c.at.add(&c.interval, -1)
	c.at.reset()
	scratch.add(&c.at, 1)
}

// Interval returns the values that histogram h observed in the interval that the registry's last Cut ended.
func (g *Group) Interval(h int) *Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := new(Snapshot)
	if c := g.cuts[h]; c != nil {
		c.interval.add(s, 1)
	}
	return s
}
