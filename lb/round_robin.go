// SPDX-License-Identifier: Apache-2.0

package lb

import "sync/atomic"

// RoundRobinType is the type of the policy that gives each host its turn.
const RoundRobinType = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"

// RoundRobin gives each host its turn, heavier ones more often (Envoy, "Weighted round robin").
//
// All callers share one atomic counter, so whatever their number they see together exactly the shares of the weights
// over each cycle of turns. With equal weights a cycle is one turn for each host; otherwise it is one turn for each
// unit of weight, and schedule says who has which.
type RoundRobin struct{}

// DefaultRoundRobin returns the policy as it is where nothing is configured.
func DefaultRoundRobin() RoundRobin { return RoundRobin{} }

// BuildRoundRobin is the policy's Builder. prev's position is shared, so that neither set repeats or skips a turn while
// requests still use the old one.
func BuildRoundRobin(_ any, hosts []*Host, seed uint64, prev Picker) Picker {
	if p := trivial(hosts); p != nil {
		return p
	}
	at := turnOf(prev, seed)
	if sameWeights(hosts) {
		return &roundRobin{at: at, n: uint64(len(hosts))}
	}
	return &weightedRoundRobin{at: at, schedule: newSchedule(hosts)}
}

// roundRobin is the policy over hosts of equal weight.
type roundRobin struct {
	at *turn
	n  uint64
}

// Pick implements Picker.
func (p *roundRobin) Pick(*Request) int { return int(p.at.next() % p.n) }

func (p *roundRobin) turn() *turn { return p.at }

// weightedRoundRobin is the policy over hosts of different weights.
type weightedRoundRobin struct {
	at *turn
	schedule
}

// Pick implements Picker.
func (p *weightedRoundRobin) Pick(*Request) int { return p.host(p.at.next()) }

func (p *weightedRoundRobin) turn() *turn { return p.at }

// turn counts turns. It has a cache line for itself: it is the only thing that picking writes, and the schedule next to
// it is read by all.
type turn struct {
	n atomic.Uint64
	_ [56]byte
}

func (t *turn) next() uint64 { return t.n.Add(1) }

// turnOf returns prev's count, or a new one that starts anywhere.
func turnOf(prev Picker, seed uint64) *turn {
	if p, ok := prev.(interface{ turn() *turn }); ok {
		return p.turn()
	}
	t := new(turn)
	t.n.Store(mix(seed))
	return t
}
