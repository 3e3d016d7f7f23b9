// SPDX-License-Identifier: Apache-2.0

package lb

// NewSchedule and the fields below let tests look at whole cycles.
var NewSchedule = newSchedule

// Total returns the length of a cycle.
func (s *schedule) Total() uint64 { return s.total }

// Host returns whose turn k is.
func (s *schedule) Host(k uint64) int { return s.host(k) }

// Ends returns the ends of the hosts' pieces.
func (s *schedule) Ends() []uint64 { return s.ends }

// Point returns the point of turn k by plain arithmetic; only for small totals.
func (s *schedule) Point(k uint64) uint64 { return k % s.total * s.stride % s.total }

// Shares returns the part of all picks, 0 ... 1, that each host has in the columns of the alias method.
func Shares(hosts []*Host) []float64 {
	a := newAlias(hosts)
	shares := make([]float64, len(hosts))
	for i, c := range a {
		own := float64(c.own) / (1 << 64)
		shares[i] += own / float64(len(a))
		shares[c.other] += (1 - own) / float64(len(a))
	}
	return shares
}

// ShareLoad runs the priority algorithm on levels that have their counts.
var ShareLoad = shareLoad

// DeadlinesOf returns the deadlines of a weighted least request picker by host.
func DeadlinesOf(p Picker) []float64 {
	d := p.(*deadlines)
	at := make([]float64, len(d.heap))
	for _, x := range d.heap {
		at[x.host] = x.at
	}
	return at
}
