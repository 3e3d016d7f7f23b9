// SPDX-License-Identifier: Apache-2.0

package lb

import "math/bits"

// RandomType is the type of the policy that picks at random.
const RandomType = "envoy.extensions.load_balancing_policies.random.v3.Random"

// Random picks at random, each host as often as its weight says (Envoy, "Random"). It keeps no position, so callers
// share nothing that is written.
type Random struct{}

// DefaultRandom returns the policy as it is where nothing is configured.
func DefaultRandom() Random { return Random{} }

// BuildRandom is the policy's Builder.
func BuildRandom(_ any, hosts []*Host, _ uint64, _ Picker) Picker {
	if p := trivial(hosts); p != nil {
		return p
	}
	if sameWeights(hosts) {
		return random(len(hosts))
	}
	return newAlias(hosts)
}

// random is the policy over so many hosts of equal weight.
type random uint64

// Pick implements Picker.
func (n random) Pick(r *Request) int {
	i, _ := bits.Mul64(r.next(), uint64(n))
	return int(i)
}

// alias is the policy over hosts of different weights: Walker's alias method, built as Vose showed (IEEE Transactions
// on Software Engineering 17(9), 1991). Each column holds a part of its own host and gives the rest to another one, so
// that all columns are equally high: a pick is one random number and one look.
type alias []column

type column struct {
	// own is the part of the column, in units of 2^-64, that is the host of the same index; all of it where other is
	// that host too.
	own   uint64
	other uint32
}

// Pick implements Picker.
func (a alias) Pick(r *Request) int {
	i, part := bits.Mul64(r.next(), uint64(len(a)))
	if c := a[i]; part >= c.own {
		return int(c.other)
	}
	return int(i)
}

// newAlias returns the columns of hosts. A column is as high as the sum of the weights and a host of weight w has
// w*len(hosts) to put into columns, so everything is a whole number until it becomes a part of a column.
func newAlias(hosts []*Host) alias {
	n := uint64(len(hosts))
	height := uint64(0)
	left := make([]uint64, n)
	for i, h := range hosts {
		height += h.weight()
		left[i] = h.weight() * n
	}
	// One slice holds both work lists: hosts that do not fill a column grow from the front, the others from the back.
	work := make([]uint32, n)
	small, large := 0, len(work)
	for i, l := range left {
		if l < height {
			work[small] = uint32(i)
			small++
		} else {
			large--
			work[large] = uint32(i)
		}
	}
	a := make(alias, n)
	for i := range a {
		a[i].other = uint32(i)
	}
	for small > 0 {
		s, l := work[small-1], work[large]
		small--
		own, _ := bits.Div64(left[s], 0, height)
		a[s] = column{own: own, other: l}
		left[l] -= height - left[s]
		if left[l] < height {
			large++
			work[small] = l
			small++
		}
	}
	return a
}
