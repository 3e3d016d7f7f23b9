// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/bits"
)

// schedule says whose turn it is in weighted round robin, for any turn and without remembering the one before: that is
// what lets callers share a counter instead of a lock.
//
// Each host owns a piece of the line [0, total) as long as its weight. Turn k falls on the point k*stride mod total.
// Because stride and total have no common factor, total turns in a row visit each point once, so each host has exactly
// as many of them as it has weight. Because stride is about total divided by the golden ratio, the points of successive
// turns keep away from each other, and by the three-distance theorem (Sós 1958) a host waits only two or three
// different times between its turns, however the weights are: no host has its turns in a row and then none for long.
//
// Envoy schedules with a heap of deadlines instead (EDF), which spreads turns a little better but has to be locked and
// costs a logarithm for each pick. A table of all turns would be as long as the sum of weights.
type schedule struct {
	total, stride uint64
	// ends[i] is where the piece of host i ends.
	ends []uint64
	// guide[x>>shift] is the host that owns the first point of that part of the line. There are as many parts as hosts,
	// up to a factor of two, so that from there the owner of x is on average at most one step away.
	guide []uint32
	shift uint
}

// newSchedule returns the schedule of at least two hosts. It takes linear time and 12 to 16 bytes for each host.
func newSchedule(hosts []*Host) schedule {
	unit := hosts[0].weight()
	for _, h := range hosts[1:] {
		unit = gcd(unit, h.weight())
	}
	s := schedule{ends: make([]uint64, len(hosts))}
	for i, h := range hosts {
		s.total += h.weight() / unit
		s.ends[i] = s.total
	}
	s.stride = strideOf(s.total)
	for s.total>>s.shift > 2*uint64(len(hosts)) {
		s.shift++
	}
	s.guide = make([]uint32, (s.total-1)>>s.shift+1)
	host := uint32(0)
	for part := range s.guide {
		for s.ends[host] <= uint64(part)<<s.shift {
			host++
		}
		s.guide[part] = host
	}
	return s
}

// host returns whose turn k is.
func (s *schedule) host(k uint64) int {
	hi, lo := bits.Mul64(k%s.total, s.stride)
	_, x := bits.Div64(hi, lo, s.total)
	i := s.guide[x>>s.shift]
	for s.ends[i] <= x {
		i++
	}
	return int(i)
}

// strideOf returns a stride for a line of n >= 2 points: near n divided by the golden ratio, without a common factor
// with n, and with small partial quotients in the continued fraction of stride/n. The greatest of those bounds how
// uneven the turns can get at any scale (Niederreiter 1992, section 3.1); the golden ratio itself has only ones, but n
// is rarely a Fibonacci number.
func strideOf(n uint64) uint64 {
	const (
		good  = 3  // as even as it needs to be
		reach = 64 // how far to look, which finds a good one for nearly all n and costs microseconds
	)
	middle, _ := bits.Mul64(n, golden)
	best, bestQuotient := uint64(1), uint64(math.MaxUint64)
	for d := uint64(0); d < reach && bestQuotient > good; d++ {
		for _, s := range [2]uint64{middle + d, middle - d} {
			if s == 0 || s >= n {
				continue
			}
			if q := greatestQuotient(s, n); q < bestQuotient {
				best, bestQuotient = s, q
			}
		}
	}
	return best
}

// greatestQuotient returns the greatest partial quotient of a/b, or the greatest number where a and b have a common
// factor.
func greatestQuotient(a, b uint64) uint64 {
	q := uint64(0)
	for a != 0 {
		q = max(q, b/a)
		a, b = b%a, a
	}
	if b != 1 {
		return math.MaxUint64
	}
	return q
}

// gcd returns the greatest common divisor.
func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
